"""Dialogues are read as written, padded without a trace, cached once, grafted as promised."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from cmath_stream.training.data import (
    MELD7,
    UNLABELLED,
    DataError,
    Dialogue,
    FeatureCache,
    Floats,
    Line,
    collate,
    label_index,
    read_dialogues,
    speakers_by_appearance,
    synthetic,
)


def write(path: Path, *dialogues: object) -> Path:
    path.write_text("\n".join(json.dumps(dialogue) for dialogue in dialogues), encoding="utf-8")
    return path


def row(speaker: str, text: str, emotion: str) -> dict[str, str]:
    return {"speaker": speaker, "text": text, "emotion": emotion}


def test_three_corpora_are_read_in_one_label_set(tmp_path: Path) -> None:
    path = write(
        tmp_path / "some.jsonl",
        {"dialogue": "a", "utterances": [row("Jo", "Oh my God, he’s lost it.", "sadness")]},
        {"dialogue": "b", "utterances": [row("['Jo']", "Yes!", "Joyful"), row("['Al']", "No.", "Peaceful")]},
    )
    first, second = read_dialogues(path)
    assert first == Dialogue("a", (Line("Jo", "Oh my God, he’s lost it.", MELD7.index("sadness")),))
    assert [line.label for line in second.lines] == [MELD7.index("joy"), UNLABELLED]
    assert MELD7 == ("neutral", "surprise", "fear", "sadness", "joy", "disgust", "anger")
    assert [MELD7[label_index(word)] for word in ("Scared", "Mad", "Neutral")] == ["fear", "anger", "neutral"]


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[1, 2]",
        '{"dialogue": "x"}',
        '{"dialogue": "x", "utterances": []}',
        '{"dialogue": "x", "utterances": [{"speaker": "a"}]}',
    ],
)
def test_what_is_no_dialogue_is_refused_with_its_place(tmp_path: Path, line: str) -> None:
    path = write(tmp_path / "some.jsonl", {"dialogue": "a", "utterances": [row("Jo", "Hi", "joy")]})
    path.write_text(path.read_text() + "\n" + line)
    with pytest.raises(DataError, match=r"some\.jsonl:2: "):
        read_dialogues(path)
    with pytest.raises(DataError, match="cannot be read"):
        read_dialogues(tmp_path / "none.jsonl")


def test_an_unknown_emotion_is_named_with_its_place(tmp_path: Path) -> None:
    path = write(tmp_path / "some.jsonl", {"dialogue": "a", "utterances": [row("Jo", "Hi", "hangry")]})
    with pytest.raises(DataError, match=r"some\.jsonl: dialogue 'a', utterance 0: unknown emotion 'hangry'"):
        read_dialogues(path)


def test_speakers_are_numbered_as_they_appear() -> None:
    assert speakers_by_appearance(["Z", "A", "Z", "M", "A"]).tolist() == [0, 1, 0, 2, 1]


def test_padding_is_marked_in_every_way() -> None:
    examples = synthetic(5, [4, 3])
    batch = collate(examples)
    longest = max(len(example.label) for example in examples)
    assert batch.features[0].shape == (5, longest, 4)
    for b, example in enumerate(examples):
        n = len(example.label)
        assert batch.mask[b].tolist() == [True] * n + [False] * (longest - n)
        np.testing.assert_array_equal(batch.features[1][b, :n], example.features[1])
        assert not batch.presence[b, n:].any()
        assert (batch.label[b, n:] == UNLABELLED).all()


def test_the_synthetic_generator_is_seeded_and_learnable() -> None:
    once, again, other = synthetic(4, [6]), synthetic(4, [6]), synthetic(4, [6], seed=1)
    assert all(np.array_equal(a.features[0], b.features[0]) for a, b in zip(once, again, strict=True))
    assert not np.array_equal(once[0].features[0][:3], other[0].features[0][:3])
    rows = np.concatenate([example.features[0] for example in synthetic(200, [6])])
    label = np.concatenate([example.label for example in synthetic(200, [6])])
    means = np.stack([rows[label == c].mean(axis=0) for c in range(7)])
    nearest = np.square(rows[:, None] - means).sum(axis=2).argmin(axis=1)
    assert (nearest == label).mean() > 0.6


class Encoder:
    """Counts what it is asked to compute."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, inputs: list[str]) -> Floats:
        self.asked += inputs
        return np.array([[len(text), 1.0] for text in inputs], dtype=np.float32)


def test_the_cache_computes_each_input_once_and_outlives_the_process(tmp_path: Path) -> None:
    encoder = Encoder()
    cache = FeatureCache(tmp_path / "deep", "words", "1", 2)
    np.testing.assert_array_equal(cache.get(["bb", "a", "bb"], encoder), [[2, 1], [1, 1], [2, 1]])
    cache = FeatureCache(tmp_path / "deep", "words", "1", 2)
    np.testing.assert_array_equal(cache.get(["a", "ccc"], encoder), [[1, 1], [3, 1]])
    assert encoder.asked == ["bb", "a", "ccc"]
    FeatureCache(tmp_path / "deep", "words", "2", 2).get(["a"], encoder)  # a new version starts anew
    assert encoder.asked[-1] == "a"
    with pytest.raises(DataError, match="expected"):
        FeatureCache(tmp_path, "wide", "1", 3).get(["a"], encoder)
