"""TensorRT: what its own compiler says of the programs without a card, and real engines on one."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch

from cmath_stream import compile as compiling
from cmath_stream.engine import Engine
from cmath_stream.model import CMATH, CMATHConfig
from cmath_stream.prediction import EngineConfig
from cmath_stream.programs import Shape, programs
from cmath_stream.runtimes import runtime
from tests.checkpoints import tiny
from tests.test_engine import views

ROOT = Path(__file__).resolve().parent.parent
needs_compiler = pytest.mark.skipif(
    importlib.util.find_spec("torch_tensorrt") is None,
    reason="torch-tensorrt is not installed (make setup installs its compiler)",
)


@pytest.fixture(scope="module")
def examined() -> list[dict[str, Any]]:
    """The dry run of every program, window and precision: real lowering, converters and partitioner."""
    finished = subprocess.run(
        [sys.executable, "-m", "tests.tensorrt_dryrun"],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=800,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr[-2000:]
    return [json.loads(line) for line in finished.stdout.splitlines() if line.startswith("{")]


@pytest.mark.slow
@pytest.mark.timeout(900)
@needs_compiler
def test_every_operator_converts_and_a_program_is_one_engine(examined: list[dict[str, Any]]) -> None:
    ours = [each for each in examined if each["program"] != "refused"]
    assert {(each["program"], each["window"], each["precision"]) for each in ours} == {
        (program, window, precision)
        for program, window in [("remember", 4), *product(("window", "ask"), (4, 32))]
        for precision in ("fp32", "fp16")
    }
    for each in ours:
        assert each["refused"] == {}, each
        assert each["supported"] == each["total"] > 50, each
        assert each["engines"] == 1, each


@pytest.mark.slow
@pytest.mark.timeout(900)
@needs_compiler
def test_an_operator_that_does_not_convert_is_named(examined: list[dict[str, Any]]) -> None:
    (found,) = [each for each in examined if each["program"] == "refused"]
    assert found["supported"] < found["total"]
    assert any("bessel_j0" in name for name in found["refused"])


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_real_engine_says_what_eager_says(tmp_path: Path, precision: Any) -> None:
    """On a machine with a card: pytest -m gpu tests/test_tensorrt.py"""
    missing = runtime("tensorrt").missing()
    if missing:
        pytest.skip(f"needs {missing}")
    torch.manual_seed(0)
    config = CMATHConfig(dims=(("text", 24), ("audio", 6), ("visual", 10)), width=32, heads=4, window=8)
    model = CMATH(config, decoder=False).eval()
    for name, program in programs(model, Shape(8, 8, 64), precision).items():
        path = tmp_path / f"{name}.ep"
        runtime("tensorrt").build(program, path)
        call = runtime("tensorrt").load(path, 1)
        for batch in (1, 3, 8):
            inputs = program.inputs(batch)
            with torch.inference_mode():
                expected = program.module(*inputs)
            for said, right in zip(call(*inputs), expected, strict=True):
                torch.testing.assert_close(
                    said.cpu(), right, atol=1e-4 if precision == "fp32" else 3e-2, rtol=1e-2
                )


@pytest.mark.gpu
def test_on_a_card_a_conversation_stays_there_and_is_answered_as_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = runtime("tensorrt").missing()
    if missing:
        pytest.skip(f"needs {missing}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    right, engine = (Engine(tiny(tmp_path), EngineConfig(batch=4)) for _ in range(2))
    compiling.build(engine, "tensorrt")
    engine.use(compiling.load(engine, "tensorrt", 1), "tensorrt")
    assert engine.device.type == "cuda"
    for window in views(engine, 20):
        said, expected = engine.step([window])[0], right.step([window])[0]
        assert said.probabilities == pytest.approx(expected.probabilities, abs=1e-4)
