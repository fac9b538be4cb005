from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from realtime.errors import ModelUnavailable, SettingsError
from realtime.messages import Features, FeaturesMissing, Pcm, Segment
from realtime.settings import build
from tests.conftest import make_segment, make_transcript
from tests.encoders import voice_weights
from workers.audio import VoiceExtractor, VoiceExtractorConfig
from workers.extractor import FeatureSpec
from workers.voice_file import load


def hum(seconds: float, amplitude: float = 0.3, seed: int = 0) -> Pcm:
    rng = np.random.default_rng(seed)
    at_s = np.arange(int(seconds * 16_000)) / 16_000
    tone = np.sin(2 * np.pi * rng.uniform(100, 300) * at_s) + 0.1 * rng.standard_normal(len(at_s))
    return (amplitude * tone / 1.5).astype(np.float32)


def segment(pcm: Pcm, utterance_id: str = "u0") -> Segment:
    return dataclasses.replace(make_segment(utterance_id), pcm=pcm, end_ms=len(pcm) // 16)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return voice_weights(tmp_path_factory.mktemp("voice"))


@pytest.fixture(scope="module")
def extractor(weights: Path) -> VoiceExtractor:
    extractor = VoiceExtractor(VoiceExtractorConfig(weights=str(weights), batch=3))
    assert extractor.spec is None
    extractor.load()
    extractor.warm_up()
    return extractor


def test_speech_has_features(extractor: VoiceExtractor) -> None:
    (answer,) = extractor.extract([segment(hum(1.0))])
    assert isinstance(answer, Features)
    assert extractor.spec == FeatureSpec("voice-small", "2", 8)
    assert answer.extractor == extractor.spec.id
    assert (answer.modality, answer.text, answer.faces) == ("audio", None, None)
    assert answer.vector.shape == (8,)
    assert answer.vector.dtype == np.float32
    assert np.isfinite(answer.vector).all()
    assert 0.0 < answer.quality <= 1.0


def test_features_are_what_the_encoder_says(extractor: VoiceExtractor, weights: Path) -> None:
    """Odds of the posterior, which a reader can take back to probabilities."""
    pcm = hum(1.0)
    (answer,) = extractor.extract([segment(pcm)])
    assert isinstance(answer, Features)
    with torch.inference_mode():
        voice = load(weights)[0](torch.from_numpy(pcm)[None], torch.tensor([len(pcm)]))
    posterior = np.exp(answer.vector) / np.exp(answer.vector).sum()
    np.testing.assert_allclose(posterior, voice.logits[0].softmax(0).numpy(), atol=1e-5)
    assert answer.vector.sum() == pytest.approx(0.0, abs=1e-4)


def test_it_takes_the_threads_it_was_given(extractor: VoiceExtractor) -> None:
    assert torch.get_num_threads() == 1


@pytest.mark.parametrize(
    ("pcm", "reason"),
    [
        (hum(0.19), "too_short"),
        (hum(0.0), "no_audio"),
        (0.0 * hum(1.0), "silent"),
        (hum(1.0, 5e-4), "silent"),
    ],
)
def test_why_there_is_none(extractor: VoiceExtractor, pcm: Pcm, reason: str) -> None:
    (answer,) = extractor.extract([segment(pcm)])
    assert isinstance(answer, FeaturesMissing)
    assert (answer.modality, answer.reason) == ("audio", reason)


def test_answers_come_in_the_order_of_the_jobs_whatever_their_lengths(extractor: VoiceExtractor) -> None:
    lengths = [1.4, 0.1, 0.5, 2.2, 0.9, 0.3, 1.1]
    segments = [segment(hum(seconds, seed=i), f"u{i}") for i, seconds in enumerate(lengths)]
    together = extractor.extract([make_transcript("t"), *segments])
    assert together[0] is None
    for job, answer in zip(segments, together[1:], strict=True):
        (single,) = extractor.extract([job])
        assert answer is not None and answer.utterance_id == job.utterance_id
        if isinstance(answer, Features):
            assert isinstance(single, Features)
            np.testing.assert_allclose(answer.vector, single.vector, atol=2e-4)
        else:
            assert answer == single


def test_nothing_to_do(extractor: VoiceExtractor) -> None:
    assert extractor.extract([]) == []


def test_damaged_samples_do_not_spread(extractor: VoiceExtractor) -> None:
    pcm = hum(1.0)
    pcm[100:120] = np.nan
    bad, good = extractor.extract([segment(pcm, "bad"), segment(hum(1.2), "good")])
    assert isinstance(bad, Features) and isinstance(good, Features)
    assert np.isfinite([bad.vector, good.vector]).all()


def test_missing_weights_are_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match="none.safetensors"):
        VoiceExtractor(VoiceExtractorConfig(weights=str(tmp_path / "none.safetensors"))).load()


def test_a_setting_that_makes_no_sense() -> None:
    with pytest.raises(SettingsError, match="at least 1"):
        build(VoiceExtractorConfig, {"batch": 0})
