"""Where a conversation turns: the course of everybody's running emotion, and the points where it changes.

The running emotion is that of `participant.state` (cmath_stream.participant): the mean of a participant's
utterances so far, each weighted by its length and, for every 20 s before the newest end, by half. Its label
stays until another is ahead of it by .1. It is computed here from the last word on each utterance, so it is
there for files that keep no such events.

A **turning point** is an utterance that makes the label of its speaker's running emotion another, if the
model was sure enough to name an emotion in that very utterance (it did not abstain). `moved` is how far the
running emotion went with it: half the sum of the absolute differences of its probabilities before and after,
so 0 is no change and 1 a change from all in one emotion to all in another. Of several, the stronger are those
that moved further.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cmath_stream.events import Event
from cmath_stream.participant import RunningEmotion


@dataclass(frozen=True, slots=True)
class Step:
    """One utterance's part in the course of its speaker."""

    utterance: Event
    before: str | None  # label of the running emotion; None for the first utterance
    after: str
    moved: float  # 0 to 1; 0 for the first utterance

    @property
    def turns(self) -> bool:
        """Whether it is a turning point."""
        changed = self.before is not None and self.before != self.after
        return changed and self.utterance["label"] is not None and not self.utterance["abstained"]


def courses(utterances: Sequence[Event]) -> dict[str, list[Step]]:
    """The course of every participant by id, each in order of the ends; one event an utterance is wanted.

    Where a participant's emotions are suddenly those of another model the course begins anew.
    """
    found: dict[str, list[Step]] = {}
    averages: dict[str, tuple[tuple[str, ...], RunningEmotion]] = {}
    for event in sorted(utterances, key=lambda event: (event["end_ms"], event["participant_id"])):
        person, names = event["participant_id"], tuple(entry["name"] for entry in event["emotions"])
        known, average = averages.get(person, ((), RunningEmotion()))
        if known != names:
            average = RunningEmotion()
        averages[person] = names, average
        old = (names[average.leading], average.probabilities) if average.utterances else None
        average.add(event["start_ms"], event["end_ms"], [entry["probability"] for entry in event["emotions"]])
        label, new = names[average.leading], average.probabilities
        if old is None:
            step = Step(event, None, label, 0.0)
        else:
            step = Step(event, old[0], label, sum(abs(a - b) for a, b in zip(old[1], new, strict=True)) / 2)
        found.setdefault(person, []).append(step)
    return found


def strongest(steps: Sequence[Step], at_most: int) -> list[Step]:
    """The turning points among `steps` that moved furthest, in order of time."""
    turning = sorted((step for step in steps if step.turns), key=lambda step: -step.moved)[:at_most]
    return sorted(turning, key=lambda step: (step.utterance["end_ms"], step.utterance["participant_id"]))


def shares(utterances: Sequence[Event]) -> dict[str, float]:
    """Share of each emotion in the time spoken: the mean of the probabilities, weighted by the lengths."""
    weights = [max(1, event["end_ms"] - event["start_ms"]) for event in utterances]
    sums: dict[str, float] = {}
    for event, weight in zip(utterances, weights, strict=True):
        for entry in event["emotions"]:
            sums[entry["name"]] = sums.get(entry["name"], 0.0) + weight * entry["probability"]
    whole = sum(sums.values()) or 1.0
    return {name: value / whole for name, value in sums.items()}
