"""Conversations of words, voices and faces, made by grafting: no public corpus at hand has all three raw.

The words are a written conversation. Voice and face are *other* recordings of the same emotion: one actor
stands in for a speaker throughout a dialogue, and each picture is somebody else, for FER+ does not say whom
it shows. So voice and face say nothing about the words; some are absent and some disagree, as in life. What
is measured on such a set shows that a fusion is robust. It is not accuracy on calls.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cmath_stream.running import beside_running_mean
from cmath_stream.training.banks import Bank
from cmath_stream.training.data import MELD7, UNLABELLED, Dialogue, Example, Floats, speakers_by_appearance

Rng = np.random.Generator


@dataclass(frozen=True, slots=True)
class Graft:
    """How voices and faces are put onto words."""

    disagree: float = 0.15  # share of grafted voices, and of faces, that show a random other emotion
    voiceless: float = 0.25  # share of utterances without a voice
    faceless: float = 0.45  # and without a face: cameras are off more often than microphones


def graft(
    dialogues: Sequence[Dialogue],
    embedded: Mapping[str, Floats],
    voices: Bank,
    faces: Bank,
    how: Graft,
    *,
    seed: int,
    usual: Floats,
    odd: str | None = None,
) -> list[Example]:
    """Examples of (text, audio, visual). `embedded` maps a text to its vector; `usual` [D] is the mean over
    everybody's voices, for voices are also taken from their actor's running mean.

    Utterances without a label get neither voice nor face: there is nothing to match. `odd` names a modality
    that contradicts the two others in every utterance, all three being there; the label is what the two show.
    """
    if odd is not None:
        how = Graft(disagree=0.0, voiceless=0.0, faceless=0.0)
    rng = np.random.default_rng(seed)
    by_actor, anybody = _by_person(voices), _by_label(faces)
    actors = np.unique(voices.shown_by)
    examples = []
    for dialogue in dialogues:
        speaker = speakers_by_appearance([line.speaker for line in dialogue.lines])
        label = np.array([line.label for line in dialogue.lines], dtype=np.int64)
        cast = rng.choice(actors, size=int(speaker.max()) + 1)  # scenes may outnumber actors
        heard = (rng.random(len(label)) >= how.voiceless) & (label != UNLABELLED)
        seen = (rng.random(len(label)) >= how.faceless) & (label != UNLABELLED)
        others = np.array([another(each, rng) for each in label], dtype=np.int64)
        spoken = others if odd in ("text", "audio") else label
        looked = others if odd in ("text", "visual") else label
        voice, face = _nothing(voices, label), _nothing(faces, label)
        for row in np.flatnonzero(heard):
            emotion = shown(int(spoken[row]), how.disagree, rng)
            voice[row] = _any_of(voices, by_actor[int(cast[speaker[row]]), emotion], rng)
        for row in np.flatnonzero(seen):
            face[row] = _any_of(faces, anybody[shown(int(looked[row]), how.disagree, rng)], rng)
        beside = np.zeros((len(label), 2 * voice.shape[1]), dtype=np.float32)
        for person in np.unique(speaker[heard]):
            rows = np.flatnonzero(heard & (speaker == person))
            beside[rows] = beside_running_mean(voice[rows], usual)
        examples.append(
            Example(
                features=(np.stack([embedded[line.text] for line in dialogue.lines]), beside, face),
                presence=np.stack([np.ones_like(heard), heard, seen], axis=1),
                speaker=speaker,
                label=np.where(label == UNLABELLED, label, others) if odd == "text" else label,
            )
        )
    return examples


def shown(label: int, disagree: float, rng: Rng) -> int:
    """The emotion that a voice or face shows where the words are labelled so."""
    return label if rng.random() >= disagree else another(label, rng)


def another(label: int, rng: Rng) -> int:
    """Any emotion but this one."""
    return int((label + rng.integers(1, len(MELD7))) % len(MELD7))


def _by_person(bank: Bank) -> dict[tuple[int, int], NDArray[np.int64]]:
    return {
        (int(person), label): np.flatnonzero((bank.shown_by == person) & (bank.label == label))
        for person in np.unique(bank.shown_by)
        for label in range(len(MELD7))
    }


def _by_label(bank: Bank) -> list[NDArray[np.int64]]:
    return [np.flatnonzero(bank.label == label) for label in range(len(MELD7))]


def _any_of(bank: Bank, rows: NDArray[np.int64], rng: Rng) -> Floats:
    vector: Floats = bank.vectors[rng.integers(len(bank.vectors)), rng.choice(rows)]
    return vector


def _nothing(bank: Bank, label: NDArray[np.int64]) -> Floats:
    return np.zeros((len(label), bank.vectors.shape[2]), dtype=np.float32)
