"""Giving a running engine its compiled programs: at once where they are built, else as soon as they are."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING

from cmath_stream import compile as compiling
from cmath_stream.prediction import EngineConfig
from cmath_stream.programs import ProgramName
from cmath_stream.runtimes import RUNTIMES, Call, RuntimeName, device_of
from realtime import telemetry

if TYPE_CHECKING:
    from cmath_stream.config import FusionConfig
    from cmath_stream.engine import Engine

log = logging.getLogger(__name__)

Use = Callable[[Mapping[ProgramName, Call], str], Awaitable[None]]

_NICENESS = 10  # calls come before compiling


def at_hand(engine: Engine, config: EngineConfig) -> RuntimeName:
    """The best runtime that is built for this machine and model; `eager` if none is."""
    names = [name for name in RUNTIMES if config.runtime in ("auto", name) and name != "eager"]
    found = (name for name in names if compiling.built(compiling.identity(engine, name)))
    return next(found, "eager")


def take(engine: Engine, config: EngineConfig) -> RuntimeName:
    """Run what is built, if it says what eager says; returns what runs now."""
    name = at_hand(engine, config)
    if name == "eager":
        return name
    calls = trusted(engine, name, config.threads)
    if calls is None:
        return "eager"
    engine.use(calls, name)
    return name


def trusted(engine: Engine, name: RuntimeName, threads: int) -> Mapping[ProgramName, Call] | None:
    """The programs of a built engine, tried out beside eager; None, said in a line, where they are off."""
    try:
        calls = compiling.load(engine, name, threads)
        off = [each for each in compiling.check(engine, calls) if not each.within]
    except Exception as error:  # whatever a runtime raises: the fusion can do without it
        _fall_back("load_failed", name, error)
        return None
    if off:
        _fall_back("off", name, f"{off[0].program} is {off[0].difference:.1e} from eager")
        return None
    return calls


async def keep_compiled(engine: Engine, fusion: FusionConfig, use: Use) -> None:
    """Compile in the background what is wanted and not there, and use it then.

    Wanted is a runtime that was named, or whatever a card can run. A machine without one is left alone by
    `auto`: half a minute of its cores costs calls more than eager does, so there it is the operator's word
    (`cmath-stream engine build`).
    """
    config = fusion.engine
    name = compiling.chosen(config.runtime)
    if name == "eager":
        return
    if config.runtime == "auto" and device_of(name).type != "cuda":
        log.info("the model runs eagerly; `cmath-stream engine build` compiles it for this machine")
        return
    telemetry.ENGINE_FALLBACK_TOTAL.labels(reason="not_built").inc()
    log.warning("no %s engine is built for this model and machine: eager until it is", name)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, initializer=os.nice, initargs=(_NICENESS,)) as pool:
        try:
            await asyncio.get_running_loop().run_in_executor(pool, _build, fusion, name)
        except Exception as error:  # whatever a compiler raises, as above
            _fall_back("build_failed", name, error)
            return
        except asyncio.CancelledError:
            for child in multiprocessing.active_children():
                child.kill()
            raise
    calls = await asyncio.to_thread(trusted, engine, name, config.threads)
    if calls is not None:
        await use(calls, name)


def _fall_back(reason: str, name: RuntimeName, why: object) -> None:
    telemetry.ENGINE_FALLBACK_TOTAL.labels(reason=reason).inc()
    log.error("no %s engine, eager runs: %s", name, str(why).partition("\n")[0])


def _build(fusion: FusionConfig, name: RuntimeName) -> None:
    from cmath_stream.config import load_checkpoint
    from cmath_stream.engine import Engine

    compiling.build(Engine(load_checkpoint(fusion), fusion.engine), name)
