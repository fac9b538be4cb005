"""Events come at their moment, and are the same."""

from __future__ import annotations

from typing import Any

import pytest

from cmath_stream.replaying.pacing import paced


class Clock:
    """A clock that only sleeping moves, beside what the maker of events takes."""

    def __init__(self) -> None:
        self.now_s = 50.0

    def __call__(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now_s += seconds


def event(kind: str, **times: int) -> dict[str, Any]:
    return {"type": kind, **times}


TALK = [
    event("session.started"),
    event("participant.joined", at_ms=10_000),
    event("utterance.started", start_ms=11_000),
    event("utterance.ended", start_ms=11_000, end_ms=13_500),
    event("emotion.utterance", start_ms=11_000, end_ms=13_500),
    event("emotion.utterance", start_ms=11_000, end_ms=12_000),  # one that comes after its moment
    event("session.closed", at_ms=20_000),
]


@pytest.mark.parametrize("speed", [1.0, 4.0])
def test_each_event_comes_when_its_moment_has_come(speed: float) -> None:
    clock = Clock()
    came = [(told, clock.now_s) for told in paced(TALK + TALK, speed, clock, clock.sleep)]
    assert [told for told, _ in came] == TALK + TALK
    after = [0, 0, 1, 3.5, 3.5, 3.5, 10]
    expected = [50 + s / speed for s in after] + [50 + (10 + s) / speed for s in after]
    assert [at_s for _, at_s in came] == pytest.approx(expected)


def test_what_comes_late_is_not_waited_for_and_the_rest_keeps_its_time() -> None:
    clock = Clock()

    def slow() -> Any:
        for place, told in enumerate(TALK):
            clock.now_s += 3.0 if place in (0, 3) else 0.0  # models load, then a machine is busy
            yield told

    came = [clock.now_s - 50 for _ in paced(slow(), 1.0, clock, clock.sleep)]
    assert came == pytest.approx([3, 3, 4, 7, 7, 7, 13])
