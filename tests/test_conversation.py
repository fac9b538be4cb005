"""Order, announcements and media of a whole conversation, without a clock or a network."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from realtime import wire
from realtime.conversation import Conversation, ConversationConfig
from realtime.messages import (
    SAMPLE_RATE_HZ,
    AudioChunk,
    Caption,
    Message,
    ParticipantLeft,
    Picture,
    Segment,
    SegmentWithdrawn,
    SessionClosed,
    Transcript,
    UtteranceEnded,
    UtteranceSettled,
    UtteranceStarted,
)
from realtime.segmenter import HeardFrame, SegmenterConfig

FRAME_S = 512 / SAMPLE_RATE_HZ
CONFIG = ConversationConfig(SegmenterConfig(threshold=0.5, release=0.35, min_speech_s=0.12, pad_s=0.06))


class Stage:
    """Plays spoken spans of several people frame by frame."""

    def __init__(self, *people: str, early_s: float = 0.0, **join: bool) -> None:
        self.conversation = Conversation("s", CONFIG, 1_000_000, early_s)
        self.early = True  # there is room for it
        self.out: list[Message] = []
        self.spans: dict[str, list[tuple[float, float]]] = {}
        for pid in people:
            flags: dict[str, Any] = {"audio": True, "video": False, "captions": False} | join
            self.out += self.conversation.join(pid, 0.0, **flags)

    def play(self, until_s: float, since_s: float = 0.0, **spans: list[tuple[float, float]]) -> None:
        for n in range(round(since_s / FRAME_S), round(until_s / FRAME_S)):
            at_s = n * FRAME_S
            for pid, spoken in spans.items():
                p = 0.95 if any(a <= at_s < b for a, b in spoken) else 0.02
                pcm = np.full(512, n % 100 / 100, np.float32)
                frame = HeardFrame(AudioChunk(pcm, at_s), p)
                self.out += self.conversation.push_audio(pid, [frame], at_s + FRAME_S, early=self.early)
            self.out += self.conversation.expire(at_s + FRAME_S)

    def of(self, kind: type) -> list[Message]:
        return [message for message in self.out if isinstance(message, kind)]

    def ended(self) -> list[UtteranceEnded]:
        return [message for message in self.out if isinstance(message, UtteranceEnded)]

    def segments(self) -> list[Segment]:
        return [message for message in self.out if isinstance(message, Segment)]

    def story(self) -> list[tuple[str, int]]:
        """Names and attempts of what concerns segments, in order."""
        told = (Segment, SegmentWithdrawn, Transcript, UtteranceEnded)
        return [(type(m).__name__, m.attempt) for m in self.out if isinstance(m, told)]


def test_turns_are_announced_in_order_of_their_end() -> None:
    stage = Stage("anna", "ben")
    stage.play(8.0, anna=[(1.0, 2.0), (4.0, 5.0)], ben=[(2.2, 3.5), (5.5, 6.0)])
    ended = stage.ended()
    assert [(e.index, e.utterance_id) for e in ended] == [
        (0, "anna.0"),
        (1, "ben.0"),
        (2, "anna.1"),
        (3, "ben.1"),
    ]
    assert len(stage.of(UtteranceStarted)) == len(stage.of(Segment)) == 4
    assert all(200 <= e.endpoint_ms <= 400 for e in ended)
    assert ended[0].decided_unix_ms > 1_000_000


def test_overlapping_speakers_give_overlapping_utterances() -> None:
    stage = Stage("anna", "ben")
    stage.play(6.0, anna=[(1.0, 4.0)], ben=[(2.0, 2.6)])
    first, second = stage.ended()
    assert (first.utterance_id, second.utterance_id) == ("ben.0", "anna.0")
    assert second.start_ms < first.start_ms < first.end_ms < second.end_ms


def test_a_backchannel_does_not_wait_for_the_end_of_a_monologue() -> None:
    stage = Stage("anna", "ben")
    stage.play(3.4, anna=[(1.0, 5.0)], ben=[(2.0, 2.4)])
    assert [e.utterance_id for e in stage.ended()] == ["ben.0"]


def test_a_muted_participant_holds_nobody() -> None:
    stage = Stage("anna", "ben")
    stage.play(1.0, anna=[], ben=[])
    stage.play(4.0, since_s=1.0, anna=[(1.5, 2.0)])  # nothing comes from ben any more
    assert [e.utterance_id for e in stage.ended()] == ["anna.0"]


def test_a_track_that_stops_mid_word_ends_its_utterance_by_the_clock() -> None:
    stage = Stage("anna")
    stage.play(2.0, anna=[(1.0, 9.0)])
    assert stage.ended() == []
    stage.out += stage.conversation.expire(2.6)
    (ended,) = stage.ended()
    assert ended.end_ms <= 2000 + 1 and ended.endpoint_ms >= 500


def test_silence_without_packets_ends_an_utterance_and_speech_after_it_begins_another() -> None:
    """DTX: nothing is sent while nobody speaks, and the clock goes on."""
    stage = Stage("anna", "ben")
    stage.play(2.0, anna=[(1.0, 2.0)], ben=[])
    for n in range(20):
        stage.play(2.0 + 0.032 * (n + 1), since_s=2.0 + 0.032 * n, ben=[])
    assert [e.utterance_id for e in stage.ended()] == ["anna.0"]
    stage.play(4.0, since_s=3.0, anna=[(3.0, 3.5)], ben=[])
    assert [e.utterance_id for e in stage.ended()] == ["anna.0", "anna.1"]
    assert stage.ended()[1].start_ms == pytest.approx(3000 - 60, abs=32)


def test_captions_come_with_the_segment_or_after_it_or_not_at_all() -> None:
    stage = Stage("anna", captions=True)
    stage.out += stage.conversation.push_caption("anna", Caption(1.0, 1.9, "hello", "en"), 1.9)
    stage.play(2.6, anna=[(1.0, 2.0)])
    (segment,) = stage.of(Segment)
    assert isinstance(segment, Segment)
    assert (segment.text, segment.language, segment.captions_pending) == ("hello", "en", False)
    stage.play(6.0, since_s=2.6, anna=[(3.0, 4.0), (5.0, 5.4)])
    assert all(s.captions_pending for s in stage.of(Segment)[1:] if isinstance(s, Segment))
    (told,) = stage.of(Transcript)  # the grace time of anna.1 is over
    assert isinstance(told, Transcript) and (told.utterance_id, told.text) == ("anna.1", None)
    stage.out += stage.conversation.push_caption("anna", Caption(5.0, 5.4, "late", None), 6.0)
    late = stage.of(Transcript)[-1]
    assert isinstance(late, Transcript) and (late.utterance_id, late.text) == ("anna.2", "late")


def test_captions_out_of_order_still_find_their_utterance() -> None:
    stage = Stage("anna", captions=True)
    for caption in [Caption(1.5, 2.0, "world"), Caption(1.0, 1.4, "hello")]:
        stage.out += stage.conversation.push_caption("anna", caption, 2.0)
    stage.play(3.0, anna=[(1.0, 2.0)])
    (segment,) = stage.of(Segment)
    assert isinstance(segment, Segment) and segment.text == "hello world"


def test_without_audio_every_caption_is_an_utterance() -> None:
    stage = Stage("anna", audio=False, captions=True)
    for n in range(3):
        stage.out += stage.conversation.push_caption("anna", Caption(n, n + 0.5, f"words {n}"), n + 0.6)
    assert [e.utterance_id for e in stage.ended()] == ["anna.0", "anna.1", "anna.2"]
    assert all(isinstance(s, Segment) and s.pcm.size == 0 and s.text for s in stage.of(Segment))
    stage.out += stage.conversation.push_caption("anna", Caption(2.1, 2.3, "inside the last"), 3.0)
    last = stage.of(Segment)[-1]
    assert isinstance(last, Segment) and last.text == "inside the last" and not last.captions_pending


def test_media_that_lags_the_clock_for_good_is_heard_all_the_same() -> None:
    """A paused sender or a slow machine: what counts as a stall is that nothing comes."""
    for lag_s in (0.1, 0.7, 2.0):
        conversation = Conversation("s", CONFIG, 0)
        out = conversation.join("anna", 0.0, audio=True, video=False, captions=False)
        for n in range(round(4.0 / FRAME_S)):
            frame = HeardFrame(
                AudioChunk(np.zeros(512, np.float32), n * FRAME_S), 0.9 if 1 <= n * FRAME_S < 2 else 0.0
            )
            out += conversation.push_audio("anna", [frame], n * FRAME_S + lag_s)
            out += conversation.expire(n * FRAME_S + lag_s + 0.02)
        (ended,) = [message for message in out if isinstance(message, UtteranceEnded)]
        assert (ended.start_ms, ended.end_ms) == (964, 2076)


def test_pictures_of_the_utterance_are_thinned_evenly() -> None:
    stage = Stage("anna", video=True)
    for n in range(40):
        stage.conversation.push_picture("anna", Picture(b"jpeg", n * 100))
    stage.play(4.5, anna=[(1.0, 3.0)])
    (segment,) = stage.of(Segment)
    assert isinstance(segment, Segment)
    times = [picture.at_ms for picture in segment.pictures]
    assert len(times) == CONFIG.pictures_per_utterance and times == sorted(set(times))
    assert segment.start_ms <= times[0] and times[-1] <= segment.end_ms


def test_leaving_flushes_and_returning_goes_on_counting() -> None:
    stage = Stage("anna")
    stage.play(2.0, anna=[(1.0, 9.0)])
    stage.out += stage.conversation.leave("anna", 2.0, "bye")
    assert [e.utterance_id for e in stage.ended()] == ["anna.0"]
    assert isinstance(stage.out[-1], ParticipantLeft)
    stage.out += stage.conversation.join("anna", 3.0, audio=True, video=False, captions=False)
    stage.play(5.0, since_s=3.0, anna=[(3.5, 4.0)])
    assert [e.utterance_id for e in stage.ended()] == ["anna.0", "anna.1"]


def test_close_ends_everything_and_counts_it() -> None:
    stage = Stage("anna", "ben")
    stage.play(2.0, anna=[(1.0, 9.0)], ben=[(0.5, 9.0)])
    stage.out += stage.conversation.close(2.0, "shutdown")
    closed = stage.out[-1]
    assert isinstance(closed, SessionClosed) and closed.started == 2 == len(stage.ended())
    assert stage.conversation.participants == ()


# ---- early start


def test_the_early_segment_is_the_final_one_and_goes_once() -> None:
    plain, stage = Stage("anna"), Stage("anna", early_s=0.2)
    for each in (plain, stage):
        each.play(2.25, anna=[(1.0, 2.0)])
    assert plain.segments() == [] and stage.story() == [("Segment", 0)]
    for each in (plain, stage):
        each.play(3.0, since_s=2.25, anna=[])
    assert stage.story() == [("Segment", 0), ("UtteranceEnded", 0)]
    assert stage.ended() == plain.ended()
    (early,), (final,) = stage.segments(), plain.segments()
    assert early.early and not final.early
    early, final = (replace(s, deadline_unix_ms=0, early=False) for s in (early, final))
    assert wire.encode_segment(early) == wire.encode_segment(final)


def test_a_speaker_who_goes_on_makes_the_early_segment_void_at_once() -> None:
    plain, stage = Stage("anna"), Stage("anna", early_s=0.2)
    spoken = [(1.0, 2.0), (2.26, 3.0)]
    for each in (plain, stage):
        each.play(2.4, anna=spoken)
    assert stage.story() == [("Segment", 0), ("SegmentWithdrawn", 0)]
    for each in (plain, stage):
        each.play(4.0, since_s=2.4, anna=spoken)
    assert stage.story()[2:] == [("Segment", 1), ("UtteranceEnded", 1)]
    assert [replace(e, attempt=0) for e in stage.ended()] == plain.ended()
    assert np.array_equal(stage.segments()[1].pcm, plain.segments()[0].pcm)


def test_without_room_for_it_nothing_starts_early() -> None:
    stage = Stage("anna", early_s=0.2)
    stage.early = False
    stage.play(4.0, anna=[(1.0, 2.0), (2.26, 3.0)])
    assert stage.story() == [("Segment", 0), ("UtteranceEnded", 0)]
    assert not stage.segments()[0].early


def test_leaving_in_a_pause_keeps_what_was_sent() -> None:
    stage = Stage("anna", early_s=0.2)
    stage.play(2.25, anna=[(1.0, 2.0)])
    stage.out += stage.conversation.leave("anna", 2.25, "bye")
    assert stage.story() == [("Segment", 0), ("UtteranceEnded", 0)]


def test_words_that_are_there_go_early_and_words_that_come_then_follow() -> None:
    stage = Stage("anna", early_s=0.2, captions=True)
    stage.out += stage.conversation.push_caption("anna", Caption(1.0, 1.9, "hello", "en"), 1.9)
    stage.play(3.9, anna=[(1.0, 2.0), (3.0, 3.65)])
    assert [(s.text, s.captions_pending) for s in stage.segments()] == [("hello", False), (None, True)]
    stage.out += stage.conversation.push_caption("anna", Caption(3.0, 3.6, "again"), 3.9)
    stage.play(4.5, since_s=3.9, anna=[])
    story = [("Segment", 0), ("UtteranceEnded", 0), ("Segment", 0), ("Transcript", 0), ("UtteranceEnded", 0)]
    assert stage.story() == story
    (transcript,) = stage.of(Transcript)
    assert isinstance(transcript, Transcript)
    assert (transcript.utterance_id, transcript.text) == ("anna.1", "again")


def test_more_words_than_were_sent_early_make_another_segment() -> None:
    stage = Stage("anna", early_s=0.2, captions=True)
    stage.out += stage.conversation.push_caption("anna", Caption(1.0, 1.5, "hello"), 1.5)
    stage.play(2.25, anna=[(1.0, 2.0)])
    stage.out += stage.conversation.push_caption("anna", Caption(1.5, 2.0, "there"), 2.25)
    stage.play(3.0, since_s=2.25, anna=[])
    assert stage.story() == [("Segment", 0), ("SegmentWithdrawn", 0), ("Segment", 1), ("UtteranceEnded", 1)]
    assert [s.text for s in stage.segments()] == ["hello", "hello there"]
    stage.out += stage.conversation.push_caption("anna", Caption(1.9, 2.0, "friend"), 3.0)
    assert stage.story()[-1] == ("Transcript", 1)  # a late correction is about the segment that holds


def test_a_picture_that_comes_in_the_pause_makes_another_segment() -> None:
    stage = Stage("anna", early_s=0.2, video=True)
    stage.conversation.push_picture("anna", Picture(b"one", 1500))
    stage.play(2.25, anna=[(1.0, 2.0)])
    stage.conversation.push_picture("anna", Picture(b"two", 1990))
    stage.play(3.0, since_s=2.25, anna=[])
    assert stage.story() == [("Segment", 0), ("SegmentWithdrawn", 0), ("Segment", 1), ("UtteranceEnded", 1)]
    assert [len(s.pictures) for s in stage.segments()] == [1, 2]


# ---- going on


def places(stage: Stage) -> list[tuple[str, int, int, bool]]:
    return [(e.utterance_id, e.index, e.attempt, e.may_resume) for e in stage.ended()]


def test_whoever_goes_on_within_eight_tenths_of_a_second_goes_on_with_the_same_utterance() -> None:
    stage = Stage("anna")
    stage.play(5.0, anna=[(1.0, 2.0), (2.6, 3.4)])
    assert len(stage.of(UtteranceStarted)) == 1
    assert places(stage) == [("anna.0", 0, 0, True), ("anna.0", 0, 1, True)]
    first, whole = stage.segments()
    assert (first.attempt, whole.attempt) == (0, 1)
    assert first.start_ms == whole.start_ms and first.end_ms < 2200 < 3400 <= whole.end_ms
    (settled,) = stage.of(UtteranceSettled)
    assert stage.out.index(settled) > stage.out.index(stage.ended()[-1])


def test_the_place_of_an_utterance_stays_when_its_speaker_goes_on_after_another() -> None:
    stage = Stage("anna", "ben")
    stage.play(6.0, anna=[(1.0, 2.0), (2.7, 3.6)], ben=[(1.9, 2.3)])
    assert places(stage) == [
        ("anna.0", 0, 0, True),
        ("ben.0", 1, 0, True),
        ("anna.0", 0, 1, True),
    ]


def test_an_utterance_taken_up_before_it_was_announced_is_announced_once() -> None:
    stage = Stage("anna", "ben")
    stage.play(7.0, anna=[(1.0, 2.0), (2.6, 3.4)], ben=[(0.5, 5.0)])
    # Ben speaks all along, so nothing of Anna's waits for him; the other way round it does.
    assert [e.utterance_id for e in stage.ended()][-1] == "ben.0"
    stage = Stage("anna", "ben")
    stage.play(1.9, anna=[(1.0, 1.5)], ben=[(0.5, 9.0)])
    held = [e for e in stage.ended() if e.utterance_id == "anna.0"]
    assert held and held[0].may_resume


def test_settled_before_it_is_announced_it_says_so_at_once() -> None:
    """Ben's track lags: nothing is announced until it is known that he says nothing before."""
    stage = Stage("anna", "ben")
    for n in range(round(4.0 / FRAME_S)):
        at_s = n * FRAME_S
        for pid, ahead_s in (("anna", 0.0), ("ben", -1.6)):
            if at_s + ahead_s < 0:
                continue
            p = 0.95 if pid == "anna" and 1.0 <= at_s < 2.0 else 0.02
            frame = HeardFrame(AudioChunk(np.zeros(512, np.float32), at_s + ahead_s), p)
            stage.out += stage.conversation.push_audio(pid, [frame], at_s + FRAME_S)
    assert places(stage) == [("anna.0", 0, 0, False)] and stage.of(UtteranceSettled) == []


