"""Dialogues are read as written, padded without a trace, cached once, grafted as promised."""

from __future__ import annotations

import json
from pathlib import Path

import av
import numpy as np
import pytest

from cmath_stream.checkpoint import ModalitySpec
from cmath_stream.data import (
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
from cmath_stream.graft import TEXT, VOICE, Graft, VoiceBank, graft, read_mono_16k, voice_bank
from realtime.errors import MediaError


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
        '{"dialogue": "x", "utterances": [{"speaker": "a", "text": "b", "emotion": "hangry"}]}',
    ],
)
def test_what_is_no_dialogue_is_refused_with_its_place(tmp_path: Path, line: str) -> None:
    path = write(tmp_path / "some.jsonl", {"dialogue": "a", "utterances": [row("Jo", "Hi", "joy")]})
    path.write_text(path.read_text() + "\n" + line)
    with pytest.raises(DataError, match=r"some\.jsonl:2: "):
        read_dialogues(path)
    with pytest.raises(DataError, match="cannot be read"):
        read_dialogues(tmp_path / "none.jsonl")


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


# One row a clip; the vector is (actor, label), so that a graft shows what it chose.
CLIPS = [(actor, label) for actor in (1, 2, 3, 4) for label in range(7) for _ in range(2)]
BANK = VoiceBank(
    np.array(CLIPS, dtype=np.float32),
    np.array([label for _, label in CLIPS]),
    np.array([a for a, _ in CLIPS]),
)


def grafted(how: Graft, seed: int = 0, bank: VoiceBank = BANK) -> list[tuple[np.ndarray, ...]]:
    """(text, voice, heard, speaker, label) of a hundred dialogues of five lines by two people."""
    dialogues = [
        Dialogue(str(d), tuple(Line("ab"[n % 2], "hm", (d + n) % 7) for n in range(5))) for d in range(100)
    ]
    embedded = {"hm": np.ones(3, np.float32)}
    return [
        (*example.features, example.presence[:, 1], example.speaker, example.label)
        for example in graft(dialogues, embedded, bank, how, seed=seed)
    ]


def test_a_voice_speaks_the_emotion_of_the_words_with_one_actor_a_speaker() -> None:
    for text, voice, heard, speaker, label in grafted(Graft(disagree=0.0, absent=0.0)):
        assert heard.all()
        assert (text == 1).all()
        np.testing.assert_array_equal(voice[:, 1], label)
        assert all(len(set(voice[speaker == s, 0])) == 1 for s in (0, 1))


def test_voices_disagree_and_are_absent_as_often_as_asked() -> None:
    rows = grafted(Graft(disagree=0.15, absent=0.35))
    heard = np.concatenate([row[2] for row in rows])
    other = np.concatenate([row[1][row[2], 1] != row[4][row[2]] for row in rows])
    assert heard.mean() == pytest.approx(0.65, abs=0.07)
    assert other.mean() == pytest.approx(0.15, abs=0.06)


def test_a_graft_is_seeded() -> None:
    once, again, other = grafted(Graft()), grafted(Graft()), grafted(Graft(), seed=1)
    assert all(np.array_equal(a[1], b[1]) for a, b in zip(once, again, strict=True))
    assert not all(np.array_equal(a[1], b[1]) for a, b in zip(once, other, strict=True))


def test_only_the_chosen_actors_are_heard() -> None:
    rows = grafted(Graft(absent=0.0), bank=BANK.of_actors([2, 4]))
    assert {actor for row in rows for actor in row[1][:, 0]} == {2.0, 4.0}


def test_unlabelled_words_get_no_voice() -> None:
    silent = Dialogue("x", (Line("a", "hm", UNLABELLED), Line("a", "hm", 2)))
    (example,) = graft([silent], {"hm": np.ones(3, np.float32)}, BANK, Graft(absent=0.0), seed=0)
    assert example.presence.tolist() == [[True, False], [True, True]]


def test_the_features_are_named_as_their_extractors_are() -> None:
    assert TEXT == ModalitySpec("text", "all-MiniLM-L6-v2", "1", 384)
    assert VOICE == ModalitySpec("audio", "voice-stats", "1", 238)


def record(path: Path, hz: float) -> None:
    """A second of a hummed tone with silence around it, 24 kHz FLAC."""
    time_s = np.arange(48_000) / 24_000
    tone = np.where((time_s > 0.5) & (time_s < 1.5), 0.3 * np.sin(2 * np.pi * hz * time_s), 0.0)
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("flac", rate=24_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(
            (tone * 32_767).astype(np.int16)[None], format="s16", layout="mono"
        )
        frame.sample_rate = 24_000
        container.mux([*stream.encode(frame), *stream.encode(None)])


def test_the_voice_bank_reads_names_and_adds_noise(tmp_path: Path) -> None:
    record(tmp_path / "actor_02" / "03-01-03-01-01-01-02.flac", 140)
    record(tmp_path / "actor_07" / "03-01-02-01-01-01-07.flac", 200)
    assert len(read_mono_16k(tmp_path / "actor_07" / "03-01-02-01-01-01-07.flac")) == 32_000
    clean = voice_bank(tmp_path, tmp_path / "cache")
    assert [MELD7[label] for label in clean.label] == ["joy", "neutral"]
    assert clean.actor.tolist() == [2, 7]
    noisy = voice_bank(tmp_path, tmp_path / "cache", noise_db=[20.0])
    np.testing.assert_array_equal(noisy.vectors[:2], clean.vectors)
    assert noisy.actor.tolist() == [2, 7, 2, 7]
    assert np.abs(noisy.vectors[2:] - clean.vectors).max() > 0.5
    again = voice_bank(tmp_path, tmp_path / "fresh", noise_db=[20.0])
    np.testing.assert_array_equal(again.vectors, noisy.vectors)


def test_missing_recordings_are_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no actor_"):
        voice_bank(tmp_path, tmp_path)
    (tmp_path / "noise.flac").write_bytes(b"no flac at all")
    with pytest.raises(MediaError, match=r"noise\.flac: no readable audio"):
        read_mono_16k(tmp_path / "noise.flac")
