"""The clock of one track: RTP time → session time. Sans-I/O; arrival times are handed in.

Until sender reports are used, a track is placed by arrival: media cannot arrive before it was captured, so
the smallest difference "arrival less media time" seen so far is the best guess of where media time zero
lies. After the first `SETTLE_S` the guess stands still, because audio already heard must not move, and is
corrected only when it has become impossible (media from the future) or useless (the sender's clock had
stopped, as some do while muted).
"""

from __future__ import annotations

from fractions import Fraction

SETTLE_S = 2.0  # how long the running minimum is followed
SETTLING_AHEAD_S = 0.02  # within it: sound is not cut for less, a packet's length
AHEAD_S = 0.1  # later on: media further in the future than this proves the guess wrong
BEHIND_S = 5.0  # media older than this is not late: its clock had stopped
RESTART_S = 1.0  # a step further back is no late frame: the sender counts anew
_WRAP = 1 << 32  # RTP timestamps are 32 bits wide (RFC 3550 §5.1)


class TrackClock:
    """Session time of the frames of one track."""

    def __init__(self) -> None:
        self._offset_s: float | None = None
        self._last_pts = 0  # as the sender counts it
        self._ticks = 0  # since the first frame, unwrapped
        self._settled_media_s = SETTLE_S
        self._last_s = 0.0  # last answer

    @property
    def offset_s(self) -> float | None:
        """Session time of the track's media time zero (its first frame), seconds; None before any frame."""
        return self._offset_s

    def at_s(self, pts: int, time_base: Fraction, captured_s: float) -> float:
        """Session time of the frame's first sample.

        `captured_s` is the latest session time at which that sample can have been captured: the arrival
        less whatever the frame is known to have waited or lasted.
        """
        if self._offset_s is None:
            self._last_pts = pts
            self._offset_s = self._last_s = captured_s
            return captured_s
        # The shortest way round the 32-bit circle is right for a wrap, and also for a late frame that
        # aiortc's TimestampMapper took for a wrap.
        step = (pts - self._last_pts + _WRAP // 2) % _WRAP - _WRAP // 2
        self._last_pts = pts
        self._ticks += step
        tick_s = time_base.numerator / time_base.denominator  # Fractions are slow, and this is every packet's
        media_s = self._ticks * tick_s
        if step * tick_s < -RESTART_S:
            self._anchor(media_s, captured_s)
        elif step < 0:
            return media_s + self._offset_s  # a late frame keeps its own time
        else:
            self._correct(media_s, captured_s)
        self._last_s = max(self._last_s, media_s + self._offset_s)
        return self._last_s

    def _correct(self, media_s: float, captured_s: float) -> None:
        assert self._offset_s is not None
        ahead_s = media_s + self._offset_s - captured_s
        settling = media_s <= self._settled_media_s
        if ahead_s > (SETTLING_AHEAD_S if settling else AHEAD_S):
            # Not below the last answer: time does not run backwards.
            self._offset_s = max(captured_s, self._last_s) - media_s
        elif ahead_s < -BEHIND_S:
            self._anchor(media_s, captured_s)

    def _anchor(self, media_s: float, captured_s: float) -> None:
        self._offset_s = max(captured_s, self._last_s) - media_s
        self._settled_media_s = media_s + SETTLE_S
