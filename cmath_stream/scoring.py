"""How well utterances fit the turns that people marked: pure arithmetic on intervals.

A segment is judged against the turns of its own speaker only. The score keeps sums, not ratios, so that
scores add up over speakers and files: the share of a sum is not the mean of the shares.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

from realtime.rttm import Turn

ONSET_TOLERANCE_S = 0.3
SHORT_TURN_S = 0.5  # shorter turns (backchannels) do not count towards onset recall
JOINED_GAP_S = 0.3  # no endpointer that waits this long can split turns nearer than this
WIDE_GAP_S = 0.5

Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class SegmentationScore:
    """Sums over the judged speakers; add two scores to pool them."""

    speech_s: float = 0.0  # reference speech, overlapping turns of a speaker counted once
    covered_s: float = 0.0  # of it, inside a segment
    segment_s: float = 0.0  # time inside segments
    turns: int = 0  # turns of at least SHORT_TURN_S, as they were marked
    turns_found: int = 0  # of them, with a segment onset within ONSET_TOLERANCE_S
    joined: int = 0  # the same after turns nearer than JOINED_GAP_S are joined
    joined_found: int = 0
    segments: int = 0
    overlong: int = 0  # segments that hold more than one reference gap of at least WIDE_GAP_S

    @property
    def coverage(self) -> float:
        """Share of reference speech that lies in segments; 1 where there is none to cover."""
        return self.covered_s / self.speech_s if self.speech_s else 1.0

    @property
    def non_speech(self) -> float:
        """Share of segment time that lies outside reference speech; 0 without segments."""
        return 1 - self.covered_s / self.segment_s if self.segment_s else 0.0

    @property
    def onset_recall(self) -> float:
        """Share of marked turns whose onset a segment meets. A turn that follows its speaker's last one
        by less than an endpointer's waiting time cannot be met: see `joined_onset_recall`."""
        return self.turns_found / self.turns if self.turns else 1.0

    @property
    def joined_onset_recall(self) -> float:
        """Onset recall after joining turns that no endpointer could tell apart."""
        return self.joined_found / self.joined if self.joined else 1.0

    def __add__(self, other: SegmentationScore) -> SegmentationScore:
        return SegmentationScore(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def __str__(self) -> str:
        return (
            f"coverage {self.coverage:.1%}, non-speech {self.non_speech:.1%}, "
            f"onsets {self.turns_found}/{self.turns} ({self.onset_recall:.0%}), "
            f"joined {self.joined_found}/{self.joined} ({self.joined_onset_recall:.0%}), "
            f"over-long {self.overlong}/{self.segments} segments"
        )


def score(segments: Sequence[Turn], turns: Sequence[Turn], speaker: str | None = None) -> SegmentationScore:
    """Judge `segments` against the marked `turns`; of one speaker, or of all pooled (None)."""
    names = {turn.speaker for turn in (*segments, *turns)} if speaker is None else {speaker}
    total = SegmentationScore()
    for name in sorted(names):
        total += _score_one(_of(segments, name), _of(turns, name))
    return total


def merge(intervals: Sequence[Interval], max_gap_s: float = 0.0) -> list[Interval]:
    """The union of `intervals` in order of time, joined also across gaps shorter than `max_gap_s`."""
    merged: list[Interval] = []
    for start_s, end_s in sorted(intervals):
        if merged and (start_s <= merged[-1][1] or start_s - merged[-1][1] < max_gap_s - 1e-9):
            merged[-1] = (merged[-1][0], max(merged[-1][1], end_s))
        else:
            merged.append((start_s, end_s))
    return merged


def overlap_s(left: Sequence[Interval], right: Sequence[Interval]) -> float:
    """Seconds that lie both in the union of `left` and in the union of `right`."""
    return sum(
        max(0.0, min(a_end, b_end) - max(a_start, b_start))
        for a_start, a_end in merge(left)
        for b_start, b_end in merge(right)
    )


def _score_one(segments: list[Interval], turns: list[Interval]) -> SegmentationScore:
    speech = merge(turns)
    joined = merge(turns, JOINED_GAP_S)
    onsets = [start_s for start_s, _ in segments]
    gaps = [
        (end_s, start_s)
        for (_, end_s), (start_s, _) in zip(speech, speech[1:], strict=False)
        if start_s - end_s >= WIDE_GAP_S - 1e-9
    ]
    return SegmentationScore(
        speech_s=_length_s(speech),
        covered_s=overlap_s(speech, segments),
        segment_s=_length_s(merge(segments)),
        turns=len(_long(turns)),
        turns_found=_found(_long(turns), onsets),
        joined=len(_long(joined)),
        joined_found=_found(_long(joined), onsets),
        segments=len(segments),
        overlong=sum(_held(segment, gaps) > 1 for segment in segments),
    )


def _of(turns: Sequence[Turn], speaker: str) -> list[Interval]:
    return [(turn.start_s, turn.end_s) for turn in turns if turn.speaker == speaker]


def _length_s(intervals: Sequence[Interval]) -> float:
    return sum(end_s - start_s for start_s, end_s in intervals)


def _long(turns: Sequence[Interval]) -> list[Interval]:
    return [(start_s, end_s) for start_s, end_s in turns if end_s - start_s >= SHORT_TURN_S - 1e-9]


def _found(turns: Sequence[Interval], onsets: Sequence[float]) -> int:
    return sum(
        any(abs(onset_s - start_s) <= ONSET_TOLERANCE_S + 1e-9 for onset_s in onsets) for start_s, _ in turns
    )


def _held(segment: Interval, gaps: Sequence[Interval]) -> int:
    return sum(segment[0] <= start_s and end_s <= segment[1] for start_s, end_s in gaps)
