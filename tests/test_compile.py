"""Compiled engines: what is built says what eager says, is found again, and taken for nothing else."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from cmath_stream import compile as compiling
from cmath_stream.checkpoint import Checkpoint
from cmath_stream.compiled import at_hand, keep_compiled, take
from cmath_stream.config import FusionConfig
from cmath_stream.engine import Engine
from cmath_stream.prediction import EngineConfig
from cmath_stream.programs import halved, programs
from cmath_stream.runtimes import RuntimeUnavailable, runtime
from tests.checkpoints import tiny
from tests.test_engine import views

SMALL = EngineConfig(batch=4, remembered=32)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return tiny(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="module")
def onnx_engine(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with one built engine."""
    cache = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache))
        compiling.build(Engine(checkpoint, SMALL), "onnx")
    return cache


def same_answers(engine: Engine, other: Engine) -> None:
    for turns in (1, 9):
        pairs = zip(engine.step(views(engine, turns)), other.step(views(other, turns)), strict=True)
        for said, expected in pairs:
            assert said.probabilities == pytest.approx(expected.probabilities, abs=1e-4)


@pytest.mark.filterwarnings("ignore")
def test_an_onnx_engine_is_found_again_and_says_what_eager_says(
    onnx_engine: Path, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(onnx_engine))
    engine = Engine(checkpoint, SMALL)
    assert at_hand(engine, SMALL) == "onnx"
    engine.use(compiling.load(engine, "onnx", 1), "onnx")
    assert engine.info.engine == "onnx"
    same_answers(engine, Engine(checkpoint, SMALL))
    rows = compiling.check(engine, compiling.load(engine, "onnx", 1))
    assert {(row.program, row.batch) for row in rows} == {
        (program, batch) for program in ("remember", "ask") for batch in (1, 3, 4)
    }
    assert all(row.within for row in rows)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore")
