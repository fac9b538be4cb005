"""A shared track is heard inside the own turns, and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from cmath_stream.sources.gate import FADE_S, gated
from realtime.messages import SAMPLE_RATE_HZ, AudioChunk
from realtime.rttm import Turn

FADE = round(FADE_S * SAMPLE_RATE_HZ)


def track(seconds: float, block: int = 8_000, start_s: float = 0.0) -> Iterator[AudioChunk]:
    """Constant 1, in blocks."""
    ones = np.ones(round(seconds * SAMPLE_RATE_HZ), np.float32)
    for at in range(0, len(ones), block):
        yield AudioChunk(ones[at : at + block], start_s + at / SAMPLE_RATE_HZ)


def heard(turns: list[Turn], seconds: float = 4.0, block: int = 8_000) -> np.ndarray:
    return np.concatenate([chunk.pcm for chunk in gated(track(seconds, block), turns)])


def test_sound_lies_exactly_inside_the_turns() -> None:
    pcm = heard([Turn("a", 0.5, 1.0), Turn("a", 2.25, 3.1)])
    expected = np.zeros(64_000, bool)
    expected[8_000:16_000] = expected[36_000:49_600] = True
    np.testing.assert_array_equal(pcm > 0, expected)
    assert (pcm[8_000 + FADE : 16_000 - FADE] == 1).all() and pcm.max() == 1
    assert np.abs(np.diff(pcm)).max() <= 1.01 / FADE  # no click at an edge


@pytest.mark.parametrize("block", [311, 512, 8_000, 64_000])
def test_the_size_of_the_blocks_changes_nothing(block: int) -> None:
    turns = [Turn("a", 0.1, 0.11), Turn("a", 0.3, 1.7), Turn("a", 1.6, 2.0), Turn("a", 3.9, 9.0)]
    np.testing.assert_array_equal(heard(turns, block=block), heard(turns, block=1_000))


def test_turns_that_touch_or_overlap_are_one_without_a_dip() -> None:
    pcm = heard([Turn("a", 1.0, 2.0), Turn("a", 0.5, 1.0), Turn("a", 1.5, 1.6)])
    assert (pcm[8_000 + FADE : 32_000 - FADE] == 1).all()


def test_a_hole_in_the_recording_moves_no_turn() -> None:
    late = list(gated(track(1.0, start_s=100.0), [Turn("a", 0.0, 5.0), Turn("a", 100.25, 100.5)]))
    pcm = np.concatenate([chunk.pcm for chunk in late])
    assert np.flatnonzero(pcm)[[0, -1]].tolist() == [4_000, 7_999]
    assert late[0].start_s == 100.0


def test_without_turns_all_of_it_is_ones_own_and_with_none_nothing() -> None:
    assert [chunk.pcm.min() for chunk in gated(track(1.0), None)] == [1, 1]
    assert heard([]).max() == 0
