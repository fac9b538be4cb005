from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from realtime.errors import ModelUnavailable
from realtime.messages import Pcm
from workers import transcribe
from workers.transcribe import Spoken, TranscribeConfig, Transcriber, Words, find_model


def speech(seconds: float) -> Pcm:
    return np.random.default_rng(0).normal(0.0, 0.1, int(seconds * 16_000)).astype(np.float32)


def hear(transcriber: Transcriber, seconds: float, language: str | None = "en") -> Words:
    (words,) = transcriber.recognise([Spoken(speech(seconds), language)])
    return words


@pytest.fixture(scope="module")
def trusting(tiny_whisper: str) -> Transcriber:
    """A recogniser whose gates let everything pass."""
    config = TranscribeConfig(tiny_whisper, "cpu", min_logprob=-1e9, max_no_speech=1.0, max_compression=1e9)
    transcriber = Transcriber(config)
    transcriber.load()
    transcriber.warm_up()
    return transcriber


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Frames of each window that was decoded."""
    seen: list[int] = []
    decode = Transcriber._decode

    def watched(self: Transcriber, mels: Pcm, languages: Sequence[str | None]) -> list[Words]:
        seen.extend([mels.shape[2]] * len(mels))
        return decode(self, mels, languages)

    monkeypatch.setattr(Transcriber, "_decode", watched)
    yield seen


def test_an_utterance_is_decoded_once_from_a_window_of_its_length(
    trusting: Transcriber, windows: list[int]
) -> None:
    words = hear(trusting, 2.0)
    assert words.language == "en"
    assert 0.0 <= words.quality <= 1.0
    assert words.reliable
    assert windows == [300]  # 2 s and the silence after it, in whole seconds


@pytest.mark.parametrize("language", [None, "tlh"])
def test_a_language_that_is_not_given_or_not_known_is_detected(
    trusting: Transcriber, language: str | None
) -> None:
    spoken = hear(trusting, 1.0, language).language
    assert spoken in trusting._model.supported_languages


def test_the_same_speech_gives_the_same_words(trusting: Transcriber) -> None:
    assert hear(trusting, 1.0) == hear(trusting, 1.0)


def test_utterances_of_one_length_share_a_pass_and_say_what_they_say_alone(
    trusting: Transcriber, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = (1.2, 3.0, 1.3, 0.9, 3.1, 2.0)
    spoken = [Spoken(speech(each), "en") for each in seconds]
    alone = [trusting.recognise([each])[0] for each in spoken]
    passes: list[int] = []
    decode = Transcriber._decode

    def counted(self: Transcriber, mels: Pcm, languages: Sequence[str | None]) -> list[Words]:
        passes.append(len(mels))
        return decode(self, mels, languages)

    monkeypatch.setattr(Transcriber, "_decode", counted)
    together = trusting.recognise(spoken)
    assert sorted(passes) == [1, 2, 3]  # windows of 3, of 4 and of 2 seconds
    for one, other in zip(together, alone, strict=True):
        assert (one.text, one.language, one.reliable) == (other.text, other.language, other.reliable)
        assert one.quality == pytest.approx(other.quality, rel=1e-3)


def test_nobody_spoke(trusting: Transcriber) -> None:
    assert trusting.recognise([]) == []


@pytest.mark.parametrize("seconds", [0.01, 29.9, 40.0])
def test_any_length_is_taken(trusting: Transcriber, windows: list[int], seconds: float) -> None:
    hear(trusting, seconds)
    assert max(windows) <= transcribe.WINDOW_FRAMES


def test_doubtful_words_get_the_full_window_and_then_no_trust(tiny_whisper: str, windows: list[int]) -> None:
    strict = Transcriber(TranscribeConfig(model=tiny_whisper, device="cpu", min_logprob=0.0))
    strict.load()
    words = hear(strict, 1.0)
    assert not words.reliable
    assert windows == [200, transcribe.WINDOW_FRAMES]


@pytest.mark.parametrize(
    ("text", "logprob", "no_speech", "reliable"),
    [
        ("I did not expect that.", -0.3, 0.05, True),
        ("I did not expect that.", -1.2, 0.05, False),  # guessed
        ("Thank you. " * 30, -0.1, 0.05, False),  # a loop
        ("Thank you.", -0.7, 0.9, False),  # words on noise
        ("Yes.", -0.2, 0.9, True),  # sure of its words in spite of the noise
        ("", -0.2, 0.1, True),
    ],
)
def test_the_gates(text: str, logprob: float, no_speech: float, reliable: bool) -> None:
    words = Transcriber(TranscribeConfig())._judge(text, "en", logprob, no_speech)
    assert words.reliable is reliable
    assert 0.0 <= words.quality <= 1.0


def test_quality_falls_with_doubt() -> None:
    judge = Transcriber(TranscribeConfig())._judge
    qualities = [judge("a b c", "en", *scores).quality for scores in ((-0.1, 0.0), (-0.5, 0.0), (-0.5, 0.5))]
    assert qualities == sorted(qualities, reverse=True)


def test_a_folder_without_a_model_is_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable) as caught:
        Transcriber(TranscribeConfig(model=str(tmp_path))).load()
    assert "\n" not in str(caught.value)


def test_without_weights_and_hub_it_fails_fast_and_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    began_s = time.monotonic()
    with pytest.raises(ModelUnavailable, match="captions") as caught:
        find_model("base")
    assert time.monotonic() - began_s < transcribe.HUB_TIMEOUT_S + 5
    assert "\n" not in str(caught.value)


def test_a_size_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ModelUnavailable, match="Invalid model size"):
        find_model("enormous")