def test_an_inductor_engine_says_what_eager_says(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if missing := runtime("inductor").missing():
        pytest.skip(f"needs {missing}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    engine = Engine(checkpoint, SMALL)
    compiling.build(engine, "inductor")
    engine.use(compiling.load(engine, "inductor", 1), "inductor")
    same_answers(engine, Engine(checkpoint, SMALL))


def test_a_check_finds_what_is_off(checkpoint: Checkpoint) -> None:
    engine = Engine(checkpoint, SMALL)
    right = engine._calls

    def off(*inputs: Any) -> Any:
        logits, alone = right["ask"](*inputs)
        return logits + 1e-3, alone

    rows = compiling.check(engine, {**right, "ask": off})
    assert {row.program for row in rows if not row.within} == {"ask"}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_an_engine_that_is_off_is_not_kept(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(compiling, "TOLERANCE", {"fp32": -1.0})
    with pytest.raises(RuntimeUnavailable, match="onnx: remember is .* from eager"):
        compiling.build(Engine(checkpoint, SMALL), "onnx")
    assert list(compiling.folder().iterdir()) == []


@pytest.mark.parametrize("change", ["model", "shape", "machine", "file", "half", "nothing"])
def test_another_model_shape_or_machine_is_not_taken(
    change: str, onnx_engine: Path, checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    cache = tmp_path / "cache"
    shutil.copytree(onnx_engine, cache)
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    config = SMALL
    (built,) = compiling.folder().iterdir()
    match change:
        case "model":
            checkpoint = tiny(tmp_path)
            next(checkpoint.model.head.parameters())[0, 0] += 1e-3
        case "shape":
            config = EngineConfig(batch=8, remembered=32)
        case "machine":
            monkeypatch.setattr(compiling, "_machine", lambda: "another")
        case "file":
            with (built / "ask.onnx").open("ab") as file:
                file.write(b"x")
        case "half":
            (built / "remember.onnx").unlink()
    assert (at_hand(Engine(checkpoint, config), config) == "onnx") == (change == "nothing")


def test_a_runtime_that_is_not_to_be_had_is_one_clear_line() -> None:
    if runtime("tensorrt").missing() is None:
        pytest.skip("there is a card")
    with pytest.raises(RuntimeUnavailable, match="'tensorrt', which needs a CUDA device"):
        compiling.chosen("tensorrt")
    assert compiling.chosen("eager") == "eager"
    assert compiling.chosen("auto") in ("inductor", "onnx", "eager")


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.filterwarnings("ignore")
async def test_what_is_wanted_and_not_there_is_built_while_eager_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    checkpoint = tiny(tmp_path)
    config = EngineConfig(batch=4, remembered=32, runtime="onnx")
    engine = Engine(checkpoint, config)
    assert at_hand(engine, config) == "eager"
    given: list[str] = []

    async def use(calls: Mapping[Any, Any], name: str) -> None:
        engine.use(calls, name)
        given.append(name)

    fusion = FusionConfig(checkpoint=str(tmp_path / "tiny.safetensors"), engine=config)
    building = asyncio.create_task(keep_compiled(engine, fusion, use))
    await asyncio.sleep(0)  # it has begun
    assert engine.info.engine == "eager"
    same_answers(engine, Engine(checkpoint, SMALL))
    await building
    assert (given, engine.info.engine) == (["onnx"], "onnx")
    same_answers(engine, Engine(checkpoint, SMALL))


def test_an_engine_that_is_off_or_does_not_load_is_not_run(
    onnx_engine: Path, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(onnx_engine))
    engine = Engine(checkpoint, SMALL)
    assert take(engine, SMALL) == engine.info.engine == "onnx"
    for tolerance in ({"fp32": -1.0}, {}):  # nothing is near enough; and a check that raises
        monkeypatch.setattr(compiling, "TOLERANCE", tolerance)
        engine = Engine(checkpoint, SMALL)
        assert take(engine, SMALL) == engine.info.engine == "eager"


async def test_eager_that_was_asked_for_is_left_alone(checkpoint: Checkpoint) -> None:
    config = EngineConfig(batch=4, remembered=32, runtime="eager")
    engine = Engine(checkpoint, config)
    assert take(engine, config) == "eager"

    async def use(calls: Mapping[Any, Any], name: str) -> None:
        raise AssertionError("nothing was built")

    await keep_compiled(engine, FusionConfig(engine=config), use)


async def test_auto_does_not_compile_on_a_machine_without_a_card(checkpoint: Checkpoint) -> None:
    if compiling.chosen("auto") in ("tensorrt", "cuda"):
        pytest.skip("there is a card")
    engine = Engine(checkpoint, SMALL)

    async def use(calls: Mapping[Any, Any], name: str) -> None:
        raise AssertionError("nothing was built")

    await keep_compiled(engine, FusionConfig(engine=SMALL), use)


def test_half_precision_keeps_its_norms_in_float32(checkpoint: Checkpoint) -> None:
    half = halved(checkpoint.model)
    assert next(checkpoint.model.parameters()).dtype.itemsize == 4
    kinds = {name.rpartition(".")[0]: p.dtype.itemsize for name, p in half.named_parameters()}
    norms = {name for name in kinds if "norm" in name}
    assert norms
    assert {kinds[name] for name in norms} == {4}
    assert {size for name, size in kinds.items() if name not in norms} == {2}
    near = Engine(checkpoint, EngineConfig(batch=4, remembered=32, precision="fp16"))
    pairs = zip(near.step(views(near, 9)), Engine(checkpoint, SMALL).step(views(near, 9)), strict=True)
    for said, expected in pairs:
        assert said.probabilities == pytest.approx(expected.probabilities, abs=1e-2)
    shape = programs(checkpoint.model, Engine(checkpoint, SMALL).programs["window"].shape, "fp16")
    for program in shape.values():
        for said in program.module(*program.inputs(2)):
            assert said.isfinite().all()


def test_a_card_that_is_not_json_is_no_engine(tmp_path: Path) -> None:
    assert compiling.read_card(tmp_path) is None
    (tmp_path / "engine.json").write_text("no")
    assert compiling.read_card(tmp_path) is None
    (tmp_path / "engine.json").write_text(json.dumps([1]))
    assert compiling.read_card(tmp_path) is None
