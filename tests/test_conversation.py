"""Order, announcements and media of a whole conversation, without a clock or a network."""

from __future__ import annotations

import numpy as np
import pytest

from realtime.conversation import Conversation, ConversationConfig
from realtime.messages import (
    SAMPLE_RATE_HZ,
    AudioChunk,
    Caption,
    Message,
    ParticipantLeft,
    Picture,
    Segment,
    SessionClosed,
    Transcript,
    UtteranceEnded,
    UtteranceStarted,
)
from realtime.segmenter import HeardFrame, SegmenterConfig

FRAME_S = 512 / SAMPLE_RATE_HZ
CONFIG = ConversationConfig(SegmenterConfig(threshold=0.5, release=0.35, min_speech_s=0.12, pad_s=0.06))


class Stage:
    """Plays spoken spans of several people frame by frame."""

    def __init__(self, *people: str, **join: bool) -> None:
        self.conversation = Conversation("s", CONFIG, start_unix_ms=1_000_000)
        self.out: list[Message] = []
        self.spans: dict[str, list[tuple[float, float]]] = {}
        for pid in people:
            flags = {"audio": True, "video": False, "captions": False} | join
            self.out += self.conversation.join(pid, 0.0, **flags)

    def play(self, until_s: float, since_s: float = 0.0, **spans: list[tuple[float, float]]) -> None:
        for n in range(round(since_s / FRAME_S), round(until_s / FRAME_S)):
            at_s = n * FRAME_S
            for pid, spoken in spans.items():
                p = 0.95 if any(a <= at_s < b for a, b in spoken) else 0.02
                frame = HeardFrame(AudioChunk(np.zeros(512, np.float32), at_s), p)
                self.out += self.conversation.push_audio(pid, [frame], at_s + FRAME_S)
            self.out += self.conversation.expire(at_s + FRAME_S)

    def of(self, kind: type) -> list[Message]:
        return [message for message in self.out if isinstance(message, kind)]

    def ended(self) -> list[UtteranceEnded]:
        return [message for message in self.out if isinstance(message, UtteranceEnded)]


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
