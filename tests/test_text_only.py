"""Who is read by their words alone: no voice and no face is ever read, and every event says so."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from cmath_stream.cli import app
from realtime import wire
from realtime.conversation import Conversation, ConversationConfig
from realtime.errors import SignalingError
from realtime.messages import Caption, FeaturesMissing, Message, Picture, Segment
from realtime.session import Rooms, SessionConfig
from realtime.vad import VadModel
from tests.conftest import make_segment, until
from workers.audio import VoiceExtractor, VoiceExtractorConfig
from workers.worker import needs_media

SPEECH = Path("cmath_stream/demo/anna.opus")


def said(config: ConversationConfig) -> Segment:
    """An utterance of somebody who is seen."""
    talk = Conversation("s", config, 0)
    talk.start("r", None, "arrival")
    talk.join("anna", 0.0, audio=False, video=True, captions=True)
    talk.push_picture("anna", Picture(b"jpeg", 500))
    told = talk.push_utterance(
        "anna", Caption(0.0, 1.0, "hi"), np.zeros(9, np.float32), [Picture(b"x", 600)], 1.0
    )
    (segment,) = [message for message in told if isinstance(message, Segment)]
    return segment


def test_pictures_are_dropped_where_they_come_in() -> None:
    assert said(ConversationConfig()).pictures
    segment = said(ConversationConfig(text_only=True))
    assert (segment.pictures, segment.visual_reason, segment.text_only) == ((), "text_only", True)
    assert segment.text == "hi"


def test_a_voice_is_not_read() -> None:
    segment = replace(make_segment(), text_only=True)
    extractor = VoiceExtractor(VoiceExtractorConfig())  # not loaded: it has nothing to do
    (answer,) = extractor.extract([segment])
    assert isinstance(answer, FeaturesMissing) and answer.reason == "text_only"
    assert [needs_media(modality, segment) for modality in ("text", "audio", "visual")] == [
        True,
        False,
        False,
    ]
    fields, blobs = wire.encode(segment), wire.media_sizes(wire.encode(segment))
    assert blobs and wire.decode_segment(fields, None, None).text_only


async def test_nobody_is_let_in_for_words_alone_where_voices_are_read() -> None:
    config = SessionConfig(tick_s=0.01, text_only_for=("support",))
    rooms = Rooms(config, VadModel(), lambda _message: None)
    await rooms.join("r", "anna", captions=True, audio=False, video=True, purpose=None)
    with pytest.raises(
        SignalingError, match="this purpose is served by words alone, and the room's session is"
    ):
        await rooms.join("r", "ben", captions=True, audio=False, video=True, purpose="support")
    await rooms.close()


@pytest.mark.parametrize(("purpose", "expected"), [("support", True), ("research", False), (None, False)])
async def test_a_purpose_may_be_served_by_words_alone(purpose: str | None, expected: bool) -> None:
    sent: list[Message] = []
    config = SessionConfig(tick_s=0.01, text_only_for=("support",))
    rooms = Rooms(config, VadModel(), sent.append)
    seat = await rooms.join("r", "anna", captions=True, audio=False, video=True, purpose=purpose)
    seat.push_picture(Picture(b"jpeg", 500))
    seat.push_caption(Caption(0.0, 1.0, "hi"))
    await until(lambda: any(isinstance(message, Segment) for message in sent))
    await rooms.close()
    assert [message.text_only for message in sent if isinstance(message, Segment)] == [expected]


@pytest.mark.slow
def test_a_replay_by_words_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CMATH_STREAM__SESSION__CONVERSATION__TEXT_ONLY", "true")
    monkeypatch.setenv("CMATH_STREAM__TEXT__WHISPER", "none")
    out = tmp_path / "out.jsonl"
    words = SPEECH.with_suffix(".captions.json")
    done = CliRunner().invoke(app, ["replay", str(SPEECH), "--captions", str(words), "--out", str(out)])
    assert done.exit_code == 0, done.output
    events = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
    emotions = [event for event in events if event["type"] == "emotion.utterance"]
    assert len(emotions) == 8
    for event in emotions:
        told = event["modalities"]
        assert told["text"]["used"]
        assert {(told[name]["used"], told[name]["reason"]) for name in ("audio", "visual")} == {
            (False, "text_only")
        }
