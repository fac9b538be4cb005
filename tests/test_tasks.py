"""`eval`: every task gives the same fields; a voice is judged as a session hears it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from cmath_stream import training_cli
from cmath_stream.training import tasks
from cmath_stream.training.tasks import TASKS, Asked, figures, judge
from realtime.errors import SettingsError
from tests.encoders import face_weights, voice_weights
from tests.voices import clips, recorded
from workers.training.judged import Judged

FIELDS = {"task", "n", "accuracy", "weighted_f1", "macro_f1", "per_class", "ece", "protocol", "checkpoint"}


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def asked(*paths: Path, checkpoint: Path | None = None, cache: Path) -> Asked:
    return Asked(paths, None if checkpoint is None else str(checkpoint), "words", None, cache)


def test_the_command_line_names_every_task_and_its_default() -> None:
    assert {task.value for task in training_cli.Task} == set(TASKS)
    for name, task in TASKS.items():
        (line,) = (line for line in training_cli.EVAL_HELP.split("\n\n") if line.startswith(f"{name}: "))
        assert task.default in line or "encoder" in line


def test_a_wrong_number_of_paths_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="voice-face takes"):
        judge("voice-face", asked(tmp_path, cache=tmp_path))


def test_a_voice_is_judged_as_a_session_hears_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An encoder that always hears a little more anger than there is: a session learns to forgive it."""
    label = np.tile(np.arange(8), 4)
    logits = np.eye(8)[label]
    logits[:, 4] += 1.5
    odds = np.exp(logits)
    habit = Judged(
        odds / odds.sum(axis=1, keepdims=True), label, tuple("abcdefgh"), "habit-1", "made up",
        key=tuple(map(str, range(32))), group=np.repeat([1, 2], 16),
    )  # fmt: skip
    monkeypatch.setattr("workers.training.voice.judge_voice", lambda folder, weights: habit)
    found = judge("voice", asked(tmp_path, cache=tmp_path))
    assert set(found) >= FIELDS
    assert found["each_clip_by_itself"]["accuracy"] == pytest.approx(1 / 8)
    assert found["accuracy"] > 0.6
    assert "running mean" in found["protocol"]


def test_encoders_are_judged_by_files(tmp_path: Path) -> None:
    folder = recorded(tmp_path, clips())
    found = judge("voice", asked(folder, checkpoint=voice_weights(tmp_path / "w"), cache=tmp_path))
    assert (found["n"], found["checkpoint"]) == (32, "voice-small-2")
    rng = np.random.default_rng(0)
    votes = np.zeros((20, 10), np.uint8)
    votes[np.arange(20), np.arange(20) % 8] = 9
    np.savez(tmp_path / "f.npz", image=rng.integers(0, 255, (20, 48, 48), dtype=np.uint8), votes=votes)
    found = judge("face", asked(tmp_path / "f.npz", checkpoint=face_weights(tmp_path / "w"), cache=tmp_path))
    assert found["n"] == 20 and set(found["plurality"]) >= FIELDS
    json.dumps(found)


def test_figures_are_of_the_probabilities_given() -> None:
    sure = Judged(np.eye(2)[[0, 1, 1]], np.array([0, 1, 0]), ("a", "b"), "c-1", "p")
    found = figures("x", sure)
    assert (found["n"], found["accuracy"]) == (3, pytest.approx(2 / 3, abs=1e-4))
    assert found["per_class"]["a"] == {"f1": pytest.approx(2 / 3, abs=1e-4), "recall": 0.5, "n": 2}
    assert found["ece"] == pytest.approx(1 / 3, abs=1e-4)
    tasks.show(found)
