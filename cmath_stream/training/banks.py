"""Voices and faces that stand ready to be grafted: features of recordings by emotion, and who shows it.

Features come from encoders that never heard or saw their recording: of voices out of fold by actor, or of
actors the shipped encoder does not know; of faces from pictures the face encoder did not learn from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmath_stream.training.data import MELD7, DataError, Floats

# The labels of RAVDESS and of FER+ in MELD's. Calm counts as neutral, MELD has none; contempt is left out.
VOICE_LABELS = ("neutral", "neutral", "joy", "sadness", "anger", "fear", "disgust", "surprise")
FACE_LABELS = ("neutral", "joy", "surprise", "sadness", "anger", "disgust", "fear", None)


@dataclass(frozen=True, slots=True)
class Bank:
    """Features of n recordings, some of them in several versions: as it was, by telephone, in noise."""

    vectors: Floats  # [versions, n, D]
    label: NDArray[np.int64]  # [n], index into MELD7
    shown_by: NDArray[np.int64]  # [n]; who is not known is somebody else each time

    def only(self, rows: NDArray[np.bool_]) -> Bank:
        """The recordings of a mask."""
        return Bank(self.vectors[:, rows], self.label[rows], self.shown_by[rows])

    def of(self, people: Sequence[int]) -> Bank:
        """The recordings of these people; of all where none is named. Raises DataError if none is left."""
        kept = self if not people else self.only(np.isin(self.shown_by, people))
        if not len(kept.label):
            raise DataError(f"no recording of {sorted(people)}")
        return kept


@dataclass(frozen=True, slots=True)
class OutOfFold:
    """What training of the voice encoder leaves of its cross-validation: each clip as heard by an encoder
    that never heard its actor."""

    key: tuple[str, ...]  # [n] file stems
    features: Floats  # [versions, n, 8]: clean, by telephone, through Opus, in noise
    emotion: NDArray[np.int64]  # [n], index into the encoder's labels
    actor: NDArray[np.int64]  # [n]


def read_out_of_fold(path: Path) -> OutOfFold:
    """Raises DataError."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return OutOfFold(
                tuple(map(str, file["key"])),
                file["features"].astype(np.float32),
                file["emotion"].astype(np.int64),
                file["actor"].astype(np.int64),
            )
    except (OSError, KeyError, ValueError) as error:
        raise DataError(
            f"{path}: no out-of-fold voices ({error}): train the voice first, configs/train-voice.toml"
        ) from error


def centred(posterior: NDArray[np.floating[Any]]) -> Floats:
    """[n, 8] posteriors of the voice encoder -> what it gives a fusion: `VoiceEncoder.features`."""
    log = np.log(np.maximum(posterior, 1e-9))
    rows: Floats = (log - log.mean(axis=-1, keepdims=True)).astype(np.float32)
    return rows


def out_of_fold_voices(path: Path) -> Bank:
    """The clips of `read_out_of_fold`, by MELD's emotions. Raises DataError."""
    found = read_out_of_fold(path)
    label = np.array([MELD7.index(VOICE_LABELS[each]) for each in found.emotion], dtype=np.int64)
    return Bank(found.features, label, found.actor)


def recorded_voices(folder: Path) -> Bank:
    """Recordings named as RAVDESS names them, heard by the shipped encoder. Raises DataError, MediaError."""
    from workers.training.voice import judge_voice

    heard = judge_voice(folder, None)
    label = np.array([MELD7.index(VOICE_LABELS[each]) for each in heard.label], dtype=np.int64)
    return Bank(centred(heard.probabilities)[None], label, heard.group)


def pictured_faces(path: Path, part: tuple[float, float], cache: Path) -> Bank:
    """Pictures with FER+ votes on which one emotion won, seen by the shipped encoder.

    `part` is the share of the pictures taken, (0, 1) = all: they are shuffled by their content, so parts that
    do not overlap hold no picture in common. Raises SettingsError, DataError.
    """
    import hashlib

    from cmath_stream.training.data import FeatureCache
    from workers.face_encoder import LABELS, encode, load, shipped
    from workers.training.ferplus import read_votes

    votes = read_votes(path)
    winner = votes.votes.argmax(axis=1)
    names = [hashlib.sha256(image.tobytes()).hexdigest() for image in votes.image]
    place = np.array([int(name[:12], 16) / 16**12 for name in names])
    named = np.array([at < len(LABELS) and FACE_LABELS[at] is not None for at in winner])
    rows = np.flatnonzero(votes.judged("plurality") & named & (place >= part[0]) & (place < part[1]))
    if not len(rows):
        raise DataError(f"{path}: no picture in that part of it")
    model, meta = load(shipped())

    def compute(missing: list[str]) -> Floats:
        at = {names[row]: row for row in rows}
        faces = encode(model, votes.image[[at[name] for name in missing]])
        return np.concatenate([faces.embedding, faces.posterior], axis=1)

    dim = meta.config.dim + len(LABELS)
    vectors = FeatureCache(cache, meta.name, meta.version, dim).get([names[row] for row in rows], compute)
    label = np.array([MELD7.index(str(FACE_LABELS[winner[row]])) for row in rows], dtype=np.int64)
    return Bank(vectors[None], label, np.arange(len(rows)))
