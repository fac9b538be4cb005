"""The clock of one track: anchoring, wrap, jumps, senders whose clock stops."""

from __future__ import annotations

from fractions import Fraction

import pytest

from realtime.clock import AHEAD_S, BEHIND_S, SETTLE_S, TrackClock

TICK = Fraction(1, 48_000)
STEP = 960  # 20 ms


def test_first_frame_is_anchored_at_its_capture() -> None:
    clock = TrackClock()
    assert clock.offset_s is None
    assert clock.at_s(12_345, TICK, 7.0) == 7.0
    assert clock.offset_s == 7.0


def test_media_time_counts_not_arrival() -> None:
    clock = TrackClock()
    clock.at_s(0, TICK, 1.0)
    late_s = [0.0, 0.03, 0.005, 0.2, 0.01]  # network jitter: only ever later
    times = [clock.at_s(n * STEP, TICK, 1.0 + n * 0.02 + late) for n, late in enumerate(late_s) if n]
    assert times == pytest.approx([1.02, 1.04, 1.06, 1.08])


def test_a_late_first_arrival_is_corrected_without_running_backwards() -> None:
    clock = TrackClock()
    times = [clock.at_s(0, TICK, 1.3)]  # 300 ms late
    times += [clock.at_s(n * STEP, TICK, 1.0 + n * 0.02) for n in range(1, 50)]
    assert times == sorted(times)
    assert times[-1] == pytest.approx(1.0 + 49 * 0.02)
    assert clock.offset_s == pytest.approx(1.0)


def test_after_settling_small_leads_change_nothing_and_impossible_ones_do() -> None:
    clock = TrackClock()
    frames = int(SETTLE_S / 0.02) + 10
    for n in range(frames):
        clock.at_s(n * STEP, TICK, 5.0 + n * 0.02)
    media_s = frames * 0.02
    assert clock.at_s(frames * STEP, TICK, 5.0 + media_s - AHEAD_S / 2) == pytest.approx(5.0 + media_s)
    far = frames + 100  # two seconds of media at once, a quarter second of time
    assert clock.at_s(far * STEP, TICK, 5.0 + media_s + 0.25) == pytest.approx(5.0 + media_s + 0.25)


@pytest.mark.parametrize("mapped", [False, True])
def test_the_32_bit_wrap_is_no_jump(mapped: bool) -> None:
    clock = TrackClock()
    pts = 2**32 - STEP
    clock.at_s(pts, TICK, 1.0)
    after = pts + STEP if mapped else 0  # aiortc unwraps true wraps itself
    assert clock.at_s(after, TICK, 1.02) == pytest.approx(1.02)


def test_a_late_frame_that_aiortc_takes_for_a_wrap_keeps_its_own_time() -> None:
    clock = TrackClock()
    clock.at_s(0, TICK, 1.0)
    clock.at_s(2 * STEP, TICK, 1.04)
    assert clock.at_s(STEP + 2**32, TICK, 1.05) == pytest.approx(1.02)
    assert clock.at_s(3 * STEP + 2**32, TICK, 1.06) == pytest.approx(1.06)


def test_a_clock_that_stopped_while_muted_is_anchored_again() -> None:
    clock = TrackClock()
    clock.at_s(0, TICK, 1.0)
    assert clock.at_s(STEP, TICK, 1.0 + BEHIND_S + 60) == pytest.approx(1.0 + BEHIND_S + 60)
    assert clock.at_s(2 * STEP, TICK, 1.02 + BEHIND_S + 60) == pytest.approx(1.02 + BEHIND_S + 60)


@pytest.mark.parametrize("frames", [100, 1000])
def test_a_sender_that_starts_again_at_zero_is_anchored_again(frames: int) -> None:
    clock = TrackClock()
    for n in range(frames):
        clock.at_s(n * STEP, TICK, 1.0 + n * 0.02)
    again_s = 1.5 + frames * 0.02
    assert clock.at_s(0, TICK, again_s) == pytest.approx(again_s)
    assert clock.at_s(STEP, TICK, again_s + 0.02) == pytest.approx(again_s + 0.02)


def test_a_gap_of_dtx_stays_a_gap() -> None:
    clock = TrackClock()
    clock.at_s(0, TICK, 1.0)
    assert clock.at_s(48_000 * 3, TICK, 4.01) == pytest.approx(4.0)
