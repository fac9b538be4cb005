"""The engine gives the model's own answer, whatever the batch, and says what it does not know."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cmath_stream.checkpoint import Checkpoint
from cmath_stream.engine import Engine
from cmath_stream.prediction import EngineConfig
from cmath_stream.window import Row, Window
from realtime.messages import Features
from tests.checkpoints import tiny


@pytest.fixture
def checkpoint(tmp_path: Path) -> Checkpoint:
    return tiny(tmp_path)


def dialogue(turns: int, seed: int = 0) -> list[tuple[str, str, dict[str, np.ndarray]]]:
    """(utterance, participant, vectors); some modalities missing."""
    rng = np.random.default_rng(seed)
    out = []
    for n in range(turns):
        vectors = {
            "text": rng.standard_normal(6).astype(np.float32),
            "audio": rng.standard_normal(5).astype(np.float32),
        }
        if n % 3 == 1:
            del vectors["audio" if n % 2 else "text"]
        out.append((f"u{n}", "ab"[n % 2], vectors))
    return out


def views(engine: Engine, turns: int, seed: int = 0) -> list[tuple[Row, ...]]:
    window = Window(engine.rows)
    return [window.put(*turn) for turn in dialogue(turns, seed)]


def test_a_rolling_window_equals_the_whole_dialogue(checkpoint: Checkpoint) -> None:
    engine = Engine(checkpoint, EngineConfig())
    turns = dialogue(20)
    rolled = engine.step(views(engine, 20))
    features = tuple(
        torch.stack([torch.from_numpy(v.get(m, np.full(d, np.nan, np.float32))) for _, _, v in turns])[None]
        for m, d in (("text", 6), ("audio", 5))
    )
    presence = torch.tensor([[["text" in v, "audio" in v] for _, _, v in turns]])
    speaker = torch.tensor([[n % 2 for n in range(20)]])
    with torch.inference_mode():
        logits = checkpoint.model(features, presence, torch.ones(1, 20, dtype=torch.bool), speaker)[0].numpy()
    whole = checkpoint.probabilities(logits, presence[0].numpy())
    for step, expected in zip(rolled, whole, strict=True):
        assert np.allclose(step.probabilities, expected, atol=1e-5)


def test_batch_size_and_order_do_not_change_an_answer(checkpoint: Checkpoint) -> None:
    engine = Engine(checkpoint, EngineConfig(batch=4))
    seen = views(engine, 11)
    together = engine.step(seen)
    alone = [engine.step([view])[0] for view in seen]
    backwards = engine.step(seen[::-1])[::-1]
    for a, b, c in zip(together, alone, backwards, strict=True):
        assert np.allclose(a.probabilities, b.probabilities, atol=1e-5)
        assert np.allclose(a.probabilities, c.probabilities, atol=1e-5)


def test_probabilities_sum_to_one_and_only_present_modalities_speak(checkpoint: Checkpoint) -> None:
    engine = Engine(checkpoint, EngineConfig())
    for view, said in zip(views(engine, 9), engine.step(views(engine, 9)), strict=True):
        assert sum(said.probabilities) == pytest.approx(1.0, abs=1e-9)
        assert set(said.alone) == set(view[-1].vectors)
        assert all(sum(p) == pytest.approx(1.0, abs=1e-9) for p in said.alone.values())


def test_it_abstains_below_its_threshold(checkpoint: Checkpoint) -> None:
    sure = Engine(checkpoint, EngineConfig(abstain_below=0.0))
    shy = Engine(checkpoint, EngineConfig(abstain_below=1.1))
    assert not any(p.abstained for p in sure.step(views(sure, 3)))
    assert all(p.abstained for p in shy.step(views(shy, 3)))


def test_foreign_features_are_refused_by_name(checkpoint: Checkpoint) -> None:
    engine = Engine(checkpoint, EngineConfig())

    def features(extractor: str, dim: int) -> Features:
        return Features("s", "u", "text", extractor, np.zeros(dim, np.float32), 1.0, 0)

    assert engine.refuses(features("words/1", 6)) is None
    for wrong in (features("words/2", 6), features("other/1", 6), features("words/1", 7)):
        assert wrong.extractor in (engine.refuses(wrong) or "")


def test_warm_up_takes_the_true_path(checkpoint: Checkpoint) -> None:
    Engine(checkpoint, EngineConfig(batch=5)).warm_up()


class Counted:
    """Rows that an engine compresses."""

    def __init__(self, engine: Engine) -> None:
        self.rows = 0
        self._remember = engine._calls["remember"]
        engine.use({**engine._calls, "remember": self}, "eager")

    def __call__(self, *inputs: Any) -> Any:
        self.rows += len(inputs[1])
        return self._remember(*inputs)


def same(engine: Engine, afresh: Engine, view: tuple[Row, ...]) -> None:
    (said,), (expected,) = engine.step([view]), afresh.step([view])
    assert said.probabilities == pytest.approx(expected.probabilities, abs=1e-5)


def test_every_utterance_is_compressed_once(checkpoint: Checkpoint) -> None:
    engine = Engine(checkpoint, EngineConfig())
    counted = Counted(engine)
    for view in views(engine, 40):  # far past the window
        engine.step([view])
    assert counted.rows == 40


@pytest.mark.parametrize("remembered", [0, 8, 2048])
def test_memory_of_any_size_gives_the_answers_of_the_full_window(
    checkpoint: Checkpoint, remembered: int
) -> None:
    """Two sessions in turn, so that a small memory is always full of the other's rows."""
    engine = Engine(checkpoint, EngineConfig(batch=2, remembered=remembered))
    full = Engine(checkpoint, EngineConfig(remembered=0))
    assert engine.rows > engine.window
    for one, other in zip(views(engine, 30, 1), views(engine, 30, 2), strict=True):
        for said, expected in zip(engine.step([one, other]), full.step([one, other]), strict=True):
            assert said.probabilities == pytest.approx(expected.probabilities, abs=1e-5)
            for modality, alone in said.alone.items():
                assert alone == pytest.approx(expected.alone[modality], abs=1e-5)


