"""Events at the pace of what they tell of. The same events: only when they come is changed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator

from cmath_stream.events import Event


def paced(
    events: Iterable[Event],
    speed: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Event]:
    """Each event when its moment has come, `speed` times as fast as in life; conversations follow each other.

    A conversation's time begins when the first participant joins, and on the clock when that is told: what it
    takes to load models and to hear the first words is no part of it.
    """
    zero_ms: int | None = None
    began_s = 0.0
    for event in events:
        moments = [event[key] for key in ("at_ms", "end_ms", "start_ms") if key in event]
        if event["type"] == "session.started":
            zero_ms = None
        elif zero_ms is None and moments:
            zero_ms, began_s = moments[0], clock()
        if moments and zero_ms is not None:
            wait_s = began_s + (moments[0] - zero_ms) / 1000 / speed - clock()
            if wait_s > 0:
                sleep(wait_s)
        yield event
