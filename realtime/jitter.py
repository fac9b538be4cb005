"""Audio packets in the order they were sent. Sans-I/O: times are handed in.

Nobody listens to this audio, so none of it is held back to be played smoothly: a packet goes on as soon as
all before it have. Only for a missing one the others wait, until it is later than packets have been late of
late; then its place stays empty, exactly as long as RTP time says, and whoever cuts utterances says so.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

_MOST_WAITING = 100  # packets: 2 s of the usual ones
_RESTART = 500  # a sequence number further off than this is no gap: the sender has begun anew
# A machine that was busy finds many packets at once, the missing one perhaps a few behind the first: so long
# it is waited for at least, from when it was missed.
_LEAST_SINCE_MISSED_S = 0.04
_USUAL_S = 0.02  # between packets, until two in sequence have told


@dataclass(frozen=True, slots=True)
class JitterConfig:
    """How long a missing packet is waited for, from the time it would have come had it not been late."""

    least_s: float = 0.08
    most_s: float = 0.25
    margin_s: float = 0.03  # on top of the greatest lateness in memory
    memory_s: float = 1.8  # for how long a late packet counts

    def __post_init__(self) -> None:
        if not 0 < self.least_s <= self.most_s or self.margin_s < 0 or self.memory_s <= 0:
            raise ValueError("least_s is above 0 and not above most_s, memory_s is above 0")


@dataclass(frozen=True, slots=True)
class AudioPacket:
    """One packet, in its turn."""

    payload: bytes
    time: int  # RTP time in ticks of the codec's clock, no longer wrapping (RFC 3550 §5.1)
    lost: int  # packets missing right before it
    waited_s: float  # between its arrival and its turn


class JitterBuffer:
    """Order and holes of one stream."""

    def __init__(self, rate_hz: int, config: JitterConfig | None = None) -> None:
        """`rate_hz`: ticks a second of the RTP clock."""
        self._rate_hz = rate_hz
        self._config = config or JitterConfig()
        self._ssrc: int | None = None
        self._newest = 0  # highest sequence number seen, unwrapped
        self._newest_time = 0
        self._next = 0  # whose turn it is
        self._last_time = 0  # RTP time of the one before it
        self._step = round(_USUAL_S * rate_hz)  # ticks between packets
        self._missed_s = -1.0  # since when the next one is missed; below 0 while it is not
        self._skipped = 0  # packets given up since the last that had its turn
        self._waiting: dict[int, tuple[bytes, int, float]] = {}  # by number: payload, time, arrival
        self._given_up: set[int] = set()  # of late
        self._ready: list[AudioPacket] = []
        self._lateness = _Lateness(self._config.memory_s)
        self.lost = 0  # packets that never came, or too late
        self.late = 0  # of those, the ones that came after they had been given up
        self.repeated = 0

    @property
    def target_s(self) -> float:
        """How long a missing packet is waited for at present."""
        config = self._config
        return min(max(self._lateness.spread_s + config.margin_s, config.least_s), config.most_s)

    @property
    def deadline_s(self) -> float | None:
        """When `take` will give up on a missing packet, if it has not come; None while none is missed."""
        if not self._waiting:
            return None
        due = self._last_time + self._step
        in_time_s = self._lateness.base_s + due / self._rate_hz + self.target_s
        return max(in_time_s, self._missed_s + _LEAST_SINCE_MISSED_S)

    def add(self, sequence: int, time: int, payload: bytes, now_s: float, *, ssrc: int = 0) -> None:
        """A packet as it came: 16-bit sequence number and 32-bit time (RFC 3550 §5.1), arrival in seconds."""
        number = self._newest + _signed(sequence - self._newest, 16)
        if self._ssrc != ssrc or abs(number - self._newest) > _RESTART:
            self._begin(ssrc, sequence, time, now_s)
            number = sequence
        ticks = self._newest_time + _signed(time - self._newest_time, 32)
        given_up = number in self._given_up
        if number in self._waiting or (number < self._next and not given_up):
            self.repeated += 1  # and nothing to learn of how late packets come
            return
        self._lateness.see(now_s - ticks / self._rate_hz, now_s)
        if given_up:
            self._given_up.discard(number)
            self.late += 1
        else:
            self._waiting[number] = (payload, ticks, now_s)
            if number >= self._newest:
                self._newest, self._newest_time = number, ticks

    def take(self, now_s: float) -> list[AudioPacket]:
        """The packets whose turn has come, in order."""
        while self._waiting:
            if self._next in self._waiting:
                self._turn(now_s)
                continue
            if self._missed_s < 0:
                self._missed_s = now_s
            deadline_s = self.deadline_s
            assert deadline_s is not None
            if now_s < deadline_s and len(self._waiting) <= _MOST_WAITING:
                break
            self._give_up_before(min(self._waiting))
        ready, self._ready = self._ready, []
        return ready

    def flush(self, now_s: float) -> list[AudioPacket]:
        """All that is left, in order: the stream is over."""
        for number in sorted(self._waiting):
            self._give_up_before(number)
            self._turn(now_s)
        ready, self._ready = self._ready, []
        return ready

    def _give_up_before(self, number: int) -> None:
        self._given_up = {n for n in self._given_up if n > number - _RESTART} | set(range(self._next, number))
        self._skipped += number - self._next
        self.lost += number - self._next
        self._next = number

    def _turn(self, now_s: float) -> None:
        payload, ticks, arrival_s = self._waiting.pop(self._next)
        step = ticks - self._last_time
        if not self._skipped and 0 < step <= self._rate_hz // 8:  # longer, and the sender has paused
            self._step = step
        self._ready.append(AudioPacket(payload, ticks, self._skipped, now_s - arrival_s))
        self._next, self._last_time, self._skipped, self._missed_s = self._next + 1, ticks, 0, -1.0

    def _begin(self, ssrc: int, sequence: int, time: int, now_s: float) -> None:
        """A new stream: what is left of the old one goes first; lateness is learned anew."""
        self._ready = self.flush(now_s)
        ticks = time if self._ssrc is None else self._newest_time + _signed(time - self._newest_time, 32)
        self._ssrc, self._newest, self._newest_time = ssrc, sequence, ticks
        self._next, self._last_time, self._skipped = sequence, ticks - self._step, 0
        self._given_up = set()
        self._lateness = _Lateness(self._config.memory_s)


class _Lateness:
    """Least and greatest "arrival less RTP time" of the last `memory_s`, in two halves that take turns."""

    def __init__(self, memory_s: float) -> None:
        self._half_s = memory_s / 2
        self._halves: deque[list[float]] = deque(maxlen=2)  # of each: since when, least, greatest

    @property
    def base_s(self) -> float:
        """Of a packet that is not late."""
        return min(least for _, least, _ in self._halves)

    @property
    def spread_s(self) -> float:
        """How late packets are at most."""
        return max((greatest for *_, greatest in self._halves), default=0.0) - self.base_s

    def see(self, difference_s: float, now_s: float) -> None:
        """One packet."""
        if not self._halves or now_s - self._halves[-1][0] >= self._half_s:
            self._halves.append([now_s, difference_s, difference_s])
        half = self._halves[-1]
        half[1] = min(half[1], difference_s)
        half[2] = max(half[2], difference_s)


def _signed(difference: int, bits: int) -> int:
    """The shortest way round a circle of 2**bits."""
    half = 1 << (bits - 1)
    return (difference + half) % (1 << bits) - half
