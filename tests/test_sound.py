"""What of an utterance is speech, how loud it is, how far it can be trusted."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from realtime.messages import Pcm
from tests.conftest import make_segment
from workers.sound import level_dbfs, padded, quality, speech_of, trimmed


def tone(seconds: float, amplitude: float) -> Pcm:
    at_s = np.arange(int(seconds * 16_000)) / 16_000
    return (amplitude * np.sin(2 * np.pi * 220 * at_s)).astype(np.float32)


def test_the_pre_roll_is_left_out() -> None:
    pcm = np.arange(16_000, dtype=np.float32)
    segment = dataclasses.replace(make_segment(), pcm=pcm, pcm_start_ms=700, start_ms=1000, end_ms=1500)
    assert speech_of(segment).tolist() == list(range(4800, 12_800))


def test_the_pre_roll_may_lack_and_the_end_may_be_lost() -> None:
    pcm = np.arange(1600, dtype=np.float32)
    segment = dataclasses.replace(make_segment(), pcm=pcm, pcm_start_ms=1000, start_ms=950, end_ms=9000)
    assert speech_of(segment).tolist() == list(range(1600))


def test_level_of_a_full_scale_sine() -> None:
    assert level_dbfs(tone(1.0, 1.0)) == pytest.approx(-3.01, abs=0.01)


def test_quality_falls_with_level_length_and_clipping() -> None:
    good = quality(tone(2.0, 0.5))
    assert good == 1.0
    assert quality(tone(2.0, 0.005)) < good
    assert quality(tone(0.5, 0.5)) == pytest.approx(0.5)
    assert quality(np.clip(tone(2.0, 4.0), -1.0, 1.0)) < 0.1


def test_silence_around_speech_is_trimmed_and_pauses_stay() -> None:
    silence, speech = np.zeros(1600, np.float32), tone(0.5, 0.5)
    around = np.concatenate([silence, speech, silence, speech, silence])
    assert len(trimmed(around)) == 2 * len(speech) + len(silence)
    assert trimmed(tone(0.005, 0.5)).tolist() == tone(0.005, 0.5).tolist()  # less than a block: as it is


def test_padding_adds_zeros_after_the_end() -> None:
    wave = padded([np.ones(2, np.float32), np.ones(3, np.float32)])
    assert wave.tolist() == [[1, 1, 0], [1, 1, 1]]
    assert wave.dtype == np.float32