def test_who_leaves_settles_what_was_said() -> None:
    stage = Stage("anna")
    stage.play(2.5, anna=[(1.0, 2.0)])
    assert places(stage) == [("anna.0", 0, 0, True)]
    stage.out += stage.conversation.leave("anna", 2.5, "bye")
    assert [type(m) for m in stage.out[-2:]] == [UtteranceSettled, ParticipantLeft]


def test_words_of_both_parts_are_the_words_of_the_whole() -> None:
    stage = Stage("anna", captions=True)
    stage.out += stage.conversation.push_caption("anna", Caption(1.0, 1.9, "well", "en"), 1.9)
    stage.play(2.5, anna=[(1.0, 2.0), (2.6, 3.4)])
    stage.out += stage.conversation.push_caption("anna", Caption(2.6, 3.3, "I think so", "en"), 2.5)
    stage.play(5.0, since_s=2.5, anna=[(2.6, 3.4)])
    assert [(s.text, s.captions_pending) for s in stage.segments()] == [
        ("well", False),
        ("well I think so", False),
    ]


def test_going_on_after_an_early_start_numbers_on() -> None:
    stage = Stage("anna", early_s=0.2)
    stage.play(5.0, anna=[(1.0, 2.0), (2.6, 3.4)])
    assert stage.story() == [
        ("Segment", 0),
        ("UtteranceEnded", 0),
        ("Segment", 1),
        ("UtteranceEnded", 1),
    ]


