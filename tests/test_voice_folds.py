"""Cross-validation: actors apart, finished folds kept, figures that can be checked by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.voices import RECIPE, clip, clips
from workers.prosody import SIZE
from workers.training.voice_augment import CONDITIONS
from workers.training.voice_folds import (
    OutOfFold,
    cross_validate,
    figures,
    fold_of,
    save_out_of_fold,
)
from workers.training.voice_learning import Bank, fill_bank, heard_as
from workers.voice_encoder import FEATURES

NOTHING = Bank((), np.zeros((1, 0, SIZE), np.float32))


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def test_cross_validation_keeps_actors_apart_and_finished_folds(tmp_path: Path) -> None:
    everyone = clips()
    bank = fill_bank(everyone, RECIPE, progress=False)
    heard = {condition: heard_as(everyone, RECIPE, condition) for condition in CONDITIONS}
    run = cross_validate(RECIPE, everyone, bank, heard, folds=2, keep=tmp_path, progress=False)
    assert {clip.actor: int(fold) for clip, fold in zip(everyone, run.fold, strict=True)} == {
        1: 0,
        2: 0,
        3: 1,
        4: 1,
    }
    assert all(rows.shape == (32, FEATURES) and rows.any(axis=1).all() for rows in run.features.values())
    kept = cross_validate(RECIPE, everyone, NOTHING, heard, folds=2, keep=tmp_path, progress=False)
    assert all(np.array_equal(kept.features[name], rows) for name, rows in run.features.items())
    found = figures(everyone, [run, kept])
    assert (found["clips"], found["actors"], found["folds"], found["seeds"]) == (32, 4, 2, 2)
    assert set(found["accuracy"]) == set(CONDITIONS)
    with pytest.raises(IndexError):  # begins anew, and the bank is empty
        cross_validate(RECIPE, everyone, NOTHING, heard, folds=2, keep=tmp_path, resume=False, progress=False)
    json.dumps(found)


def test_every_fold_has_as_many_women_as_men() -> None:
    for number in range(5):
        actors = [actor for actor in range(1, 21) if fold_of(actor, 5) == number]
        assert len(actors) == 4
        assert sum(actor % 2 for actor in actors) == 2


def answers(said: list[int], certain: float = 5.0) -> OutOfFold:
    rows = np.zeros((len(said), FEATURES), np.float32)
    rows[np.arange(len(said)), said] = certain
    return OutOfFold({"clean": rows}, np.zeros(len(said), np.int64))


def test_figures_by_hand() -> None:
    spoken = [
        clip(f"03-01-0{emotion}-01-01-01-0{actor}", 0.01) for actor in (1, 2) for emotion in range(1, 9)
    ]
    found = figures(spoken, [answers([*range(8), 0, 1, 2, 3, 0, 5, 6, 0])])
    assert found["accuracy"] == {"clean": 87.5}
    assert (found["men"], found["women"]) == ({"clean": 100.0}, {"clean": 75.0})
    assert (found["recall"]["calm"], found["recall"]["angry"]) == (100.0, 50.0)
    assert found["worst_and_best_actor"] == [75.0, 100.0]
    assert found["confusion"]["angry"]["neutral"] == 1.0


def test_what_is_saved_is_what_a_fusion_reads(tmp_path: Path) -> None:
    spoken = [clip("03-01-01-01-01-01-01", 0.01), clip("03-01-05-01-01-01-02", 0.01)]
    save_out_of_fold(tmp_path / "o.npz", spoken, answers([0, 4]))
    with np.load(tmp_path / "o.npz") as found:
        assert found["key"].tolist() == [each.key for each in spoken]
        assert (found["actor"].tolist(), found["emotion"].tolist()) == ([1, 2], [0, 4])
        assert found["features"].shape == (1, 2, FEATURES)
