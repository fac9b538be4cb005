from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from realtime.errors import ModelUnavailable
from realtime.messages import Features
from tests.conftest import make_transcript
from workers import text_adapter
from workers.extractor import FeatureSpec
from workers.text import TextConfig, TextExtractor
from workers.text_encoder import DEFAULT_ENCODER, TorchEmbedder, load_encoder

LINES = ["Oh my God!", "I can't believe you did that.", "It is Tuesday.", "Yay! We won, we really won!"]


@pytest.fixture(scope="module")
def plain() -> TextExtractor:
    extractor = TextExtractor(TextConfig(adapter="none", runtime="torch", whisper="none", device="cpu"))
    extractor.load()
    return extractor


@pytest.fixture(scope="module")
def adapted() -> TextExtractor:
    extractor = TextExtractor(TextConfig(runtime="torch", whisper="none", device="cpu"))
    extractor.load()
    return extractor


def vectors(extractor: TextExtractor, texts: list[str]) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    rows = []
    for result in extractor.extract([make_transcript(text=text) for text in texts]):
        assert isinstance(result, Features)
        rows.append(result.vector)
    return np.stack(rows)


def test_it_changes_the_embedding_and_says_so(plain: TextExtractor, adapted: TextExtractor) -> None:
    assert adapted.spec == FeatureSpec("all-MiniLM-L6-v2+emotion", "2", 384)
    before, after = vectors(plain, LINES), vectors(adapted, LINES)
    np.testing.assert_allclose(np.linalg.norm(after, axis=1), 1.0, atol=1e-5)
    assert ((before * after).sum(axis=1) < 0.95).all()


def test_it_hears_emotion_rather_than_topic(plain: TextExtractor, adapted: TextExtractor) -> None:
    said = ["I am so happy about this house!", "This is wonderful, thank you!", "I hate this house, damn it!"]

    def nearer_by_emotion(extractor: TextExtractor) -> float:
        happy, thanks, angry = vectors(extractor, said)
        return float(happy @ thanks - happy @ angry)

    assert nearer_by_emotion(adapted) > max(0.0, nearer_by_emotion(plain))


def test_it_is_deterministic_and_a_batch_is_like_single_sentences(adapted: TextExtractor) -> None:
    together = vectors(adapted, LINES)
    np.testing.assert_array_equal(together, vectors(adapted, LINES))
    for text, row in zip(LINES, together, strict=True):
        np.testing.assert_allclose(vectors(adapted, [text])[0], row, atol=1e-5)


def test_the_shipped_adapter_is_small_and_carries_its_licence() -> None:
    meta, factors = text_adapter.read(text_adapter.shipped())
    assert text_adapter.shipped().stat().st_size <= 7_500_000
    assert meta.licence and meta.data_sources
    assert {factor.dtype for factor in factors.values()} == {np.dtype(np.float16)}


def _damage_weights(stem: Path) -> None:
    weights = stem.with_suffix(".safetensors")
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x00\x01")


def _damage_card(stem: Path) -> None:
    stem.with_suffix(".json").write_bytes(b"\xff{")


def _other_format(stem: Path) -> None:
    card = stem.with_suffix(".json")
    card.write_text(json.dumps(json.loads(card.read_text()) | {"format": "elsewhere/1"}))


def _other_encoder(stem: Path) -> None:
    card = stem.with_suffix(".json")
    card.write_text(json.dumps(json.loads(card.read_text()) | {"base_sha256": "0" * 64}))


def _unknown_field(stem: Path) -> None:
    card = stem.with_suffix(".json")
    card.write_text(json.dumps(json.loads(card.read_text()) | {"surprise": 1}))


def _gone(stem: Path) -> None:
    stem.with_suffix(".json").unlink()


@pytest.mark.parametrize(
    ("harm", "why"),
    [
        (_damage_weights, "damaged"),
        (_damage_card, "no JSON"),
        (_other_format, "not of format"),
        (_other_encoder, "not for this encoder"),
        (_unknown_field, "not a usable adapter"),
        (_gone, "No such file"),
    ],
)
def test_what_is_no_adapter_is_refused_in_one_line_and_changes_nothing(
    harm: Callable[[Path], None], why: str, plain: TextExtractor, tmp_path: Path
) -> None:
    stem = tmp_path / "text"
    for suffix in (".safetensors", ".json"):
        shutil.copy(text_adapter.shipped().with_suffix(suffix), stem.with_suffix(suffix))
    harm(stem)
    assert isinstance(plain._encoder, TorchEmbedder)
    before, model = vectors(plain, LINES), plain._encoder.model
    with pytest.raises(ModelUnavailable, match=why) as caught:
        text_adapter.apply(model, stem.with_suffix(".safetensors"))
    assert "\n" not in str(caught.value)
    np.testing.assert_array_equal(vectors(plain, LINES), before)


def test_factors_that_do_not_fit_are_refused_before_anything_changes(tmp_path: Path) -> None:
    encoder = load_encoder(DEFAULT_ENCODER, "cpu")
    meta, factors = text_adapter.read(text_adapter.shipped())
    weights = {name: value.clone() for name, value in encoder.state_dict().items()}
    name = max(key for key in factors if key.endswith(".up"))
    elsewhere = {"elsewhere.up": np.ones((4, 2)), "elsewhere.down": np.ones((2, 4))}
    for wrong in ({name: factors[name][:5]}, elsewhere):
        text_adapter.save(tmp_path / "wrong", factors | wrong, meta)
        with pytest.raises(ModelUnavailable, match="not a usable adapter"):
            text_adapter.apply(encoder, tmp_path / "wrong")
    assert all(torch.equal(value, weights[name]) for name, value in encoder.state_dict().items())
