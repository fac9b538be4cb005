"""A program recorded on a card and replayed. What needs the card: pytest -m gpu tests/test_cuda_graphs.py"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from cmath_stream import compile as compiling
from cmath_stream.cuda_graphs import bucket, buckets
from cmath_stream.engine import Engine
from cmath_stream.model import CMATH, CMATHConfig
from cmath_stream.prediction import EngineConfig
from cmath_stream.programs import Shape, programs
from cmath_stream.runtimes import runtime
from tests.checkpoints import tiny
from tests.test_engine import views

CONFIG = CMATHConfig(dims=(("text", 24), ("audio", 6), ("visual", 10)), width=32, heads=4, window=8)
needs_card = pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA card here")


def test_a_batch_is_padded_to_the_next_power_of_two_but_never_beyond_the_most() -> None:
    assert [bucket(batch, 48) for batch in (1, 2, 3, 4, 5, 32, 33, 48)] == [1, 2, 4, 4, 8, 32, 48, 48]
    assert buckets(1) == [1]
    assert buckets(48) == [1, 2, 4, 8, 16, 32, 48]


@pytest.mark.gpu
@needs_card
@pytest.mark.parametrize(("precision", "off"), [("fp32", 1e-5), ("fp16", 2e-2)])
def test_a_replay_says_what_eager_says(tmp_path: Path, precision: Any, off: float) -> None:
    torch.manual_seed(0)
    model = CMATH(CONFIG, decoder=False).eval()
    for name, program in programs(model, Shape(8, 8, 64), precision).items():
        path = tmp_path / f"{name}.pt2"
        runtime("cuda").build(program, path)
        call = runtime("cuda").load(path, 1)
        pages = tuple(each.cuda() for each in program.inputs(1)[: program.held])
        for seed, batch in enumerate((1, 3, 8, 2, 3)):  # of two sizes twice, with other numbers
            inputs = program.inputs(batch, seed)
            for held, fresh in zip(pages, inputs, strict=False):
                held.copy_(fresh)  # a recording reads pages where they lie
            with torch.inference_mode():
                expected = program.module(*inputs)
            said = call(*pages, *inputs[program.held :])
            assert all(each.is_cuda for each in said)
            for answer, right in zip(said, expected, strict=True):
                torch.testing.assert_close(answer.cpu(), right, atol=off, rtol=1e-2)


@pytest.mark.gpu
@needs_card
def test_an_answer_outlives_the_next_call(tmp_path: Path) -> None:
    torch.manual_seed(0)
    program = programs(CMATH(CONFIG, decoder=False).eval(), Shape(4, 8, 64))["remember"]
    runtime("cuda").build(program, tmp_path / "remember.pt2")
    call = runtime("cuda").load(tmp_path / "remember.pt2", 1)
    first = call(*program.inputs(2, 0))
    kept = [each.cpu() for each in first]
    second = call(*program.inputs(2, 1))
    assert all(torch.equal(a.cpu(), b) for a, b in zip(first, kept, strict=True))
    assert not torch.equal(second[0].cpu(), kept[0])


@pytest.mark.gpu
@needs_card
def test_on_a_card_a_conversation_stays_there_and_is_answered_as_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    right, engine = (Engine(tiny(tmp_path), EngineConfig(batch=4)) for _ in range(2))
    compiling.build(engine, "cuda")
    engine.use(compiling.load(engine, "cuda", 1), "cuda")
    engine.warm_up()
    assert (engine.device.type, engine.info.engine) == ("cuda", "cuda")
    for window in views(engine, 20):
        said, expected = engine.step([window])[0], right.step([window])[0]
        assert said.probabilities == pytest.approx(expected.probabilities, abs=1e-4)
