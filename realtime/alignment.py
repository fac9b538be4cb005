"""How a participant's picture lies to their sound, by the sender's own clock. Sans-I/O.

Each track is placed on the session clock by arrival, and networks, encoders and buffers delay the two
differently. A sender report gives the sender's wall clock for an RTP time of a track (RFC 3550 §6.4.1); with
one of each track, a picture goes where the sound of its moment went. Sound stays where it was heard: what
was cut from it cannot move.
"""

from __future__ import annotations

from typing import Literal

Kind = Literal["audio", "video"]

_NTP_S = 1 << 32  # of a 64-bit NTP time, so many make a second
_WRAP = 1 << 32
_ODD_S = 5.0  # a report that would move pictures by more is of a clock that was set meanwhile


class Alignment:
    """The two tracks of one participant."""

    def __init__(self) -> None:
        self._reports: dict[Kind, tuple[float, int]] = {}  # NTP seconds, RTP time
        self._rates_hz: dict[Kind, int] = {}
        self._heard: tuple[int, float] | None = None  # RTP time and session time of the newest sound

    def report(self, kind: Kind, ntp: int, rtp_time: int, rate_hz: int) -> None:
        """A sender report: 64-bit NTP time, 32-bit RTP time, and what the RTP clock ticks a second."""
        self._reports[kind] = (ntp / _NTP_S, rtp_time)
        self._rates_hz[kind] = rate_hz

    def heard(self, rtp_time: int, at_s: float) -> None:
        """Sound of this RTP time was placed at `at_s` of the session."""
        self._heard = (rtp_time, at_s)

    def picture_at_s(self, rtp_time: int, arrival_s: float) -> float:
        """Session time of a picture that was placed at `arrival_s` by arrival: there, or beside its sound."""
        if self._heard is None or len(self._reports) < 2:
            return arrival_s
        sound_time, sound_s = self._heard
        at_s = sound_s + self._ntp_s("video", rtp_time) - self._ntp_s("audio", sound_time)
        return at_s if abs(at_s - arrival_s) < _ODD_S else arrival_s

    def _ntp_s(self, kind: Kind, rtp_time: int) -> float:
        ntp_s, reported = self._reports[kind]
        ticks = (rtp_time - reported + _WRAP // 2) % _WRAP - _WRAP // 2
        return ntp_s + ticks / self._rates_hz[kind]
