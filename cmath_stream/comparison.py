"""Two answers to the same utterances, side by side: which belong together, and how far they are apart.

Pure. An utterance of one replay belongs to that of the other with the same id and times, else to the one of
the same participant that it overlaps longest: with other settings utterances may begin and end elsewhere.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from cmath_stream.answers import Answer
from realtime.errors import CmathStreamError


class ComparisonError(CmathStreamError):
    """Two replays that have nothing in common."""


@dataclass(frozen=True, slots=True)
class Pair:
    """One utterance."""

    a: Answer
    b: Answer

    @property
    def agrees(self) -> bool:
        """Whether both find the same emotion the most probable."""
        return self.a.label == self.b.label

    @property
    def moved(self) -> float:
        """Mean distance of the probabilities, 0 .. 2 / C."""
        both = zip(self.a.probabilities, self.b.probabilities, strict=True)
        return sum(abs(p - q) for p, q in both) / len(self.a.labels)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two replays of the same conversations."""

    pairs: Sequence[Pair]  # in A's order
    only_a: int  # utterances that the other has no counterpart of
    only_b: int

    @property
    def labels(self) -> tuple[str, ...]:
        """[C], of both."""
        return self.pairs[0].a.labels

    @property
    def agreement(self) -> float:
        """Share of pairs with the same label."""
        return sum(pair.agrees for pair in self.pairs) / len(self.pairs)

    @property
    def moved(self) -> float:
        """Mean distance of the probabilities, over pairs and labels."""
        return sum(pair.moved for pair in self.pairs) / len(self.pairs)

    def counts(self) -> dict[str, tuple[int, int]]:
        """By label, how often each of the two gave it."""
        a, b = Counter(pair.a.label for pair in self.pairs), Counter(pair.b.label for pair in self.pairs)
        return {label: (a[label], b[label]) for label in self.labels}

    def different(self) -> list[Pair]:
        """Pairs with other labels, those farthest apart first."""
        return sorted((pair for pair in self.pairs if not pair.agrees), key=lambda pair: -pair.moved)


def compare(a: Sequence[Answer], b: Sequence[Answer]) -> Comparison:
    """Raises ComparisonError where the labels differ or no utterance of one is one of the other."""
    labels = {answer.labels for answer in (*a, *b)}
    if len(labels) > 1:
        raise ComparisonError(
            "their models have other labels: " + " and ".join(map("/".join, sorted(labels)))
        )
    b = _renamed(a, b)
    partner = _same(a, b)
    partner |= _overlapping(
        [answer for answer in a if _key(answer) not in partner],
        [answer for answer in b if _key(answer) not in {_key(each) for each in partner.values()}],
    )
    if not partner:
        raise ComparisonError("no utterance of one is an utterance of the other: are they of the same input?")
    pairs = [Pair(answer, partner[_key(answer)]) for answer in a if _key(answer) in partner]
    return Comparison(pairs, len(a) - len(pairs), len(b) - len(pairs))


_Key = tuple[str, str]


def _key(answer: Answer) -> _Key:
    return answer.room, answer.utterance_id


def _renamed(a: Sequence[Answer], b: Sequence[Answer]) -> Sequence[Answer]:
    """Two single conversations are the same one, whatever their names."""
    rooms_a, rooms_b = {answer.room for answer in a}, {answer.room for answer in b}
    if len(rooms_a) != 1 or len(rooms_b) != 1:
        return b
    (room,) = rooms_a
    return [replace(answer, room=room) for answer in b]


def _same(a: Sequence[Answer], b: Sequence[Answer]) -> dict[_Key, Answer]:
    at = {(*_key(answer), answer.start_ms, answer.end_ms): answer for answer in b}
    found = ((answer, at.get((*_key(answer), answer.start_ms, answer.end_ms))) for answer in a)
    return {_key(answer): other for answer, other in found if other is not None}


def _overlapping(a: Sequence[Answer], b: Sequence[Answer]) -> dict[_Key, Answer]:
    """The greatest overlaps first, every utterance once."""
    who: dict[tuple[str, str], list[Answer]] = {}
    for answer in b:
        who.setdefault((answer.room, answer.participant_id), []).append(answer)
    close = [
        (min(one.end_ms, other.end_ms) - max(one.start_ms, other.start_ms), one, other)
        for one in a
        for other in who.get((one.room, one.participant_id), ())
    ]
    partner: dict[_Key, Answer] = {}
    taken: set[_Key] = set()
    for overlap_ms, one, other in sorted(close, key=lambda each: -each[0]):
        if overlap_ms > 0 and _key(one) not in partner and _key(other) not in taken:
            partner[_key(one)] = other
            taken.add(_key(other))
    return partner
