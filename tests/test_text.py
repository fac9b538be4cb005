from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from realtime.errors import ModelUnavailable
from realtime.messages import Features, FeaturesMissing, Job
from tests.conftest import make_segment, make_transcript
from tests.encoders import sentence_encoder
from workers import text as module
from workers.extractor import FeatureSpec
from workers.text import TextConfig, TextExtractor, primary
from workers.text_encoder import load_encoder
from workers.transcribe import Spoken, Words


@pytest.fixture(scope="module")
def deaf() -> TextExtractor:
    """An extractor that only reads."""
    extractor = TextExtractor(TextConfig(adapter="none", runtime="torch", whisper="none", device="cpu"))
    extractor.load()
    extractor.warm_up()
    return extractor


class Ear:
    """A recogniser that hears what it is told."""

    def __init__(self, words: Words) -> None:
        self.words = words
        self.asked: list[str | None] = []

    def recognise(self, utterances: Sequence[Spoken]) -> list[Words]:
        self.asked += [spoken.language for spoken in utterances]
        return [self.words] * len(utterances)


@pytest.fixture
def ear(deaf: TextExtractor, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ear]:
    ear = Ear(Words("Oh no.", "en", 0.8, True))
    monkeypatch.setattr(deaf, "_transcriber", ear)
    yield ear


def answer(extractor: TextExtractor, job: Job) -> Features | FeaturesMissing | None:
    (result,) = extractor.extract([job])
    return result


def features(extractor: TextExtractor, job: Job) -> Features:
    result = answer(extractor, job)
    assert isinstance(result, Features)
    return result


def reason(extractor: TextExtractor, job: Job) -> str:
    result = answer(extractor, job)
    assert isinstance(result, FeaturesMissing)
    return result.reason


def test_the_packaged_encoder_needs_no_network(deaf: TextExtractor) -> None:
    assert deaf.spec == FeatureSpec("all-MiniLM-L6-v2", "1", 384)
    result = features(deaf, make_segment(text=" What a lovely day! ", language="en-GB"))
    assert (result.extractor, result.quality) == ("all-MiniLM-L6-v2/1", 1.0)
    assert (result.text, result.language) == ("What a lovely day!", "en-GB")
    assert result.vector.dtype == np.float32
    assert result.vector.shape == (384,)
    assert np.linalg.norm(result.vector) == pytest.approx(1.0, abs=1e-5)


def test_it_means_something(deaf: TextExtractor) -> None:
    said = ["I am so happy today!", "This is the best day of my life.", "The invoice is due on Friday."]
    happy, best, invoice = (features(deaf, make_transcript(text=text)).vector for text in said)
    assert happy @ best > happy @ invoice + 0.1


def test_a_batch_is_answered_in_order_and_like_single_jobs(deaf: TextExtractor) -> None:
    jobs: list[Job] = [
        make_segment("a", text="One."),
        make_segment("b", captions_pending=True),
        make_transcript("c", "Three."),
        make_transcript("d"),
        make_segment("e", text="A rather longer sentence than the others, to be padded."),
    ]
    answers = deaf.extract(jobs)
    assert [a and a.utterance_id for a in answers] == ["a", None, "c", "d", "e"]
    for job, result in zip(jobs, answers, strict=True):
        if isinstance(result, Features):
            np.testing.assert_allclose(result.vector, features(deaf, job).vector, atol=1e-5)


def test_why_words_are_missing(deaf: TextExtractor) -> None:
    assert reason(deaf, make_segment()) == "no_transcriber"
    assert reason(deaf, make_transcript()) == "no_caption"
    assert reason(deaf, make_segment(text=" \n")) == "no_words"
    assert answer(deaf, make_segment(captions_pending=True)) is None
    assert not deaf.needs_pcm


def test_words_of_another_language_are_kept_but_not_embedded(deaf: TextExtractor) -> None:
    result = answer(deaf, make_transcript(text="Das ist schade.", language="de-AT"))
    assert isinstance(result, FeaturesMissing)
    assert (result.reason, result.text, result.language) == (
        "unsupported_language",
        "Das ist schade.",
        "de-AT",
    )


def test_speech_is_recognised_where_no_words_are_given(deaf: TextExtractor, ear: Ear) -> None:
    result = features(deaf, make_segment(language="en-US"))
    assert (result.text, result.language, result.quality) == ("Oh no.", "en", 0.8)
    assert ear.asked == ["en"]
    assert deaf.needs_pcm
    several = deaf.extract([make_segment("a"), make_segment("b", text="Given."), make_segment("c")])
    assert [each.text for each in several if isinstance(each, Features)] == ["Oh no.", "Given.", "Oh no."]
    ear.asked = ["en"]
    assert features(deaf, make_segment(text="Given.")).text == "Given."
    assert answer(deaf, make_segment(captions_pending=True)) is None
    assert ear.asked == ["en"]


@pytest.mark.parametrize(
    ("heard", "why", "text"),
    [
        (Words("Thank you. Thank you.", "en", 0.1, False), "low_quality", None),
        (Words("", "en", 0.9, True), "no_words", None),
        (Words("Quel dommage.", "fr", 0.9, True), "unsupported_language", "Quel dommage."),
    ],
)
def test_what_is_heard_may_be_of_no_use(
    deaf: TextExtractor, ear: Ear, heard: Words, why: str, text: str | None
) -> None:
    ear.words = heard
    result = answer(deaf, make_segment())
    assert isinstance(result, FeaturesMissing)
    assert (result.reason, result.text) == (why, text)


def test_without_a_recogniser_it_serves_given_words_and_says_so_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, deaf: TextExtractor
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(module, "open_embedder", lambda config: deaf._encoder)
    extractor = TextExtractor(TextConfig(whisper="large-v3", device="cpu"))
    with caplog.at_level(logging.WARNING, "workers"):
        extractor.load()
    assert len(caplog.records) == 1
    assert "only given words" in caplog.text
    assert not extractor.needs_pcm


def test_a_real_recogniser_goes_through_the_whole_path(
    tiny_whisper: str, monkeypatch: pytest.MonkeyPatch, deaf: TextExtractor
) -> None:
    monkeypatch.setattr(module, "open_embedder", lambda config: deaf._encoder)
    extractor = TextExtractor(TextConfig(whisper=tiny_whisper, device="cpu"))
    extractor.load()
    extractor.warm_up()
    assert extractor.needs_pcm
    assert reason(extractor, make_segment(seconds=1.0)) in {"low_quality", "no_words"}  # it knows nothing


def test_an_encoder_by_folder_has_its_own_name_and_size(tmp_path: Path) -> None:
    folder = tmp_path / "my-encoder"
    sentence_encoder(folder)
    extractor = TextExtractor(TextConfig(encoder=str(folder), runtime="torch", whisper="none", device="cpu"))
    extractor.load()
    assert extractor.spec == FeatureSpec("my-encoder", "1", 32)


def test_an_encoder_that_cannot_be_had_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for name in ("all-mpnet-base-v2", str(tmp_path)):
        with pytest.raises(ModelUnavailable) as caught:
            load_encoder(name, "cpu")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("tag", "subtag"), [("en", "en"), ("pt-BR", "pt"), ("ZH_hant", "zh"), (None, None), ("", None)]
)
def test_primary_subtag(tag: str | None, subtag: str | None) -> None:
    assert primary(tag) == subtag
