"""Feature sets of the research community: whole conversations whose features others have computed.

Knows conversations, modalities and the parts a set was cut into; not the layouts of files (`feature_files`),
nor what learns from them, nor how words become vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from cmath_stream.training.data import UNLABELLED, DataError, Example, Floats, speakers_by_appearance
from cmath_stream.training.feature_files import MODALITIES, RawDialogue, RawSet, read_raw

Text = Literal["provided", "words"]
Embed = Callable[[list[str]], Floats]  # n texts -> [n, D]


@dataclass(frozen=True, slots=True)
class Conversation:
    """One dialogue of a set. A row whose features are all zero or not finite counts as absent."""

    name: str
    example: Example
    words: tuple[str, ...] | None  # [N]


@dataclass(frozen=True, slots=True)
class FeatureSet:
    """Conversations in order of name, and the parts the set's makers laid down; None where they did not."""

    name: str
    modalities: tuple[tuple[str, int], ...]  # (modality, D_m) in the order of `Example.features`
    labels: tuple[str, ...]  # [C]
    conversations: tuple[Conversation, ...]
    train: tuple[str, ...] | None = None  # without `validation`
    validation: tuple[str, ...] | None = None
    test: tuple[str, ...] | None = None

    @property
    def label_set(self) -> str:
        """What a checkpoint calls these labels, as "iemocap6"."""
        return f"{self.name}{len(self.labels)}"

    @property
    def examples(self) -> list[Example]:
        """The conversations without names and words."""
        return [conversation.example for conversation in self.conversations]

    @property
    def groups(self) -> list[str]:
        """[n] the conversation of every row, labelled or not, in order."""
        return [each.name for each in self.conversations for _ in each.example.label]

    def part(self, names: Collection[str]) -> FeatureSet:
        """The conversations of these names only; the makers' parts are let go."""
        kept = tuple(each for each in self.conversations if each.name in set(names))
        return FeatureSet(self.name, self.modalities, self.labels, kept)

    def only(self, modalities: Collection[str]) -> FeatureSet:
        """The same conversations with these modalities alone, in the set's order. Raises DataError."""
        places = [m for m, (modality, _) in enumerate(self.modalities) if modality in modalities]
        if not places or len(places) != len(set(modalities)):
            raise DataError(f"{self.name}: has {[name for name, _ in self.modalities]}, not {modalities}")
        return replace(
            self,
            modalities=tuple(self.modalities[m] for m in places),
            conversations=tuple(
                replace(
                    each,
                    example=replace(
                        each.example,
                        features=tuple(each.example.features[m] for m in places),
                        presence=each.example.presence[:, places],
                    ),
                )
                for each in self.conversations
            ),
        )


def read_feature_set(path: Path, *, text: Text = "provided", embed: Embed | None = None) -> FeatureSet:
    """Read a community pickle or a feature npz, by the ending of its name.

    `words` puts `embed` of the words, called once, in the place of the provided text features. An npz then
    loses its visual features too: those of CMU-MOSI were fitted on the labels, as its text was.
    Raises DataError, in one line, for what is no such file.
    """
    if text == "words" and embed is None:
        raise DataError(f"{path}: its words need an encoder")
    return feature_set(path, read_raw(path), embed if text == "words" else None)


def feature_set(path: Path, raw: RawSet, embed: Embed | None = None) -> FeatureSet:
    """`read_feature_set` of what was read already, with text of the words where `embed` is given.

    `path` is for what is said of it. Raises DataError.
    """
    if not raw.dialogues:
        raise DataError(f"{path}: no dialogues")
    left_out: tuple[str, ...] = ()
    vectors: list[Floats | None] = [None] * len(raw.dialogues)
    if embed is not None:
        left_out = ("text", "visual") if path.suffix == ".npz" else ("text",)
        vectors = list(_embedded(path, raw, embed))
    conversations = []
    for dialogue, vector in zip(raw.dialogues, vectors, strict=True):
        features = {m: rows for m, rows in dialogue.features.items() if m not in left_out}
        if vector is not None:
            features["text"] = vector
        conversations.append(_conversation(path, raw, dialogue, features))
    widths = [tuple(rows.shape[1] for rows in each.example.features) for each in conversations]
    for each, here in zip(conversations, widths, strict=True):
        if here != widths[0]:
            raise DataError(f"{path}: dialogue {each.name}: features {here}, elsewhere {widths[0]}")
    names = [m for m in MODALITIES if m in features]
    return FeatureSet(
        name=raw.name,
        modalities=tuple(zip(names, widths[0], strict=True)),
        labels=raw.labels,
        conversations=tuple(conversations),
        train=raw.train,
        validation=raw.validation,
        test=raw.test,
    )


def _embedded(path: Path, raw: RawSet, embed: Embed) -> list[Floats]:
    """The vectors of every dialogue's words, from one call."""
    if any(dialogue.words is None for dialogue in raw.dialogues):
        raise DataError(f"{path}: it has no words")
    flat = [text for dialogue in raw.dialogues for text in dialogue.words or ()]
    vectors = np.asarray(embed(flat), dtype=np.float32)
    if vectors.ndim != 2 or len(vectors) != len(flat):
        raise DataError(f"{path}: {len(flat)} texts were embedded as {vectors.shape}")
    return np.split(vectors, np.cumsum([len(each.words or ()) for each in raw.dialogues])[:-1])


def _conversation(
    path: Path, raw: RawSet, dialogue: RawDialogue, features: Mapping[str, Floats]
) -> Conversation:
    """Check what every layout must hold."""
    rows = tuple(features[m] for m in MODALITIES if m in features)
    where = f"{path}: dialogue {dialogue.name}"
    if not rows:
        raise DataError(f"{where}: no features")
    lengths = {len(dialogue.label), len(dialogue.speakers), *map(len, rows)}
    if dialogue.words is not None:
        lengths.add(len(dialogue.words))
    if len(lengths) != 1 or lengths == {0}:
        raise DataError(f"{where}: columns of {sorted(lengths)} utterances")
    if dialogue.label.min() < UNLABELLED or dialogue.label.max() >= len(raw.labels):
        raise DataError(f"{where}: a label outside {len(raw.labels)} classes")
    presence = np.stack([np.isfinite(each).all(axis=1) & each.any(axis=1) for each in rows], axis=1)
    example = Example(rows, presence, speakers_by_appearance(dialogue.speakers), dialogue.label)
    return Conversation(dialogue.name, example, None if dialogue.words is None else tuple(dialogue.words))
