"""Short decoded frames of sound joined to long ones. Sans-I/O, for one track.

What is done to a frame in Python costs as much for 20 ms of it as for half a second. Frames that do not
follow each other, or are of another kind, are never joined, so a hole stays where it is.
"""

from __future__ import annotations

from collections.abc import Iterator

import av

_LONG_S = 0.5
_SLACK_S = 0.002  # time stamps are rounded to a millisecond in some containers; no packet is as short

Timed = tuple[av.AudioFrame, float]  # and when its first sample was captured, seconds


class LongFrames:
    """Joins up to half a second."""

    def __init__(self) -> None:
        self._fifo = av.AudioFifo()
        self._kind: tuple[str, str, int] | None = None  # format, layout, rate of what is held
        self._start_s = 0.0
        self._end_s = 0.0

    def push(self, frame: av.AudioFrame, at_s: float) -> Iterator[Timed]:
        """The next frame, which starts at `at_s`; gives what is long enough, or ends before it."""
        kind = (frame.format.name, frame.layout.name, frame.sample_rate)
        if kind != self._kind or abs(at_s - self._end_s) > _SLACK_S:
            yield from self.flush()
            self._fifo, self._kind = av.AudioFifo(), kind
            self._start_s = self._end_s = at_s
        frame.pts = None  # the queue would refuse times that are not exact
        self._fifo.write(frame)
        self._end_s += frame.samples / frame.sample_rate
        if self._end_s - self._start_s >= _LONG_S:
            yield from self.flush()

    def flush(self) -> Iterator[Timed]:
        """What is held."""
        joined = self._fifo.read() if self._fifo.samples else None
        if joined is not None:
            yield joined, self._start_s
        self._start_s = self._end_s
