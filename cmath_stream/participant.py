"""A participant's running average: how they have sounded of late, out of their utterances. Sans-I/O.

Whoever has the final `emotion.utterance` events can compute it again: each counts by its length, and half as
much for every HALF_LIFE_S between its end and the newest end. The label stays until another is ahead of it
by AHEAD, so that a close race does not flicker.
"""

from __future__ import annotations

from collections.abc import Sequence

from cmath_stream.traces import Average

HALF_LIFE_S = 20.0
AHEAD = 0.1


class RunningEmotion:
    """The average of one participant."""

    def __init__(self) -> None:
        self.utterances = 0
        self.at_ms = 0  # newest end of an utterance
        self.leading = 0  # place of the label that is shown
        self._sums: list[float] = []
        self._weight = 0.0

    @property
    def probabilities(self) -> tuple[float, ...]:
        """In the model's order of labels; they sum to 1."""
        return tuple(each / self._weight for each in self._sums)

    @classmethod
    def of(cls, average: Average) -> RunningEmotion:
        """As another process left it."""
        made = cls()
        made.utterances, made.at_ms, made.leading = average.utterances, average.at_ms, average.leading
        made._sums, made._weight = list(average.sums), average.weight
        return made

    def state(self) -> Average:
        """All that `of` needs."""
        return Average(self.utterances, self.at_ms, self.leading, self._weight, tuple(self._sums))

    def add(self, start_ms: int, end_ms: int, probabilities: Sequence[float]) -> None:
        """One final utterance; one that comes late counts as it would have in its place."""
        newer_s = (end_ms - self.at_ms) / 1000
        fade, share = (_faded(newer_s), 1.0) if newer_s > 0 else (1.0, _faded(-newer_s))
        self.at_ms = max(self.at_ms, end_ms)
        weight = share * max(end_ms - start_ms, 1) / 1000
        before = self._sums or [0.0] * len(probabilities)
        self._sums = [fade * old + weight * new for old, new in zip(before, probabilities, strict=True)]
        self._weight = fade * self._weight + weight
        self.utterances += 1
        now = self.probabilities
        best = max(range(len(now)), key=now.__getitem__)
        if self.utterances == 1 or now[best] >= now[self.leading] + AHEAD:
            self.leading = best


def _faded(seconds: float) -> float:
    return float(2.0 ** (-seconds / HALF_LIFE_S))
