"""The scorer against cases small enough to work out by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmath_stream.scoring import SegmentationScore, merge, overlap_s, score
from realtime.rttm import Turn


def of(speaker: str, *edges: tuple[float, float]) -> list[Turn]:
    return [Turn(speaker, start_s, end_s) for start_s, end_s in edges]


def test_shares_by_hand() -> None:
    """Reference 4 s, segments 4 s, 3 s in common."""
    result = score(of("a", (1.5, 3.5), (6.0, 8.0)), of("a", (1.0, 3.0), (6.0, 7.5), (7.5, 8.0)))
    assert result.speech_s == pytest.approx(4.0)
    assert result.covered_s == pytest.approx(3.5)
    assert result.coverage == pytest.approx(3.5 / 4)
    assert result.non_speech == pytest.approx(0.5 / 4)


def test_onset_counts_within_300_ms_on_either_side() -> None:
    turns = of("a", (1.0, 2.0), (4.0, 5.0), (7.0, 8.0), (10.0, 11.0))
    result = score(of("a", (0.7, 2.0), (4.3, 5.0), (7.31, 8.0), (9.69, 11.0)), turns)
    assert (result.turns_found, result.turns) == (2, 4)
    assert result.onset_recall == 0.5


def test_turns_under_half_a_second_do_not_count_towards_onsets() -> None:
    result = score([], of("a", (1.0, 1.49), (3.0, 3.5)))
    assert (result.turns_found, result.turns) == (0, 1)


def test_turns_too_near_to_tell_apart_are_reported_both_ways() -> None:
    """Three marked turns, the first two 0.2 s apart: one segment finds one of them, or one of two joined."""
    turns = of("a", (1.0, 2.0), (2.2, 3.0), (3.5, 4.5))
    result = score(of("a", (1.0, 3.0), (3.5, 4.5)), turns)
    assert (result.turns_found, result.turns) == (2, 3)
    assert (result.joined_found, result.joined) == (2, 2)


def test_joining_makes_short_turns_long_enough_to_count() -> None:
    result = score(of("a", (1.0, 1.9)), of("a", (1.0, 1.4), (1.5, 1.9)))
    assert (result.turns, result.joined, result.joined_found) == (0, 1, 1)


def test_segment_over_one_wide_gap_is_allowed_and_over_two_is_not() -> None:
    turns = of("a", (1.0, 2.0), (2.5, 3.0), (3.4, 4.0), (5.0, 6.0))  # gaps 0.5, 0.4, 1.0
    assert score(of("a", (1.0, 4.0)), turns).overlong == 0
    assert score(of("a", (1.0, 5.1)), turns).overlong == 1
    assert score(of("a", (2.1, 5.1)), turns).overlong == 0  # begins inside the first gap


def test_a_speaker_is_judged_against_own_turns_only() -> None:
    turns = of("a", (0.0, 1.0)) + of("b", (1.0, 2.0))
    segments = of("a", (0.0, 2.0))
    assert score(segments, turns, "a").coverage == 1.0
    assert score(segments, turns, "a").non_speech == pytest.approx(0.5)
    assert score(segments, turns, "b").coverage == 0.0
    assert score(segments, turns).coverage == pytest.approx(0.5)
    assert score(segments, turns) == score(segments, turns, "a") + score(segments, turns, "b")


def test_segments_of_a_stranger_are_all_non_speech() -> None:
    assert score(of("stranger", (0.0, 1.0)), of("a", (0.0, 1.0))).non_speech == 1.0


def test_nothing_at_all_scores_without_dividing_by_zero() -> None:
    empty = score([], [])
    assert (empty.coverage, empty.non_speech, empty.onset_recall, empty.joined_onset_recall) == (1, 0, 1, 1)


def test_overlapping_turns_of_one_speaker_count_once() -> None:
    assert score([], of("a", (0.0, 2.0), (1.0, 3.0))).speech_s == pytest.approx(3.0)


def test_score_is_one_line() -> None:
    line = str(SegmentationScore(10.0, 9.0, 10.0, 4, 3, 3, 3, 5, 0))
    assert (
        line
        == "coverage 90.0%, non-speech 10.0%, onsets 3/4 (75%), joined 3/3 (100%), over-long 0/5 segments"
    )


def test_merge_joins_across_short_gaps_only() -> None:
    assert merge([(3.0, 4.0), (0.0, 1.0), (1.2, 2.0)], 0.3) == [(0.0, 2.0), (3.0, 4.0)]
    assert merge([(0.0, 1.0), (1.3, 2.0)], 0.3) == [(0.0, 1.0), (1.3, 2.0)]


edges = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 20)), max_size=12).map(
    lambda pairs: [(start / 4, (start + length) / 4) for start, length in pairs]
)


@given(edges, edges)
def test_overlap_is_what_counting_quarter_seconds_gives(
    left: list[tuple[float, float]], right: list[tuple[float, float]]
) -> None:
    def cells(intervals: list[tuple[float, float]]) -> set[int]:
        return {cell for a, b in intervals for cell in range(round(a * 4), round(b * 4))}

    assert overlap_s(left, right) == pytest.approx(len(cells(left) & cells(right)) / 4)
