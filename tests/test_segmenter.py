"""Endpointing on a drawn curve of probabilities: what opens, what ends, what is kept of the samples."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime.messages import SAMPLE_RATE_HZ, AudioChunk
from realtime.segmenter import (
    Cut,
    Decision,
    HeardFrame,
    Onset,
    Pause,
    Reopened,
    Resumed,
    Segmenter,
    SegmenterConfig,
    Settled,
)

FRAME_S = 0.032
NONSENSE = {"release": 0.6}, {"threshold": 1.5}, {"pad_s": 0.5}, {"cut_search_s": 9.0}, {"resume_s": 0.1}
CONFIG = SegmenterConfig(
    threshold=0.5,
    release=0.35,
    min_speech_s=0.12,
    min_silence_s=0.3,
    resume_s=0.0,
    max_length_s=8.0,
    cut_search_s=1.5,
    pad_s=0.06,
)


def frames(ps: list[float], start_s: float = 0.0) -> list[HeardFrame]:
    """Frames whose samples count up, so that every sample of a cut can be told."""
    out = []
    for n, p in enumerate(ps):
        first = round(start_s * SAMPLE_RATE_HZ) + n * 512
        pcm = np.arange(first, first + 512, dtype=np.float32)
        out.append(HeardFrame(AudioChunk(pcm, first / SAMPLE_RATE_HZ), p))
    return out


def run(segmenter: Segmenter, heard: list[HeardFrame]) -> list[Decision]:
    return [decision for frame in heard for decision in segmenter.push(frame)]


def curve(*parts: tuple[float, float]) -> list[float]:
    """(seconds, p) pairs → p per frame."""
    return [p for seconds, p in parts for _ in range(round(seconds / FRAME_S))]


def cuts(decisions: list[Decision]) -> list[Cut]:
    return [decision for decision in decisions if isinstance(decision, Cut)]


def test_one_utterance_with_pads_and_pre_roll() -> None:
    onset, cut = run(Segmenter(CONFIG), frames(curve((1.6, 0.0), (0.96, 0.9), (0.64, 0.0))))
    assert isinstance(onset, Onset) and isinstance(cut, Cut)
    assert onset.start_s == cut.start_s == pytest.approx(1.6 - 0.06)
    assert cut.end_s == pytest.approx(2.56 + 0.06)
    assert cut.decided_s - 2.56 == pytest.approx(0.3, abs=FRAME_S)
    assert (
        cut.start_s - CONFIG.pre_roll_s - FRAME_S
        <= cut.pcm_start_s
        <= cut.start_s - CONFIG.pre_roll_s + FRAME_S
    )
    assert cut.pcm[0] == round(cut.pcm_start_s * SAMPLE_RATE_HZ)  # the samples are the ones of that time
    assert cut.pcm[-1] == round(cut.end_s * SAMPLE_RATE_HZ) - 1
    assert not cut.continues


def test_short_backchannel_passes_and_click_does_not() -> None:
    assert len(cuts(run(Segmenter(CONFIG), frames(curve((0.5, 0.0), (0.13, 0.9), (0.6, 0.0)))))) == 1
    assert run(Segmenter(CONFIG), frames(curve((0.5, 0.0), (0.064, 0.9), (0.6, 0.0)))) == []


def test_pause_shorter_than_min_silence_does_not_split() -> None:
    heard = frames(curve((0.5, 0.0), (0.64, 0.9), (0.256, 0.1), (0.64, 0.9), (0.5, 0.0)))
    assert len(cuts(run(Segmenter(CONFIG), heard))) == 1


def test_hysteresis_keeps_soft_speech() -> None:
    heard = frames(curve((0.5, 0.4), (0.32, 0.9), (1.0, 0.4), (0.5, 0.0)))
    (cut,) = cuts(run(Segmenter(CONFIG), heard))
    assert cut.end_s - cut.start_s == pytest.approx(1.32 + 0.12, abs=2 * FRAME_S)


def test_long_speech_is_cut_at_the_weakest_point_and_continues() -> None:
    ps = curve((0.32, 0.0), (12.0, 0.9), (0.6, 0.0))
    weak = round((0.32 + 7.2) / FRAME_S)
    ps[weak] = 0.45  # a breath inside the last stretch of the first 8 s
    decisions = run(Segmenter(CONFIG), frames(ps))
    first, second = cuts(decisions)
    assert first.continues and not second.continues
    assert first.end_s == pytest.approx((weak + 1) * FRAME_S)
    assert second.start_s == first.end_s == second.pcm_start_s  # nothing lost, nothing twice
    assert second.pcm[0] == first.pcm[-1] + 1
    assert [type(decision) for decision in decisions] == [Onset, Cut, Onset, Cut]


def test_stall_ends_the_open_utterance_by_the_clock() -> None:
    segmenter = Segmenter(CONFIG)
    run(segmenter, frames(curve((0.5, 0.0), (0.64, 0.9))))
    position_s = round(0.5 / FRAME_S) * FRAME_S + 0.64
    assert segmenter.deadline() == pytest.approx(position_s + CONFIG.stall_s)
    assert segmenter.expire(position_s + 0.4) == []
    (cut,) = cuts(segmenter.expire(position_s + 0.5))
    assert cut.end_s == pytest.approx(position_s)  # no sample after the last one is claimed
    assert cut.decided_s == pytest.approx(position_s + 0.5)
    assert segmenter.deadline() is None and segmenter.expire(99.0) == []


def test_flush_ends_what_is_open_once() -> None:
    segmenter = Segmenter(CONFIG)
    run(segmenter, frames(curve((0.5, 0.0), (0.64, 0.9))))
    assert len(segmenter.flush(1.2)) == 1
    assert segmenter.flush(1.2) == []


def test_lost_audio_is_counted_inside_the_utterance_only() -> None:
    heard = frames(curve((0.5, 0.0), (0.64, 0.9), (0.5, 0.0)))
    heard[2] = HeardFrame(heard[2].chunk, 0.0, lost_s=FRAME_S)
    heard[20] = HeardFrame(heard[20].chunk, 0.9, lost_s=0.020)
    (cut,) = cuts(run(Segmenter(CONFIG), heard))
    assert cut.lost_s == pytest.approx(0.020)


def same_cut(a: Cut, b: Cut) -> bool:
    """But for the time of the decision."""
    times = [(c.start_s, c.end_s, c.speech_end_s, c.pcm_start_s, c.lost_s, c.continues) for c in (a, b)]
    return times[0] == times[1] and np.array_equal(a.pcm, b.pcm)


def test_a_pause_tells_the_end_before_it_is_decided_to_the_sample() -> None:
    heard = frames(curve((0.5, 0.0), (0.64, 0.9), (0.5, 0.0)))
    onset, pause, cut = run(Segmenter(CONFIG, early_s=0.2), heard)
    assert isinstance(onset, Onset) and isinstance(pause, Pause) and isinstance(cut, Cut)
    assert same_cut(pause.cut, cut)
    assert pause.cut.decided_s - cut.speech_end_s == pytest.approx(0.2, abs=FRAME_S)
    assert cut.decided_s - pause.cut.decided_s > 2 * FRAME_S
    (alone,) = cuts(run(Segmenter(CONFIG), heard))
    assert same_cut(alone, cut) and alone.decided_s == cut.decided_s


def test_speech_after_a_pause_takes_it_back() -> None:
    heard = frames(curve((0.5, 0.0), (0.64, 0.9), (0.256, 0.1), (0.64, 0.9), (0.5, 0.0)))
    decisions = run(Segmenter(CONFIG, early_s=0.2), heard)
    assert [type(decision) for decision in decisions] == [Onset, Pause, Resumed, Pause, Cut]


def test_nobody_is_told_of_a_pause_before_its_pad_was_heard() -> None:
    heard = frames(curve((0.5, 0.0), (0.64, 0.9), (0.5, 0.0)))
    _, pause, cut = run(Segmenter(replace(CONFIG, pad_s=0.2), early_s=0.05), heard)
    assert isinstance(pause, Pause) and isinstance(cut, Cut) and same_cut(pause.cut, cut)
    assert pause.cut.decided_s >= cut.speech_end_s + 0.2


def test_a_pause_longer_than_the_silence_that_ends_is_none() -> None:
    heard = frames(curve((0.5, 0.0), (0.64, 0.9), (0.6, 0.0)))
    assert [type(d) for d in run(Segmenter(CONFIG, early_s=0.3), heard)] == [Onset, Cut]


@pytest.mark.parametrize("end", ["flush", "stall"])
def test_a_pause_that_ends_by_the_clock_ends_as_it_was_told(end: str) -> None:
    segmenter = Segmenter(CONFIG, early_s=0.2)
    *_, pause = run(segmenter, frames(curve((0.5, 0.0), (0.64, 0.9), (0.23, 0.0))))
    (cut,) = cuts(segmenter.flush(9.0) if end == "flush" else segmenter.expire(9.0))
    assert isinstance(pause, Pause) and same_cut(pause.cut, cut)


@pytest.mark.parametrize("bad", NONSENSE, ids=str)
def test_config_refuses_nonsense(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError):
        SegmenterConfig(**bad)


@given(st.lists(st.tuples(st.floats(0.03, 3.0), st.sampled_from([0.0, 0.4, 0.95])), min_size=1, max_size=25))
def test_any_curve_gives_paired_ordered_utterances_behind_the_watermark(
    parts: list[tuple[float, float]],
) -> None:
    segmenter = Segmenter(CONFIG)
    decisions: list[Decision] = []
    settled_s = 0.0
    for frame in frames(curve(*parts)):
        for decision in segmenter.push(frame):
            decisions.append(decision)
            if isinstance(decision, Cut):
                assert decision.end_s >= settled_s - 1e-9  # nothing ends before what was promised
        settled_s = max(settled_s, segmenter.settled_s)
    decisions += segmenter.flush(999.0)
    assert [type(d) for d in decisions] == [Onset, Cut] * (len(decisions) // 2)
    ended = cuts(decisions)
    for before, after in zip(ended, ended[1:], strict=False):
        assert before.end_s <= after.start_s + 1e-9
    for cut in ended:
        assert 0 <= cut.pcm_start_s <= cut.start_s + 1e-9 < cut.end_s
        assert cut.end_s - cut.start_s <= CONFIG.max_length_s + FRAME_S
        assert len(cut.pcm) == round((cut.end_s - cut.pcm_start_s) * SAMPLE_RATE_HZ)
        assert np.all(np.diff(cut.pcm) == 1)


@given(st.lists(st.tuples(st.floats(0.03, 1.0), st.sampled_from([0.0, 0.4, 0.95])), min_size=1, max_size=40))
def test_pauses_change_nothing_and_hold_unless_they_are_taken_back(parts: list[tuple[float, float]]) -> None:
    heard = frames(curve(*parts))
    config = replace(CONFIG, max_length_s=4.0)
    plain, early = Segmenter(config), Segmenter(config, early_s=0.2)
    decisions = run(early, heard) + early.flush(999.0)
    expected = run(plain, heard) + plain.flush(999.0)
    kept = [decision for decision in decisions if isinstance(decision, Onset | Cut)]
    assert len(kept) == len(expected)
    for one, other in zip(kept, expected, strict=True):
        assert type(one) is type(other) and one.start_s == other.start_s
        assert not isinstance(one, Cut) or not isinstance(other, Cut) or same_cut(one, other)
    for decision, following in zip(decisions, decisions[1:], strict=False):
        assert not isinstance(following, Resumed) or isinstance(decision, Pause)
        if isinstance(decision, Pause):
            assert isinstance(following, Resumed | Cut)
            at_length = isinstance(following, Cut) and following.end_s != decision.cut.end_s
            assert not isinstance(following, Cut) or at_length or same_cut(decision.cut, following)


# ---- an utterance that is taken up again


RESUMING = replace(CONFIG, resume_s=0.8)


def kinds(decisions: list[Decision]) -> list[type]:
    return [type(decision) for decision in decisions]


def test_whoever_goes_on_soon_continues_the_utterance_from_its_start() -> None:
    heard = frames(curve((0.5, 0.0), (0.64, 0.9), (0.608, 0.0), (0.64, 0.9), (1.5, 0.0)))
    decisions = run(Segmenter(RESUMING), heard)
    assert kinds(decisions) == [Onset, Cut, Reopened, Cut, Settled]
    first, whole = cuts(decisions)
    assert first.may_resume and whole.may_resume
    assert (whole.start_s, whole.pcm_start_s) == (first.start_s, first.pcm_start_s)
    assert np.array_equal(whole.pcm[: len(first.pcm)], first.pcm) and np.all(np.diff(whole.pcm) == 1)
    (at_once,) = cuts(run(Segmenter(replace(CONFIG, min_silence_s=0.7)), heard))
    assert whole.end_s == at_once.end_s


def test_whoever_goes_on_later_begins_another() -> None:
    heard = frames(curve((0.5, 0.0), (0.64, 0.9), (0.9, 0.0), (0.64, 0.9), (0.4, 0.0)))
    decisions = run(Segmenter(RESUMING), heard)
    assert kinds(decisions) == [Onset, Cut, Settled, Onset, Cut]
    plain = cuts(run(Segmenter(CONFIG), heard))
    assert all(same_cut(one, other) for one, other in zip(cuts(decisions), plain, strict=True))


def test_it_is_settled_as_soon_as_the_time_is_over() -> None:
    segmenter, speech_end_s = Segmenter(RESUMING), round(0.5 / FRAME_S) * FRAME_S + 0.64
    for frame in frames(curve((0.5, 0.0), (0.64, 0.9), (1.5, 0.0))):
        if Settled() in segmenter.push(frame):
            break
    assert frame.chunk.end_s - speech_end_s == pytest.approx(0.8, abs=FRAME_S + 1e-6)
    assert segmenter.deadline() is None


def test_a_click_within_the_time_is_not_going_on() -> None:
    heard = frames(curve((0.5, 0.0), (0.64, 0.9), (0.7, 0.0), (0.064, 0.9), (1.0, 0.0)))
    assert kinds(run(Segmenter(RESUMING), heard)) == [Onset, Cut, Settled]


def test_an_utterance_that_would_become_too_long_is_not_taken_up_again() -> None:
    heard = frames(curve((0.32, 0.0), (6.4, 0.9), (0.5, 0.0), (0.64, 0.9), (1.2, 0.0)))
    decisions = run(Segmenter(RESUMING), heard)
    assert kinds(decisions) == [Onset, Cut, Settled, Onset, Cut, Settled]


@pytest.mark.parametrize("end", ["flush", "stall"])
def test_who_leaves_will_not_go_on(end: str) -> None:
    segmenter = Segmenter(RESUMING)
    run(segmenter, frames(curve((0.5, 0.0), (0.64, 0.9), (0.4, 0.0))))
    assert segmenter.deadline() is not None
    assert (segmenter.flush(2.0) if end == "flush" else segmenter.expire(2.1)) == [Settled()]
    run(segmenter, frames(curve((0.64, 0.9)), start_s=3.2))
    (cut,) = cuts(segmenter.flush(4.0))
    assert not cut.may_resume


@given(st.lists(st.tuples(st.floats(0.03, 2.0), st.sampled_from([0.0, 0.4, 0.95])), min_size=1, max_size=40))
def test_any_curve_settles_every_utterance_once_and_gives_each_sample_once(
    parts: list[tuple[float, float]],
) -> None:
    segmenter = Segmenter(RESUMING, early_s=0.2)
    decisions = run(segmenter, frames(curve(*parts))) + segmenter.flush(999.0)
    last: list[Cut] = []
    undecided = False
    for decision in decisions:
        match decision:
            case Reopened():
                assert undecided
                last.pop()
            case Cut():
                last.append(decision)
        if isinstance(decision, Onset):
            assert not undecided
        if not isinstance(decision, Pause | Resumed):
            undecided = isinstance(decision, Cut) and decision.may_resume
    assert not undecided
    for before, after in zip(last, last[1:], strict=False):
        assert before.end_s <= after.start_s + 1e-9
    for cut in last:
        assert cut.end_s - cut.start_s <= RESUMING.max_length_s + FRAME_S
        assert len(cut.pcm) == round((cut.end_s - cut.pcm_start_s) * SAMPLE_RATE_HZ)
        assert np.all(np.diff(cut.pcm) == 1)


@pytest.mark.parametrize(
    ("ps", "lost", "onset"),
    [
        ([0.0, 0.05, 0.2, 0.9], {1}, 1),  # what hid the onset, then a detector that comes round
        ([0.0, 0.05, 0.2, 0.9], set(), 3),  # nothing was lost: the detector is right
        ([0.0, 0.01, 0.2, 0.9], {1}, 3),  # silence was lost
        ([0.05, 0.05, 0.05, 0.05, 0.2, 0.9], {0}, 5),  # too long ago
        ([0.05, 0.0, 0.2, 0.9], {0, 2}, 2),
    ],
)
def test_speech_began_in_the_hole_that_hid_its_onset(ps: list[float], lost: set[int], onset: int) -> None:
    heard = frames(ps + [0.9] * 6, start_s=1.6)
    heard = [replace(frame, lost_s=0.02 * (n in lost)) for n, frame in enumerate(heard)]
    begun = next(d for d in run(Segmenter(CONFIG), heard) if isinstance(d, Onset))
    assert begun.start_s == pytest.approx(1.6 + onset * FRAME_S - CONFIG.pad_s)


def test_what_continues_an_over_long_utterance_is_no_snippet() -> None:
    ps = curve((0.32, 0.0), (8.0, 0.9), (0.6, 0.0))
    ps[round((0.32 + 7.8) / FRAME_S)] = 0.45  # the weakest frame, where hardly anything would be left
    first, second = cuts(run(Segmenter(CONFIG), frames(ps)))
    assert first.continues
    assert second.speech_end_s - second.start_s >= 0.3
