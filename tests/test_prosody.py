"""Prosody: a hum of known pitch, loudness and tempo is measured as what it is, whatever its gain."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from realtime.messages import Pcm
from tests.voices import clips
from workers.prosody import SIZE
from workers.training.voice_prosody import ProsodyPlan, beside_usual, fit_scores
from workers.voice_encoder import ProsodyScores, measure

HEIGHTS, SLOPE, VOICED, SPEECH, LOUDER = slice(0, 5), 7, 10, 22, slice(30, 34)


def buzz(hz: float, seconds: float = 1.0, glide: float = 0.0, loud: float = 0.1) -> Pcm:
    """A pulse train through a falling spectrum; `glide` octaves up until its end."""
    at = np.arange(int(seconds * 16_000)) / 16_000
    phase = 2 * np.pi * np.cumsum(hz * 2.0 ** (glide * at / seconds)) / 16_000
    wave = sum(np.sin(k * phase) / k for k in range(1, 12))
    hiss = np.random.default_rng(0).normal(0.0, 1e-3, len(at))
    return (loud * (wave + hiss)).astype(np.float32)


@pytest.mark.parametrize("hz", [80.0, 120.0, 210.0, 400.0])
def test_pitch_is_found_in_octaves(hz: float) -> None:
    numbers = measure(buzz(hz))
    np.testing.assert_allclose(numbers[HEIGHTS], np.log2(hz), atol=0.03)
    assert numbers[VOICED] > 0.9


def test_a_rising_pitch_has_its_slope() -> None:
    assert measure(buzz(120.0, glide=0.5))[SLOPE] == pytest.approx(0.5, abs=0.05)
    assert measure(buzz(120.0, glide=-0.5))[SLOPE] == pytest.approx(-0.5, abs=0.05)


def test_speech_is_timed_and_pauses_are_not() -> None:
    quiet = np.random.default_rng(2).normal(0.0, 1e-4, 16_000).astype(np.float32)
    once = measure(buzz(150.0))
    pause = measure(np.concatenate([buzz(150.0, 0.5), quiet, buzz(150.0, 0.5)]))
    assert pause[SPEECH] == pytest.approx(once[SPEECH], abs=0.1)
    assert pause[SPEECH + 1] - pause[SPEECH] == pytest.approx(np.log(2.0), abs=0.1)
    assert pause[SPEECH + 2] == pytest.approx(0.5, abs=0.05)


def test_a_swelling_voice_gets_louder_by_quarters() -> None:
    wave = buzz(150.0) * np.geomspace(0.5, 1.0, 16_000).astype(np.float32)
    quarters = measure(wave)[LOUDER]
    assert (np.diff(quarters) > 0.2).all()
    assert quarters[3] - quarters[0] == pytest.approx(2.0 * 0.75 * np.log(2.0), abs=0.1)


@pytest.mark.parametrize("gain", [0.01, 0.3, 3.0])
def test_gain_changes_nothing(gain: float) -> None:
    wave = buzz(150.0)
    np.testing.assert_allclose(measure(wave * np.float32(gain)), measure(wave), atol=0.01)


@pytest.mark.parametrize("samples", [1, 100, 1_000, 16_000])
@pytest.mark.parametrize("kind", ["silence", "noise", "constant"])
def test_anything_gives_finite_numbers(kind: str, samples: int) -> None:
    noise = np.random.default_rng(1).normal(0.0, 0.1, samples).astype(np.float32)
    wave = {"silence": 0.0 * noise, "noise": noise, "constant": 0.0 * noise + np.float32(0.5)}[kind]
    numbers = measure(wave)
    assert numbers.shape == (SIZE,)
    assert np.isfinite(numbers).all()


def test_rows_are_set_beside_what_came_before_of_the_same_actor() -> None:
    rows = np.array([[1.0], [1.0], [1.0], [-3.0]], np.float32)
    beside = beside_usual(rows, np.array([1, 1, 1, 2]), np.random.default_rng(0))
    assert sorted(beside[:3, 0].tolist()) == pytest.approx([1 - 2 / 6, 1 - 1 / 5, 1.0])
    assert beside[3, 0] == -3.0


def test_scores_learn_the_actors_emotions() -> None:
    spoken = clips()
    measured = np.stack([measure(clip.pcm) for clip in spoken])[None]
    scores = ProsodyScores()
    fit_scores(scores, spoken, measured, ProsodyPlan(share=1.0, penalty=0.001), seed=0)
    said = scores(torch.from_numpy(measured[0])).argmax(1).tolist()
    right = np.mean([one == clip.emotion for one, clip in zip(said, spoken, strict=True)])
    assert right > 0.8
    np.testing.assert_allclose(scores.weight.sum(0).numpy(), 0.0, atol=1e-5)
