"""What is usual for a person, taken away: voices and faces at rest differ more than an emotion adds.

A vector is set beside its distance from the mean of what the same person showed before: a running
normalisation that never looks ahead, so live and replay do the same. While little is known of a person, the
mean is drawn towards everybody's. Letters: n utterances, D numbers of a vector.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cmath_stream.traces import Mean
from realtime.messages import Vector

PRIOR_COUNT = 4.0  # utterances' weight that everybody's mean has beside the person's own
_REMEMBERED = 64  # utterances that may still be revised


@dataclass(slots=True)
class _Known:
    usual: Vector  # [D] before the utterance
    vector: Vector  # [D] of the utterance


class RunningMean:
    """One person's, of one modality. An utterance never counts for itself."""

    def __init__(self, everybody: Vector) -> None:
        self._everybody = everybody
        self._sum = np.zeros_like(everybody)
        self._count = 0
        self._known: dict[str, _Known] = {}  # the latest utterances

    def beside(self, utterance_id: str, vector: Vector) -> Vector:
        """[D] -> [2 D]: the vector, and its distance from what was usual before this utterance.

        The same utterance again is a revision: it is set beside the same mean, and takes its old place in
        the means to come.
        """
        known = self._known.get(utterance_id)
        if known is None:
            known = self._known[utterance_id] = _Known(self._usual(), np.zeros_like(vector))
            self._count += 1
            if len(self._known) > _REMEMBERED:
                del self._known[next(iter(self._known))]
        self._sum += vector - known.vector
        known.vector = vector
        both: Vector = np.concatenate([vector, vector - known.usual])
        return both

    def restore(self, utterance_id: str, both: Vector, mean: Mean) -> None:
        """An utterance as another process had it, and the mean with it; in their order."""
        vector, distance = np.split(both, 2)
        self._known[utterance_id] = _Known(vector - distance, vector)
        self._count, self._sum = mean.count, mean.total.copy()

    def state(self) -> Mean:
        """Of all utterances so far."""
        return Mean(self._count, self._sum.copy())

    def _usual(self) -> Vector:
        usual = (self._sum + PRIOR_COUNT * self._everybody) / (self._count + PRIOR_COUNT)
        return usual.astype(np.float32)


def shuffled(key: Sequence[str], person: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """The rows of each person, in the order of their keys' hashes: recordings as a session without a plan."""
    order = np.array(sorted(range(len(key)), key=lambda at: hashlib.sha256(key[at].encode()).digest()))
    return [order[person[order] == each] for each in np.unique(person)]


def beside_running_mean(rows: Vector, everybody: Vector) -> Vector:
    """The same over one person's utterances in order: [n, D] -> [n, 2 D]."""
    before = np.cumsum(rows, axis=0) - rows
    count = np.arange(len(rows), dtype=np.float32)[:, None]
    usual = (before + PRIOR_COUNT * everybody) / (count + PRIOR_COUNT)
    both: Vector = np.concatenate([rows, (rows - usual).astype(np.float32)], axis=1)
    return both


def apart(rows: Vector, key: Sequence[str], person: NDArray[np.int64]) -> Vector:
    """[n, D] recordings of several people, each less its person's running mean, nothing known of anybody."""
    result = np.zeros_like(rows)
    nobody = np.zeros(rows.shape[1], np.float32)
    for at in shuffled(key, person):
        result[at] = beside_running_mean(rows[at], nobody)[:, rows.shape[1] :]
    return result
