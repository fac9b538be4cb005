"""Voices under way: the same at every call, and changed as they should be."""

from __future__ import annotations

import numpy as np

from tests.voices import clip
from workers.training.voice_augment import (
    CONDITIONS,
    Augmentation,
    around_speech,
    degraded,
    telephone,
    varied,
)


def test_conditions_are_the_same_at_every_call_and_change_what_they_should() -> None:
    one = clip("03-01-05-02-01-01-07")
    for condition in CONDITIONS:
        heard = degraded(one, condition)
        assert heard.shape == one.pcm.shape
        assert heard.dtype == np.float32
        assert np.array_equal(heard, degraded(one, condition))
    high = np.sin(2 * np.pi * 5_000 * np.arange(16_000) / 16_000).astype(np.float32)
    assert np.abs(telephone(high)).max() < 1e-3


def test_silence_of_the_recorder_is_cut_off() -> None:
    speech = np.random.default_rng(0).normal(0.0, 0.1, 8_000).astype(np.float32)
    silence = np.zeros(16_000, np.float32)
    assert len(around_speech(np.concatenate([silence, speech, silence]), 0.1)) == 8_000 + 2 * 1_600


def test_variation_follows_its_seed_and_stays_in_range() -> None:
    pcm = clip("03-01-05-02-01-01-07").pcm
    hard = Augmentation(untouched=0.0, opus=1.0, reverb=1.0, noise=1.0, clip=1.0)
    one, same, other = (varied(pcm, hard, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(one, same)
    assert not np.array_equal(one[:1_000], other[:1_000])
    assert np.isfinite(one).all()
    assert np.abs(one).max() <= 1.0
