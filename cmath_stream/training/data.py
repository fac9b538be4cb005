"""Conversations on disk and in batches: written corpora, the feature cache, padding, a synthetic generator.

Knows labels, files and arrays. Does not know where features come from (`graft`) nor what eats them (`train`).
Letters: B dialogues, N utterances of the longest, M modalities, D_m the width of modality m.
"""

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmath_stream.sources import dialogues
from realtime.errors import CmathStreamError

MELD7 = ("neutral", "surprise", "fear", "sadness", "joy", "disgust", "anger")
UNLABELLED = -1  # context for its neighbours; no loss and no metric counts it

# EmoryNLP's Peaceful and Powerful have no counterpart among the seven: those utterances stay as context only.
_EMORYNLP = {
    "Neutral": "neutral",
    "Joyful": "joy",
    "Sad": "sadness",
    "Mad": "anger",
    "Scared": "fear",
    "Peaceful": None,
    "Powerful": None,
}

Floats = NDArray[np.float32]


class DataError(CmathStreamError):
    """A dialogue file that cannot be read as one; carries where."""


@dataclass(frozen=True, slots=True)
class Line:
    """One utterance of a written conversation."""

    speaker: str
    text: str
    label: int  # index into MELD7, or UNLABELLED


@dataclass(frozen=True, slots=True)
class Dialogue:
    """A conversation in order."""

    name: str
    lines: tuple[Line, ...]


@dataclass(frozen=True, slots=True)
class Example:
    """A dialogue as features. Absent rows of `features` may hold anything."""

    features: tuple[Floats, ...]  # M arrays [N, D_m]
    presence: NDArray[np.bool_]  # [N, M]
    speaker: NDArray[np.int64]  # [N], numbered by first appearance
    label: NDArray[np.int64]  # [N], UNLABELLED where there is none


@dataclass(frozen=True, slots=True)
class Batch:
    """Dialogues side by side, padded at the end. Padded rows are zero, absent and unlabelled."""

    features: tuple[Floats, ...]  # M arrays [B, N, D_m]
    presence: NDArray[np.bool_]  # [B, N, M]
    mask: NDArray[np.bool_]  # [B, N], False where padded
    speaker: NDArray[np.int64]  # [B, N]
    label: NDArray[np.int64]  # [B, N]


def read_dialogues(path: Path) -> list[Dialogue]:
    """Read MELD, EmoryNLP or DailyDialog: JSONL, one dialogue a line, or MELD's own CSV.

    Raises DataError naming file and place where there is no dialogue or an emotion is unknown.
    """
    try:
        return [_labelled(dialogue) for dialogue in dialogues.read(path)]
    except dialogues.DialogueError as error:
        raise DataError(str(error)) from error
    except ValueError as error:
        raise DataError(f"{path}: {error}") from error


def _labelled(written: dialogues.Written) -> Dialogue:
    lines = []
    for said in written.utterances:
        try:
            label = UNLABELLED if said.emotion is None else label_index(said.emotion)
        except ValueError:
            where = f"dialogue {written.name!r}, utterance {said.number}"
            raise ValueError(f"{where}: unknown emotion {said.emotion!r}") from None
        lines.append(Line(said.speaker, said.text, label))
    return Dialogue(written.name, tuple(lines))


def label_index(emotion: str) -> int:
    """Index into MELD7 of a corpus's emotion word, UNLABELLED where the seven have no counterpart.

    Raises ValueError for a word that no corpus has.
    """
    name = _EMORYNLP.get(emotion, emotion)
    return UNLABELLED if name is None else MELD7.index(name)


def speakers_by_appearance(names: Sequence[str]) -> NDArray[np.int64]:
    """[N] speaker numbers by order of first appearance: fixed for the life of an utterance (R7)."""
    order: dict[str, int] = {}
    return np.array([order.setdefault(name, len(order)) for name in names], dtype=np.int64)


def collate(examples: Sequence[Example]) -> Batch:
    """Pad to the longest dialogue."""
    longest = max(len(example.label) for example in examples)

    def pad(rows: NDArray[Any], value: int) -> NDArray[Any]:
        fill = [(0, longest - len(rows))] + [(0, 0)] * (rows.ndim - 1)
        return np.pad(rows, fill, constant_values=value)

    return Batch(
        features=tuple(
            np.stack([pad(example.features[m], 0) for example in examples])
            for m in range(len(examples[0].features))
        ),
        presence=np.stack([pad(example.presence, False) for example in examples]),
        mask=np.stack([pad(np.ones(len(example.label), dtype=np.bool_), False) for example in examples]),
        speaker=np.stack([pad(example.speaker, 0) for example in examples]),
        label=np.stack([pad(example.label, UNLABELLED) for example in examples]),
    )


class FeatureCache:
    """Vectors by key in one npz a feature, so that an encoder sees each input once.

    The name carries the encoder's version: a new version starts a new file. A file is replaced as a whole.
    """

    def __init__(self, folder: Path, name: str, version: str, dim: int) -> None:
        self._path = folder / f"{name}-{version}.npz"
        self._dim = dim
        self._rows: dict[str, Floats] = {}
        if self._path.exists():
            with np.load(self._path, allow_pickle=False) as stored:
                self._rows = dict(zip(stored["keys"].tolist(), stored["vectors"], strict=True))

    def get(self, inputs: Sequence[str], compute: Callable[[list[str]], Floats]) -> Floats:
        """[len(inputs), D] vectors; `compute` is called once with the distinct inputs not yet stored."""
        keys = [hashlib.sha256(text.encode()).hexdigest()[:32] for text in inputs]
        missing = {key: text for key, text in zip(keys, inputs, strict=True) if key not in self._rows}
        if missing:
            vectors = np.asarray(compute(list(missing.values())), dtype=np.float32)
            if vectors.shape != (len(missing), self._dim):
                raise DataError(
                    f"{self._path.name}: expected {(len(missing), self._dim)}, computed {vectors.shape}"
                )
            self._rows.update(zip(missing, vectors, strict=True))
            self._save()
        return np.stack([self._rows[key] for key in keys])

    def _save(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        partial = self._path.with_suffix(".partial.npz")
        np.savez(partial, keys=np.array(list(self._rows)), vectors=np.stack(list(self._rows.values())))
        os.replace(partial, self._path)


def synthetic(
    dialogues: int, dims: Sequence[int], classes: int = 7, *, seed: int = 0, absent: float = 0.2
) -> list[Example]:
    """Dialogues whose every modality carries the label as a direction plus noise: tests without data."""
    rng = np.random.default_rng(seed)
    directions = [rng.normal(size=(classes, dim)).astype(np.float32) for dim in dims]
    examples = []
    for _ in range(dialogues):
        length = int(rng.integers(3, 13))
        label = rng.integers(0, classes, size=length)
        presence = rng.random((length, len(dims))) >= absent
        presence[~presence.any(axis=1), 0] = True
        examples.append(
            Example(
                features=tuple(
                    centre[label] + rng.normal(size=(length, centre.shape[1])).astype(np.float32)
                    for centre in directions
                ),
                presence=presence,
                speaker=speakers_by_appearance([str(n) for n in rng.integers(0, 3, size=length)]),
                label=label.astype(np.int64),
            )
        )
    return examples
