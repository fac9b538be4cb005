"""Real recordings through the whole offline line, scored against the turns that people marked."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.segmentation import Clip, Result, clips, replayed
from cmath_stream.config import Settings
from cmath_stream.offline import build
from cmath_stream.scoring import SegmentationScore
from realtime import settings
from realtime.conversation import Conversation, ConversationConfig
from realtime.listener import Listener, hear
from realtime.messages import Message, Segment
from realtime.recording import Recording
from realtime.vad import VadModel

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def conversations(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Clip]:
    return list(clips(data_dir / "clips", tmp_path_factory.mktemp("tracks")))


@pytest.fixture(scope="module")
def results(conversations: list[Clip]) -> list[Result]:
    machine = build(settings.build(Settings, {"text": {"whisper": "none"}}))
    return [replayed(machine, clip) for clip in conversations]


def test_every_utterance_ends_in_one_final_event_and_twice_in_the_same_bytes(results: list[Result]) -> None:
    assert len(results) == 6
    for result in results:
        assert result.started == result.ended > 0, result.name
        assert result.same_bytes, result.name


@pytest.mark.parametrize("prefix", ["two_person_call", "meeting"])
def test_segmentation_meets_its_marks(results: list[Result], prefix: str) -> None:
    total = sum((r.score for r in results if r.name.startswith(prefix) and r.score), SegmentationScore())
    assert total.coverage >= 0.90, total
    assert total.non_speech <= 0.15, total
    assert total.onset_recall >= 0.80, total
    assert total.overlong == 0, total


def test_first_words_are_not_cut(conversations: list[Clip]) -> None:
    """The sound kept of an utterance begins before its turn does."""
    call, model = conversations[0], VadModel()
    conversation = Conversation("s", ConversationConfig(), 0)
    segments: list[Message] = []
    for person in call.people:
        pid = person.participant_id
        conversation.join(pid, 0.0, audio=True, video=False, captions=False)
        listener = Listener(0.5)
        for chunk in Recording.open(person.path).audio():
            segments += conversation.push_audio(pid, hear(model, [(listener, chunk)])[0], chunk.end_s)
        segments += conversation.leave(pid, chunk.end_s, "end_of_file")
    kept = [segment for segment in segments if isinstance(segment, Segment)]
    for turn in call.turns:
        own = [s for s in kept if s.participant_id == turn.speaker and s.end_ms / 1000 > turn.start_s]
        first = min(own, key=lambda s: s.start_ms)
        assert first.pcm_start_ms / 1000 <= turn.start_s
