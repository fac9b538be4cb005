"""Pictures go where the sound of their moment went, once the sender has told how its clocks lie."""

from __future__ import annotations

import pytest

from realtime.alignment import Alignment

AUDIO_HZ, VIDEO_HZ = 48_000, 90_000
NTP_S = 3_900_000_000.25


def reported(skew_s: float = 0.0) -> Alignment:
    """Sound that began at RTP 1,000 and a picture at RTP 5,000 of the same moment; the clocks told apart."""
    alignment = Alignment()
    alignment.heard(1_000 + 10 * AUDIO_HZ, 12.0)  # ten seconds on
    alignment.report("audio", int((NTP_S + 1) * 2**32), 1_000 + AUDIO_HZ, AUDIO_HZ)
    alignment.report("video", int((NTP_S + 2 + skew_s) * 2**32), (5_000 + 2 * VIDEO_HZ) % 2**32, VIDEO_HZ)
    return alignment


@pytest.mark.parametrize("late_s", [-0.3, 0.0, 0.3])
def test_a_picture_goes_beside_its_sound(late_s: float) -> None:
    at_s = reported().picture_at_s(5_000 + 10 * VIDEO_HZ, 12.0 + late_s)
    assert at_s == pytest.approx(12.0, abs=1e-4)


def test_before_both_have_reported_arrival_counts() -> None:
    alignment = Alignment()
    assert alignment.picture_at_s(5_000, 3.0) == 3.0
    alignment.heard(1_000, 2.0)
    alignment.report("audio", 1 << 32, 1_000, AUDIO_HZ)
    assert alignment.picture_at_s(5_000, 3.0) == 3.0


def test_times_wrap() -> None:
    alignment = Alignment()
    alignment.heard(2**32 + 100, 5.0)
    alignment.report("audio", 7 << 32, 2**32 - AUDIO_HZ + 100, AUDIO_HZ)
    alignment.report("video", 8 << 32, 2**32 - 45_000, VIDEO_HZ)
    assert alignment.picture_at_s(45_000, 5.2) == pytest.approx(6.0)


def test_a_clock_that_was_set_is_not_believed() -> None:
    assert reported(skew_s=60.0).picture_at_s(5_000 + 10 * VIDEO_HZ, 12.1) == 12.1
