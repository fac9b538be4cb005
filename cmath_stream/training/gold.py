"""What people say was felt, beside what a replay says: read from a table or a corpus, matched, judged.

A corpus (dialogue JSONL, MELD's CSV, feature files) is matched by dialogue and place in it. A table is a CSV
with a column `emotion` and either `utterance` (the place, from 0) or `start_ms` and `end_ms` (or `start_s`
and `end_s`); where it needs them, also `participant`, and `dialogue` or `file`, the name of a conversation.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cmath_stream.answers import Answer
from cmath_stream.sources import dialogues
from cmath_stream.sources.names import participant_name
from cmath_stream.training.data import MELD7, UNLABELLED, DataError, label_index
from realtime.plain_words import plain
from workers.training.judged import Judged


@dataclass(frozen=True, slots=True)
class Gold:
    """One labelled utterance."""

    emotion: str | None  # None: nobody labelled it
    dialogue: str | None = None  # None: there is but one
    place: int | None = None  # in the conversation; None: found by its time
    participant: str | None = None
    start_ms: int = 0
    end_ms: int = 0


@dataclass(frozen=True, slots=True)
class Scored:
    """What a replay was right about."""

    judged: Judged
    matched: Sequence[tuple[Gold, Answer]]  # with a label that counts
    missed: int  # labelled, and no utterance there
    uncounted: int  # labelled with what the model has no counterpart of, or not at all


def read(path: Path) -> list[Gold]:
    """The labels of a file. Raises DataError or DialogueError, one line."""
    if path.suffix in (".pkl", ".npz"):
        return _of_features(path)
    if path.suffix.lower() == ".csv" and not _is_corpus(path):
        return _of_table(path)
    return [
        Gold(said.emotion, dialogue.name, place)
        for dialogue in dialogues.read(path)
        for place, said in enumerate(dialogue.utterances)
    ]


def score(gold: Sequence[Gold], answers: Sequence[Answer], source: str) -> Scored:
    """The labelled utterances beside the answers to them, all by one model.

    Raises DataError where they do not belong together; `source` names the labels.
    """
    if not answers:
        raise DataError("no utterance has an answer: there is nothing to score")
    labels = answers[0].labels
    models = {answer.model for answer in answers}
    if {answer.labels for answer in answers} != {labels}:
        raise DataError(f"answers of models with other labels: {', '.join(sorted(models))}")
    find = _Finder(answers, source)
    matched: list[tuple[Gold, Answer]] = []
    places: list[int] = []
    missed = uncounted = 0
    for each in gold:
        label = UNLABELLED if each.emotion is None else place_of(each.emotion, labels, source)
        answer = find(each)
        if label == UNLABELLED:
            uncounted += 1
        elif answer is None:
            missed += 1
        else:
            matched.append((each, answer))
            places.append(label)
    if not matched:
        raise DataError(f"{source}: none of its {len(gold)} labels is of an utterance here ({find.rooms})")
    judged = Judged(
        probabilities=np.array([answer.probabilities for _, answer in matched], np.float64),
        label=np.array(places, np.int64),
        labels=labels,
        checkpoint=", ".join(sorted(models)),
        protocol=f"replayed, labels of {source}; the most probable emotion counts, abstained or not",
    )
    return Scored(judged, matched, missed, uncounted)


def place_of(emotion: str, labels: Sequence[str], source: str) -> int:
    """Of a label among the model's, UNLABELLED where it has no counterpart. Raises DataError."""
    for name in (emotion, emotion.lower()):
        if name in labels:
            return labels.index(name)
    try:
        if tuple(labels) == MELD7:
            return label_index(emotion)
        raise ValueError
    except ValueError:
        known = ", ".join(labels)
        raise DataError(f"{source}: emotion {plain(emotion)!r}; the model knows {known}") from None


class _Finder:
    """Answers by what a label says of its utterance."""

    def __init__(self, answers: Sequence[Answer], source: str) -> None:
        self._source = source
        self._by_room: dict[str, list[Answer]] = {}
        for answer in answers:
            self._by_room.setdefault(answer.room, []).append(answer)
        self._by_place = {(answer.room, answer.index): answer for answer in answers}

    @property
    def rooms(self) -> str:
        """Their names, for a person."""
        names = [*self._by_room]
        return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")

    def __call__(self, gold: Gold) -> Answer | None:
        """Raises DataError where it is not said which conversation is meant."""
        room = gold.dialogue
        if room is None:
            if len(self._by_room) > 1:
                raise DataError(
                    f"{self._source}: a column `dialogue` must say which of {self.rooms} is meant"
                )
            room = next(iter(self._by_room))
        if gold.place is not None:
            return self._by_place.get((room, gold.place))
        return overlapping(gold, self._by_room.get(room, ()))


def overlapping(gold: Gold, answers: Iterable[Answer]) -> Answer | None:
    """The answer to the utterance of that participant that overlaps a stretch longest."""
    name = None if gold.participant is None else participant_name(gold.participant).lower()
    mine = [each for each in answers if name is None or each.participant_id.lower() == name]
    best = max(mine, key=lambda each: _overlap_ms(gold, each), default=None)
    return best if best is not None and _overlap_ms(gold, best) > 0 else None


def _overlap_ms(gold: Gold, answer: Answer) -> int:
    return min(gold.end_ms, answer.end_ms) - max(gold.start_ms, answer.start_ms)


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None


def _is_corpus(path: Path) -> bool:
    """Whether a CSV has the columns of MELD."""
    return "Dialogue_ID" in _text(path).partition("\n")[0]


def _of_table(path: Path) -> list[Gold]:
    rows = csv.DictReader(io.StringIO(_text(path), newline=""))
    rows.fieldnames = [name.strip().lower() for name in rows.fieldnames or ()]
    columns = set(rows.fieldnames)
    timed = {"start_ms", "end_ms"} <= columns or {"start_s", "end_s"} <= columns
    if "emotion" not in columns or not (timed or "utterance" in columns):
        raise DataError(f"{path}: labels have a column `emotion`, and `utterance` or `start_ms` and `end_ms`")
    try:
        return [_row(row, by_place="utterance" in columns) for row in rows]
    except (ValueError, TypeError, AttributeError, csv.Error) as error:
        raise DataError(f"{path}:{rows.line_num}: not a label: {plain(str(error))}") from None


def _row(row: Mapping[str, str], *, by_place: bool) -> Gold:
    dialogue = row.get("dialogue") or row.get("file")
    emotion = plain(row["emotion"]) or None
    if by_place:
        return Gold(emotion, dialogue, int(row["utterance"]))
    start_ms, end_ms = (
        float(row[f"{edge}_ms"]) if f"{edge}_ms" in row else float(row[f"{edge}_s"]) * 1000
        for edge in ("start", "end")
    )
    return Gold(emotion, dialogue, None, row.get("participant") or None, round(start_ms), round(end_ms))


def _of_features(path: Path) -> list[Gold]:
    from cmath_stream.training.feature_sets import read_feature_set

    found = read_feature_set(path)
    return [
        Gold(None if label == UNLABELLED else found.labels[label], each.name, place)
        for each in found.conversations
        for place, label in enumerate(each.example.label.tolist())
    ]
