"""Acted clips become sessions: joined by key, an actor a session, the future unseen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cmath_stream.checkpoint import load
from cmath_stream.training.acted import Acted, joined, sessions, train_acted
from cmath_stream.training.data import DataError
from cmath_stream.training.recipe import ActedData, Recipe, Schedule

COUNT = 24
KEYS = tuple(f"03-01-0{n % 8 + 1}-01-01-01-0{n // 8 + 1}" for n in range(COUNT))
EMOTION = np.arange(COUNT) % 8
ACTOR = np.arange(COUNT) // 8 + 1
VOICE = (4.0 * np.eye(8)[EMOTION]).astype(np.float32)


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """Action units of all clips but the first, in another order."""
    rng = np.random.default_rng(0)
    order = rng.permutation(np.arange(1, COUNT))
    path = tmp_path / "units.npz"
    film = np.array([f"01{key[2:]}" for key in KEYS])  # the same takes, as film
    np.savez(path, key=film[order], visual=np.eye(8)[EMOTION[order]] + 10.0 * ACTOR[order, None])
    return path


def read(units: Path) -> Acted:
    return joined(KEYS, VOICE, EMOTION, ACTOR, units)


def test_clips_are_joined_by_key_and_those_without_units_left_out(units: Path) -> None:
    acted = read(units)
    assert acted.key == KEYS[1:]
    np.testing.assert_array_equal(acted.face - 10.0 * acted.actor[:, None], np.eye(8)[acted.emotion])
    with pytest.raises(DataError, match="no clip"):
        joined(("an-other",), VOICE[:1], EMOTION[:1], ACTOR[:1], units)
    with pytest.raises(DataError, match="no action units"):
        joined(KEYS, VOICE, EMOTION, ACTOR, units.with_name("none.npz"))


def test_a_session_is_an_actor_and_later_clips_are_not_in_earlier_ones(units: Path) -> None:
    acted = read(units)
    everybody = acted.everybody()
    whole = sessions(acted, everybody)
    assert [len(each.label) for each in whole] == [7, 8, 8]
    assert [each.features[1].shape[1] for each in whole] == [16, 16, 16]
    last = {name for name, actor in zip(acted.key, acted.actor, strict=True) if actor == 2}
    shorter = sessions(acted.only(np.array([key not in last for key in acted.key])), everybody)
    np.testing.assert_array_equal(shorter[1].features[1], whole[2].features[1])
    apart = whole[2].features[1][:, 8:]
    assert np.abs(apart[-1]).max() < np.abs(apart[0]).max()  # the actor is known by then


@pytest.mark.slow
def test_training_reads_what_the_voice_encoder_left(units: Path, tmp_path: Path) -> None:
    recipe = Recipe(
        name="tiny",
        kind="acted",
        model={"width": 16, "heads": 2, "kernel": 1, "convolutions": 1},
        schedule=Schedule(epochs=1, batch=2),
        acted=ActedData(units=units.name, validation_actors=(2, 3)),
    )
    with pytest.raises(DataError, match="train the voice first"):
        train_acted(recipe, tmp_path, tmp_path, progress=False)
    np.savez(
        tmp_path / "voice-out-of-fold.npz",
        key=np.array(KEYS), features=VOICE[None], emotion=EMOTION, actor=ACTOR,
    )  # fmt: skip
    meta = load(train_acted(recipe, tmp_path, tmp_path, progress=False)).meta
    assert [(spec.modality, spec.inputs) for spec in meta.modalities] == [("audio", 16), ("visual", 16)]
    everybody = load(tmp_path / "tiny").everybody()
    first = read(units).only(ACTOR[1:] == 1).everybody()
    np.testing.assert_allclose(everybody["visual"], first["visual"], rtol=1e-5)
