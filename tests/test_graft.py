"""Grafted conversations are made of what they should be, as often as asked, the same for a seed."""

from __future__ import annotations

import numpy as np
import pytest

from cmath_stream.running import beside_running_mean
from cmath_stream.training.banks import Bank
from cmath_stream.training.data import MELD7, UNLABELLED, DataError, Dialogue, Example, Line
from cmath_stream.training.graft import Graft, graft

# One row a recording; the vector is (who, label), so that a graft shows what it chose.
CLIPS = [(actor, label) for actor in (1, 2, 3, 4) for label in range(7) for _ in range(2)]
VOICES = Bank(
    np.array([CLIPS, CLIPS], dtype=np.float32),
    np.array([label for _, label in CLIPS]),
    np.array([actor for actor, _ in CLIPS]),
)
FACES = Bank(np.array([[(n, n % 7) for n in range(70)]], dtype=np.float32), np.arange(70) % 7, np.arange(70))
USUAL = np.zeros(2, np.float32)
ALWAYS = Graft(disagree=0.0, voiceless=0.0, faceless=0.0)


def grafted(how: Graft, seed: int = 0, voices: Bank = VOICES, odd: str | None = None) -> list[Example]:
    """A hundred dialogues of five lines by two people."""
    dialogues = [
        Dialogue(str(d), tuple(Line("ab"[n % 2], "hm", (d + n) % 7) for n in range(5))) for d in range(100)
    ]
    return graft(
        dialogues, {"hm": np.ones(3, np.float32)}, voices, FACES, how, seed=seed, usual=USUAL, odd=odd
    )


def together(examples: list[Example], modality: int) -> np.ndarray:
    return np.concatenate([example.features[modality] for example in examples])


def labels(examples: list[Example]) -> np.ndarray:
    return np.concatenate([example.label for example in examples])


def test_voice_and_face_show_the_emotion_of_the_words_with_one_actor_a_speaker() -> None:
    for example in grafted(ALWAYS):
        _, voice, face = example.features
        assert example.presence.all()
        np.testing.assert_array_equal(voice[:, 1], example.label)
        np.testing.assert_array_equal(face[:, 1], example.label)
        assert all(len(set(voice[example.speaker == s, 0])) == 1 for s in (0, 1))


def test_they_disagree_and_are_absent_as_often_as_asked() -> None:
    examples = grafted(Graft(disagree=0.15, voiceless=0.35, faceless=0.5))
    presence = np.concatenate([example.presence for example in examples])
    assert presence.mean(axis=0) == pytest.approx([1.0, 0.65, 0.5], abs=0.07)
    for modality in (1, 2):
        there = presence[:, modality]
        other = together(examples, modality)[there, 1] != labels(examples)[there]
        assert other.mean() == pytest.approx(0.15, abs=0.06)


def test_a_graft_is_seeded() -> None:
    once, again, other = (together(grafted(Graft(), seed), 1) for seed in (0, 0, 1))
    np.testing.assert_array_equal(once, again)
    assert not np.array_equal(once, other)


def test_a_voice_is_also_taken_from_what_its_actor_said_before_in_the_dialogue() -> None:
    for example in grafted(ALWAYS):
        voice = example.features[1]
        for person in (0, 1):
            rows = voice[example.speaker == person]
            np.testing.assert_array_equal(rows, beside_running_mean(rows[:, :2], USUAL))


def test_only_the_chosen_actors_are_heard() -> None:
    heard = together(grafted(ALWAYS, voices=VOICES.of([2, 4])), 1)
    assert set(heard[:, 0]) == {2.0, 4.0}
    assert VOICES.of([]) is VOICES
    with pytest.raises(DataError, match=r"\[9\]"):
        VOICES.of([9])


def test_unlabelled_words_get_neither_voice_nor_face() -> None:
    silent = Dialogue("x", (Line("a", "hm", UNLABELLED), Line("a", "hm", 2)))
    (example,) = graft([silent], {"hm": np.ones(3, np.float32)}, VOICES, FACES, ALWAYS, seed=0, usual=USUAL)
    assert example.presence.tolist() == [[True, False, False], [True, True, True]]


@pytest.mark.parametrize("odd", ["text", "audio", "visual"])
def test_the_odd_one_contradicts_the_two_whose_label_counts(odd: str) -> None:
    examples, words = grafted(Graft(), odd=odd), labels(grafted(Graft()))
    voice, face, label = together(examples, 1)[:, 1], together(examples, 2)[:, 1], labels(examples)
    shows = {"text": words, "audio": voice, "visual": face}
    for modality, shown in shows.items():
        assert (shown == label).all() == (modality != odd)
    assert not (shows[odd] == label).any()
    assert set(label) == set(range(len(MELD7)))
