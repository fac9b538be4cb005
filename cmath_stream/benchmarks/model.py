"""The model's step by runtime and batch: full windows beside the step with a memory, and what bounds them.

All ways take turns in every round, so that what else the machine does meets all alike; the best round of each
counts, and figures are ratios of one run. Weights are random where a width is asked for that is not shipped:
time does not depend on them.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from cmath_stream.benchmarks.figures import Figures, machine
from cmath_stream.checkpoint import Checkpoint, load
from cmath_stream.checkpoint_files import shipped
from cmath_stream.engine import Engine
from cmath_stream.model import CMATH
from cmath_stream.prediction import EngineConfig
from cmath_stream.programs import Program, ProgramName, Shape, programs
from cmath_stream.runtimes import RUNTIMES, Call, RuntimeName, device_of, eager, runtime
from cmath_stream.window import Row, Window

BATCHES = (1, 8, 64)
_ROUNDS = 12
_ROUND_S = 0.03  # at least, of one way in one round
_PAGES = 2048
_CALLS = 64  # concurrent ones
_TURNS = (50, 2000)  # between which a step must not become dearer

Way = Callable[[], object]
Calls = dict[tuple[RuntimeName, ProgramName], Call]


@dataclass(frozen=True, slots=True)
class Asked:
    """What is measured."""

    width: int | None  # d; None: the shipped checkpoint
    window: int | None  # W; None: the checkpoint's
    rounds: int = _ROUNDS


class EveryRow(nn.Module):
    """The baseline: the model as it is trained, all rows of the window, of which the last is wanted."""

    def __init__(self, model: CMATH) -> None:
        super().__init__()
        self.model = model

    def forward(self, *inputs: Any) -> tuple[Tensor, Tensor]:
        logits, alone = self.model.explain(*inputs)
        return logits[:, -1], alone[:, -1]


def measure(asked: Asked, console: Console) -> Figures:
    """Everything, JSON-ready. One thread."""
    torch.set_num_threads(1)
    measured_on = machine()
    checkpoint = load(shipped())
    model = _model(checkpoint.model, asked)
    shape = Shape(max(BATCHES), model.config.window or 0, _PAGES)
    made = programs(model, shape)
    calls: Calls = {("eager", name): eager(program) for name, program in made.items()}
    lacking = {}
    with TemporaryDirectory() as folder:
        for name in RUNTIMES[:-1]:
            if missing := runtime(name).missing():
                lacking[name] = missing
                continue
            for program in made.values():
                console.print(f"compiling {program.name} with {name} ...", highlight=False)
                path = Path(folder) / f"{program.name}{runtime(name).suffix}"
                runtime(name).build(program, path)
                calls[name, program.name] = runtime(name).load(path, 1)
        step = _steps(made, calls, asked.rounds)
        floors = _floors(made)
        fusion = _fusion(checkpoint, model, calls, asked.rounds)
    return {
        "bench": "model",
        "width": model.config.width,
        "window": model.config.window,
        "modalities": [list(each) for each in model.config.dims],
        "weights": sum(parameter.numel() for parameter in model.parameters()),
        "threads": 1,
        "card": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "runtimes_not_here": lacking,
        "step_ms": step,
        "floors": floors,
        "fusion": fusion,
        "machine": measured_on,
    }


def _model(given: CMATH, asked: Asked) -> CMATH:
    if asked.width is None and asked.window in (None, given.config.window):
        return given
    torch.manual_seed(0)
    width = asked.width or given.config.width
    config = replace(
        given.config, width=width, heads=max(4, width // 32), window=asked.window or given.config.window
    )
    return CMATH(config, decoder=False).eval().requires_grad_(False)


def _steps(made: Mapping[ProgramName, Program], calls: Calls, rounds: int) -> list[Figures]:
    """Milliseconds of a batch by way, runtime and batch size."""
    window = made["window"].module.model
    assert isinstance(window, CMATH)
    every_row = eager(replace(made["window"], module=EveryRow(window)))
    found = []
    for batch in BATCHES:
        window_inputs = made["window"].inputs(batch)
        ways: dict[tuple[str, str], Way] = {("every row", "eager"): partial(every_row, *window_inputs)}
        for (name, program), call in calls.items():
            ways[program, name] = _way(made[program], batch, call, device_of(name))
        best = _race(ways, rounds, f"batch {batch}")
        for (way, runs_on), ms in best.items():
            found.append({"way": way, "runtime": runs_on, "batch": batch, "ms": round(ms, 4)})
        for name in dict.fromkeys(name for name, _ in calls):
            both = best["remember", name] + best["ask", name]
            found.append({"way": "step", "runtime": name, "batch": batch, "ms": round(both, 4)})
    return found


def _way(program: Program, batch: int, call: Call, device: torch.device) -> Way:
    """A call as the engine makes it: pages lie where it computes, the batch comes from the processor."""
    inputs = program.inputs(batch)
    inputs = (*(pages.to(device) for pages in inputs[: program.held]), *inputs[program.held :])
    if device.type == "cpu":
        return partial(call, *inputs)

    def finished() -> None:
        call(*inputs)
        torch.cuda.synchronize()

    return finished


def _race(ways: dict[tuple[str, str], Way], rounds: int, title: str) -> dict[tuple[str, str], float]:
    """Milliseconds a call, the best round of each; ways take turns."""
    often = {}
    for key, way in ways.items():
        way()
        began_s = time.perf_counter()
        way()
        often[key] = max(1, round(_ROUND_S / max(time.perf_counter() - began_s, 1e-6)))
    taken: dict[tuple[str, str], list[float]] = {key: [] for key in ways}
    for _ in track(range(rounds), title, console=Console(stderr=True), transient=True):
        for key, way in ways.items():
            began_s = time.perf_counter()
            for _ in range(often[key]):
                way()
            taken[key].append((time.perf_counter() - began_s) * 1e3 / often[key])
    return {key: min(values) for key, values in taken.items()}


def _floors(made: Mapping[ProgramName, Program]) -> Figures:
    """What this machine cannot go below: operations at its best product, weights at its best reading."""
    gflops, gbytes = _peak_gflops(), _read_gbytes()
    rows = []
    for name, program in made.items():
        for batch in BATCHES:
            with FlopCounterMode(display=False) as counter, torch.no_grad():
                program.module(*program.inputs(batch))
            model = program.module.model
            assert isinstance(model, CMATH)
            weights = _weights_read(name, model)
            rows.append({
                "way": name, "batch": batch, "gflop": round(counter.get_total_flops() / 1e9, 5),
                "flop_ms": round(counter.get_total_flops() / gflops / 1e6, 4),
                "weight_ms": round(4 * weights / gbytes / 1e6, 4),
            })  # fmt: skip
    return {"gflops": round(gflops, 1), "read_gb_s": round(gbytes, 2), "rows": rows}


def _weights_read(name: str, model: CMATH) -> int:
    """Numbers of the weights that a program needs; the variance and the experts are for training alone."""
    sizes = {"remember": 0, "ask": 0}
    unread = "joint.log_variance.", *(["experts."] if model.config.fusion != "experts" else [])
    for key, parameter in model.named_parameters():
        if not key.startswith(unread):
            first = key.startswith("compressors.") or ".key_value." in key
            sizes["remember" if first else "ask"] += parameter.numel()
    return sizes[name] if name in sizes else sum(sizes.values())


def _peak_gflops() -> float:
    a, b = torch.randn(1024, 1024), torch.randn(1024, 1024)
    return 2 * 1024**3 / 1e9 / _best_s(lambda: a @ b)


def _read_gbytes() -> float:
    """Of a matrix that no cache holds times one row: how weights are read at a batch of one."""
    much, row = torch.randn(4096, 8192), torch.randn(8192)
    return much.numel() * 4 / 1e9 / _best_s(lambda: much @ row)


def _best_s(work: Way) -> float:
    work()
    taken = []
    for _ in range(10):
        began_s = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began_s)
    return min(taken)


def _fusion(checkpoint: Checkpoint, model: CMATH, calls: Calls, rounds: int) -> Figures:
    """The engine as the fusion calls it, beside the model called eagerly, an utterance at a time."""
    meta = replace(checkpoint.meta, config=model.config)
    best = next(name for name in RUNTIMES if (name, "ask") in calls)
    engine = Engine(Checkpoint(model, meta), EngineConfig(batch=_CALLS, remembered=_PAGES))
    engine.use({key: calls[best, key] for key in engine.called}, best)
    rng = np.random.default_rng(0)
    sessions = [_Session(engine, rng) for _ in range(_CALLS)]
    for _ in range(engine.window):
        engine.step([session.turn() for session in sessions])
    every_row = eager(Program("window", EveryRow(model), Shape(1, engine.window, 1)))
    one = programs(model, Shape(1, engine.window, 1))["window"].inputs(1)
    ways: dict[tuple[str, str], Way] = {
        ("engine", best): lambda: engine.step([session.turn() for session in sessions]),
        ("every row", "eager"): lambda: every_row(*one),
    }
    took = _race(ways, rounds, "fusion")
    utterance_ms = took["engine", best] / _CALLS
    page_bytes = 4 * sum(held[0].numel() for held in engine._memory)
    return {
        "runtime": best,
        "concurrent_calls": _CALLS,
        "engine_ms_per_utterance": round(utterance_ms, 4),
        "eager_full_window_ms_per_utterance": round(took["every row", "eager"], 4),
        "ratio": round(took["every row", "eager"] / utterance_ms, 1),
        "utterances_per_second": round(1e3 / utterance_ms),
        "turns": _growth(engine, rng, rounds),
        "session_kilobytes": round(page_bytes * engine.window / 1024, 1),
        "memory_megabytes": round(page_bytes * _PAGES / 2**20, 1),
    }


class _Session:
    """A conversation of two that goes on."""

    def __init__(self, engine: Engine, rng: np.random.Generator) -> None:
        self._window, self._rng, self._turns = Window(engine.rows), rng, 0
        model = engine.programs["window"].module.model
        assert isinstance(model, CMATH)
        self._dims = dict(model.config.dims)

    def turn(self) -> tuple[Row, ...]:
        """The window after another utterance."""
        vectors = {m: self._rng.standard_normal(d).astype(np.float32) for m, d in self._dims.items()}
        self._turns += 1
        return self._window.put(f"u{self._turns}", "ab"[self._turns % 2], vectors)


def _growth(engine: Engine, rng: np.random.Generator, rounds: int) -> Figures:
    """A step early and late in a conversation, taking turns."""
    sessions = {turns: _Session(engine, rng) for turns in _TURNS}
    for turns, session in sessions.items():
        for _ in range(turns):
            view = session.turn()
        engine.step([view])
    taken: dict[int, list[float]] = {turns: [] for turns in _TURNS}
    for _ in range(40 * rounds):
        for turns, session in sessions.items():
            view = session.turn()
            began_s = time.perf_counter()
            engine.step([view])
            taken[turns].append((time.perf_counter() - began_s) * 1e3)
    middle = {turns: statistics.median(values) for turns, values in taken.items()}
    early, late = (middle[turns] for turns in _TURNS)
    return {"at": list(_TURNS), "ms": [round(early, 4), round(late, 4)], "ratio": round(late / early, 3)}


def show(result: Figures, console: Console) -> None:
    """As tables."""
    ms = {(row["way"], row["runtime"], row["batch"]): row["ms"] for row in result["step_ms"]}
    table = Table(f"d {result['width']}, W {result['window']}, 1 thread", *(f"batch {b}" for b in BATCHES))
    for way, name in dict.fromkeys((way, name) for way, name, _ in ms):
        cells = [
            f"{ms[way, name, b]:.2f} ms ({ms['every row', 'eager', b] / ms[way, name, b]:.1f}x)"
            for b in BATCHES
        ]
        table.add_row(f"{way}, {name}", *cells)
    console.print(table)
    fusion: Figures = result["fusion"]
    console.print(
        f"fusion by {fusion['runtime']}: {fusion['utterances_per_second']} utterances a second of "
        f"{fusion['concurrent_calls']} calls, {fusion['ratio']}x eager full windows; turn "
        f"{fusion['turns']['at'][1]} against {fusion['turns']['at'][0]}: {fusion['turns']['ratio']}",
        highlight=False,
    )
