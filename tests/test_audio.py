from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from realtime.messages import Features, FeaturesMissing, Pcm
from tests.conftest import make_segment, make_transcript
from workers.audio import AudioExtractor, level_dbfs, quality, speech_of


def tone(seconds: float, amplitude: float) -> Pcm:
    at_s = np.arange(int(seconds * 16_000)) / 16_000
    return (amplitude * np.sin(2 * np.pi * 220 * at_s)).astype(np.float32)


@pytest.fixture
def extractor() -> AudioExtractor:
    extractor = AudioExtractor()
    extractor.load()
    extractor.warm_up()
    return extractor


def test_speech_has_statistics(extractor: AudioExtractor) -> None:
    (answer,) = extractor.extract([make_segment(seconds=1.0)])
    assert isinstance(answer, Features)
    assert extractor.spec is not None
    assert answer.extractor == extractor.spec.id
    assert answer.vector.shape == (extractor.spec.dim,)
    assert answer.vector.dtype == np.float32
    assert np.isfinite(answer.vector).all()
    assert 0.0 < answer.quality <= 1.0


@pytest.mark.parametrize(
    ("pcm", "reason"),
    [(tone(0.19, 0.5), "too_short"), (tone(1.0, 0.0), "silent"), (tone(1.0, 0.001), "silent")],
)
def test_why_there_are_none(extractor: AudioExtractor, pcm: Pcm, reason: str) -> None:
    segment = dataclasses.replace(make_segment(), pcm=pcm, end_ms=len(pcm) // 16)
    (answer,) = extractor.extract([segment])
    assert isinstance(answer, FeaturesMissing)
    assert (answer.modality, answer.reason) == ("audio", reason)


def test_words_are_not_its_business(extractor: AudioExtractor) -> None:
    answers = extractor.extract([make_transcript("a"), make_segment("b"), make_transcript("c")])
    assert [answer and answer.utterance_id for answer in answers] == [None, "b", None]


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