def test_a_revised_row_and_those_that_look_at_it_are_computed_anew(checkpoint: Checkpoint) -> None:
    engine, full = Engine(checkpoint, EngineConfig()), Engine(checkpoint, EngineConfig(remembered=0))
    window, turns = Window(engine.rows), dialogue(12)
    for turn in turns[:10]:
        engine.step([window.put(*turn)])
    counted = Counted(engine)
    changed = {"text": np.full(6, 2.0, np.float32)}
    same(engine, full, window.put("u7", "b", changed, revision=1))
    counted.rows = 0
    same(engine, full, window.put(*turns[10]))
    assert counted.rows == 3  # u8 and u9, whose convolutions look at u7, and the new one
    same(engine, full, window.put(*turns[11]))
    assert counted.rows == 4


def test_a_late_utterance_between_others_is_exact(checkpoint: Checkpoint) -> None:
    engine, full = Engine(checkpoint, EngineConfig()), Engine(checkpoint, EngineConfig(remembered=0))
    window = Window(engine.rows)
    view = [window.put(*turn) for turn in dialogue(9)][-1]
    engine.step([view])
    late = Row("late", 1, {"audio": np.ones(5, np.float32)})
    same(engine, full, (*view[:4], late, *view[4:]))


def test_recovery_computes_the_window_and_its_halo_once(checkpoint: Checkpoint) -> None:
    """After a crash the rows are other objects with the same content."""
    engine = Engine(checkpoint, EngineConfig())
    before = [engine.step([view])[0] for view in views(engine, 30)][-1]
    again = Engine(checkpoint, EngineConfig())
    counted = Counted(again)
    (after,) = again.step([views(again, 30)[-1]])
    assert after.probabilities == pytest.approx(before.probabilities, abs=1e-5)
    assert counted.rows == again.window


def test_memory_is_bounded_whatever_comes(checkpoint: Checkpoint) -> None:
    engine = Engine(checkpoint, EngineConfig(batch=1, remembered=20))
    for seed in range(10):
        for view in views(engine, 12, seed):
            engine.step([view])
    assert engine._pages is not None
    assert len(engine._pages) == engine._memory[0].shape[0] == max(20, engine.window)
