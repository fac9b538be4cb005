"""The engine gives the model's own answer, whatever the batch, and says what it does not know."""

from __future__ import annotations

from pathlib import Path

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


def test_warm_up_runs_every_batch_size(checkpoint: Checkpoint) -> None:
    Engine(checkpoint, EngineConfig(batch=5)).warm_up()
