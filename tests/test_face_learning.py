"""The face encoder learns, repeats itself, goes on where it was cut off; and is judged by both protocols."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from realtime.errors import SettingsError
from tests.faces import votes
from workers.face_encoder import FaceNetConfig
from workers.training.face_augment import Augmentation
from workers.training.face_learning import Recipe, one_cycle, train


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Tiny tensors: threads cost more than they bring, and sums keep their order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_the_schedule_rises_then_falls() -> None:
    rates = [one_cycle(done, 0.2) for done in np.linspace(0, 1, 11)]
    assert rates[2] == 1.0 == max(rates)
    assert rates == [*sorted(rates[:3]), *sorted(rates[3:], reverse=True)]
    assert rates[-1] < 1e-6


QUICK = Recipe(
    name="quick",
    epochs=4,
    crops_px=(44,),
    grows_at=(),
    batch=16,
    learning_rate=0.05,
    ema=0.5,
    half=False,
    network=FaceNetConfig(stem=8, widths=(8, 16), depths=(1, 1), squeeze=4, dim=12),
    augmentation=Augmentation(0, 0, 0, 0, 0, 0, 0, 0, 0),
)


def test_it_learns_a_batch_by_heart(tmp_path: Path) -> None:
    told = train(replace(QUICK, epochs=24), votes(), votes(), tmp_path, progress=False)
    assert told.training["validation"]["accuracy"] == 1.0
    assert told.training["pictures"] == 32


def test_a_resumed_run_repeats_the_uninterrupted_one(tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train(QUICK, votes(), votes(), whole, progress=False)
    early = train(replace(QUICK, until=3), votes(), votes(), cut, progress=False)
    assert early.training["epochs_done"] == 3
    train(QUICK, votes(), votes(), cut, progress=False)
    assert (cut / "face.safetensors").read_bytes() == (whole / "face.safetensors").read_bytes()
    with pytest.raises(SettingsError, match="another recipe"):
        train(Recipe(), votes(), votes(), cut, progress=False)


def test_a_run_that_begins_anew_forgets_the_last_one(tmp_path: Path) -> None:
    short = replace(QUICK, until=1)
    train(short, votes(), votes(), tmp_path, progress=False)
    again = train(short, votes(), votes(), tmp_path, resume=False, progress=False)
    assert again.training["epochs_done"] == 1
    other = replace(short, seed=7)
    assert train(other, votes(), votes(), tmp_path, resume=False, progress=False).name == "quick"