@pytest.mark.parametrize(
    ("words", "over"),
    [
        ("I did.", True),
        ("“Did you?”", True),
        ("好吧。", True),
        ("Well...", False),
        ("…", False),
    ],
)
def test_words_that_end_a_sentence_end_the_utterance_for_good(words: str, over: bool) -> None:
    stage = Stage("anna", captions=True)
    stage.out += stage.conversation.push_caption("anna", Caption(1.0, 1.9, words), 1.9)
    stage.play(5.0, anna=[(1.0, 2.0), (2.6, 3.4)])
    whole = [("anna.0", 0, 0, False), ("anna.1", 1, 0, True)]
    assert places(stage) == (whole if over else [("anna.0", 0, 0, True), ("anna.0", 0, 1, True)])


def test_late_words_that_end_a_sentence_settle_it() -> None:
    stage = Stage("anna", captions=True)
    stage.play(2.45, anna=[(1.0, 2.0)])
    assert places(stage) == [("anna.0", 0, 0, True)]
    stage.out += stage.conversation.push_caption("anna", Caption(1.0, 1.9, "I did."), 2.45)
    assert [type(m) for m in stage.out[-2:]] == [Transcript, UtteranceSettled]
    stage.play(5.0, since_s=2.45, anna=[(2.6, 3.4)])
    assert [e.utterance_id for e in stage.ended()] == ["anna.0", "anna.1"]
