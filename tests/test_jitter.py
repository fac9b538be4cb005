"""Order, holes and waiting of audio packets on networks that lose, delay and reorder; no clock, no I/O."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pytest

from realtime.jitter import AudioPacket, JitterBuffer, JitterConfig

RATE_HZ = 48_000
STEP = 960
STEP_S = STEP / RATE_HZ
FIRST = 65_500  # sequence numbers wrap early, and so do times
FIRST_TIME = (1 << 32) - 20 * STEP


@dataclass(frozen=True)
class Got:
    """A packet and when it had its turn."""

    number: int
    packet: AudioPacket
    at_s: float

    @property
    def delay_s(self) -> float:
        """Since the network would have brought it, had it not been late."""
        return self.at_s - self.number * STEP_S


def play(arrivals: Iterable[tuple[int, float]]) -> tuple[list[Got], JitterBuffer]:
    """Packets (number, arrival) through a buffer that is looked at whenever it asks to be."""
    buffer = JitterBuffer(RATE_HZ)
    got: list[Got] = []

    def note(packets: list[AudioPacket], at_s: float) -> None:
        got.extend(Got(int(packet.payload), packet, at_s) for packet in packets)

    for number, at_s in sorted(arrivals, key=lambda arrival: arrival[1]):
        while (deadline_s := buffer.deadline_s) is not None and deadline_s <= at_s:
            note(buffer.take(deadline_s), deadline_s)
        sequence, time = (FIRST + number) % (1 << 16), (FIRST_TIME + number * STEP) % (1 << 32)
        buffer.add(sequence, time, str(number).encode(), at_s)
        note(buffer.take(at_s), at_s)
    note(buffer.flush(at_s), at_s)
    return got, buffer


def sent(count: int) -> list[tuple[int, float]]:
    return [(number, number * STEP_S) for number in range(count)]


def test_in_order_nothing_is_held_back() -> None:
    got, buffer = play(sent(500))
    assert [each.number for each in got] == list(range(500))
    assert max(each.packet.waited_s for each in got) == 0.0 and buffer.lost == 0
    times = [each.packet.time for each in got]
    assert times == [FIRST_TIME + n * STEP for n in range(500)]  # no longer wrapping


def test_two_that_changed_places_are_put_right() -> None:
    arrivals = [(n, at + (0.03 if n == 100 else 0.0)) for n, at in sent(200)]
    got, buffer = play(arrivals)
    assert [each.number for each in got] == list(range(200)) and buffer.lost == 0
    assert max(each.delay_s for each in got) == pytest.approx(0.03)


def test_a_lost_packet_leaves_its_place_and_holds_the_others_up_briefly() -> None:
    got, buffer = play([arrival for arrival in sent(200) if arrival[0] not in (100, 101)])
    assert buffer.lost == 2 and buffer.late == 0
    after = next(each for each in got if each.number == 102)
    assert after.packet.lost == 2
    assert after.delay_s == pytest.approx(JitterConfig().least_s - 2 * STEP_S, abs=0.001)
    assert max(each.delay_s for each in got) <= 0.08


@pytest.mark.parametrize("share", [0.01, 0.05, 0.1])
def test_random_loss_delays_little_and_throws_nothing_away(share: float) -> None:
    rng = np.random.default_rng(1)
    arrivals = [arrival for arrival in sent(3000) if rng.random() >= share]
    got, buffer = play(arrivals)
    assert [each.number for each in got] == [number for number, _ in arrivals]
    assert buffer.late == 0 and buffer.lost == 3000 - len(arrivals) - (3000 - 1 - arrivals[-1][0])
    assert max(each.delay_s for each in got) <= 0.12


def test_a_burst_is_over_when_it_is_over() -> None:
    arrivals = [arrival for arrival in sent(400) if not 100 <= arrival[0] < 150]  # a second of nothing
    got, _ = play(arrivals)
    assert all(each.delay_s <= 0.12 for each in got if each.number >= 150 + 1.0 / STEP_S)
    assert next(each for each in got if each.number == 150).packet.lost == 50


def test_under_jitter_it_waits_longer_and_then_no_longer() -> None:
    rng = np.random.default_rng(2)
    calm, shaky = 500, 1500  # 10 s of each
    arrivals = [
        (n, at + (float(rng.uniform(0, 0.2)) if calm <= n < shaky else 0.0))
        for n, at in sent(2500)
        if rng.random() >= 0.02
    ]
    got, buffer = play(arrivals)
    settled = calm + round(0.5 / STEP_S)  # what comes before it has learned is given up too soon
    thrown = {number for number, _ in arrivals} - {each.number for each in got}
    assert len(thrown) == buffer.late <= 5
    assert sum(number >= settled for number in thrown) <= 1  # out of a thousand
    assert max(each.delay_s for each in got) <= JitterConfig().most_s + STEP_S
    assert all(each.delay_s <= 0.12 for each in got if each.number >= shaky + 2.0 / STEP_S)


def test_what_comes_after_its_time_is_counted_and_not_given() -> None:
    arrivals = [(n, at + (0.5 if n == 100 else 0.0)) for n, at in sent(300)]
    got, buffer = play(arrivals)
    assert 100 not in [each.number for each in got]
    assert (buffer.late, buffer.lost) == (1, 1)


def test_a_machine_that_was_busy_does_not_take_what_it_had_not_read_for_lost() -> None:
    # Nothing is read for half a second; then all of it at once, the third of it behind the others.
    arrivals = sent(200)
    order = [n for n in range(100, 126) if n != 102] + [102]
    for place, n in enumerate(order):
        arrivals[n] = (n, 126 * STEP_S + place * 1e-4)
    got, buffer = play(arrivals)
    assert [each.number for each in got] == list(range(200)) and buffer.lost == 0


def test_repeats_are_given_once_and_teach_nothing() -> None:
    arrivals = [*sent(50), *((n, at + 0.2) for n, at in sent(40))]
    got, buffer = play(arrivals)
    assert [each.number for each in got] == list(range(50))
    assert (buffer.repeated, buffer.late, buffer.lost) == (40, 0, 0)
    assert buffer.target_s == JitterConfig().least_s


def test_a_pause_of_the_sender_is_no_loss() -> None:
    buffer = JitterBuffer(RATE_HZ)
    for number in range(10):
        time = number * STEP + (RATE_HZ if number >= 5 else 0)  # a second in which nothing was sent
        at_s = time / RATE_HZ
        buffer.add(number, time, b"", at_s)
        (packet,) = buffer.take(at_s)
        assert (packet.time, packet.lost) == (time, 0)


def test_another_stream_begins_anew() -> None:
    buffer = JitterBuffer(RATE_HZ)
    for number in (0, 1, 3):
        buffer.add(number, number * STEP, b"old", 0.0, ssrc=1)
    assert len(buffer.take(0.0)) == 2
    buffer.add(7000, 123_456, b"new", 0.1, ssrc=2)
    assert [packet.payload for packet in buffer.take(0.1)] == [b"old", b"new"]
    assert buffer.deadline_s is None


def test_a_flood_of_numbers_is_bounded() -> None:
    buffer = JitterBuffer(RATE_HZ)
    for number in range(0, 400, 2):
        buffer.add(number, number * STEP, b"", 0.0)
        buffer.take(0.0)
    assert len(buffer._waiting) <= 101


def test_settings_out_of_range() -> None:
    with pytest.raises(ValueError, match="least_s"):
        JitterConfig(least_s=0.3)
