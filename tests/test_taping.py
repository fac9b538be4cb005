"""Recorded sessions: what is on a tape, who is recorded, and that a tape played again is the same session."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cmath_stream.replaying.feeds import Asked, open_feed
from cmath_stream.sources import tapes
from realtime import tape
from realtime.conversation import Conversation, ConversationConfig
from realtime.errors import BusError, MediaError, SettingsError
from realtime.listener import Listener, hear
from realtime.messages import AudioChunk, Caption, Message, Picture, Segment, UtteranceEnded
from realtime.recording import Recording
from realtime.sealed import SealedReader, SealedWriter
from realtime.segmenter import HeardFrame, SegmenterConfig
from realtime.tape_writer import Tape
from realtime.taping import TapeConfig, TapedConversation, Taping
from realtime.vad import VadModel

KEY = bytes(range(32))
CONFIG = ConversationConfig(SegmenterConfig(min_silence_s=0.25), caption_grace_s=0.6)
SPEECH = Path("cmath_stream/demo/anna.opus")
HEARD = [HeardFrame(AudioChunk(np.linspace(-1, 1, 512, dtype=np.float32), 0.1), 0.123456789, 0.01)]
ENTRIES: list[tape.Entry] = [
    tape.Opened("room", "research", "arrival", 1_700_000_000_000, {"nonverbal": True}),
    tape.Joined("änna", 0.25, True, False, True, "1-recorded"),
    tape.Heard("änna", 1 / 3, tuple(tape.in_16_bits(HEARD))),
    tape.Seen("änna", Picture(b"\xff\n\n{", 120)),
    tape.Said("änna", 0.5, Caption(0.1, 0.4, "so\n{}", "en")),
    tape.Ticked(0.55),
    tape.Answered("änna.0", {"visual": "no_face"}),
    tape.Left("änna", 0.6, "hangup"),
    tape.Closed(0.7, "empty"),
]


def plain(value: Any) -> Any:
    """Comparable: arrays as bytes."""
    if isinstance(value, np.ndarray):
        return value.tobytes()
    if isinstance(value, tuple | list):
        return tuple(map(plain, value))
    if hasattr(value, "__dataclass_fields__"):
        return (type(value).__name__, *(plain(getattr(value, name)) for name in value.__dataclass_fields__))
    return value


class Kept(list[tape.Entry]):
    def put(self, entry: tape.Entry) -> None:
        self.append(entry)


@cache
def heard() -> list[dict[str, list[HeardFrame]]]:
    """Twelve seconds of two people, a tenth of a second at a time; the second one repeats the first."""
    vad = VadModel()
    chunks = list(Recording.open(SPEECH).audio())[:400]
    pcm = np.concatenate([chunk.pcm for chunk in chunks])[: 12 * 16_000]
    ears = {"anna": Listener(CONFIG.segmenter.stall_s), "ben": Listener(CONFIG.segmenter.stall_s)}
    found = []
    for at in range(0, len(pcm), 1600):
        piece = pcm[at : at + 1600] * np.float32(0.7)
        chunks = [AudioChunk(piece, at / 16_000 + shift_s) for shift_s in (0.0, 0.313)]
        frames = hear(vad, list(zip(ears.values(), chunks, strict=True)))
        found.append(dict(zip(ears, frames, strict=True)))
    return found


def two_people(talk: Conversation) -> list[Message]:
    """A call with an overlap, captions, pictures, somebody who comes back, and early starts."""
    said = list(talk.start("room", "research", "arrival"))
    said += talk.join("anna", 0.0, audio=True, video=True, captions=True, consent="1-recorded")
    said += talk.join("ben", 0.013, audio=True, video=False, captions=False, consent="1-recorded")
    for n, frames_of in enumerate(heard()):
        now_s = (n + 1) / 10
        for pid, frames in frames_of.items():
            said += talk.push_audio(pid, frames, now_s, early=n % 3 > 0)
        talk.push_picture("anna", Picture(b"jpeg%d" % n, round(now_s * 1000)))
        if n % 40 == 27:
            said += talk.push_caption("anna", Caption(now_s - 2.0, now_s - 0.2, f"words {n}"), now_s)
        said += talk.expire(now_s + 0.05)
    said += talk.leave("ben", 12.1, "hangup")
    said += talk.join("ben", 12.2, audio=True, video=False, captions=False, consent="1-recorded")
    return said + talk.close(13.0, "empty")


def final(messages: list[Message]) -> list[Any]:
    """What the workers and the fusion are left with: without early starts, attempts and the wall clock."""
    kept: dict[str, Segment] = {}
    told = []
    for message in messages:
        match message:
            case Segment():
                kept[message.utterance_id] = replace(message, early=False, attempt=0, deadline_unix_ms=0)
            case UtteranceEnded():
                told.append(replace(message, attempt=0, decided_unix_ms=0))
    return plain([*told, *kept.values()])  # type: ignore[no-any-return]


def test_an_entry_comes_back_as_it_was() -> None:
    piece = b"".join(map(tape.to_bytes, ENTRIES))
    assert plain(list(tape.from_bytes([piece, piece]))) == plain(ENTRIES * 2)


def test_sound_in_16_bits_is_the_same_sound_again() -> None:
    once = tape.in_16_bits(HEARD)
    assert plain(once) == plain(tape.in_16_bits(once))
    assert np.abs(once[0].chunk.pcm - HEARD[0].chunk.pcm).max() <= 1 / 32768
    assert (once[0].p, once[0].lost_s, once[0].chunk.start_s) == (0.123456789, 0.01, 0.1)


def test_played_again_it_is_the_same_conversation() -> None:
    kept = Kept()
    live = two_people(TapedConversation(kept, "s", CONFIG, 1_700_000_000_000, 0.2))  # type: ignore[arg-type]
    assert any(isinstance(message, Segment) and message.early for message in live)
    read = tape.from_bytes(map(tape.to_bytes, kept))
    again = list(tapes.messages("s", read, lambda _s: None))
    assert final(again) == final(live)
    assert len([each for each in again if isinstance(each, UtteranceEnded)]) > 3
    assert plain(again[-1]) == plain(live[-1])


def test_a_tape_that_was_cut_ends_as_if_everybody_had_hung_up() -> None:
    kept = Kept()
    two_people(TapedConversation(kept, "s", CONFIG, 0, 0.0))  # type: ignore[arg-type]
    half = kept[: len(kept) // 2]
    again = list(tapes.messages("s", half, lambda _s: None))
    started = {each.utterance_id for each in again if type(each).__name__ == "UtteranceStarted"}  # type: ignore[union-attr]
    assert started == {each.utterance_id for each in again if isinstance(each, UtteranceEnded)} != set()
    assert type(again[-1]).__name__ == "SessionClosed"


# ---- the file


@pytest.fixture
def config(tmp_path: Path) -> TapeConfig:
    (tmp_path / "key").write_text(KEY.hex())
    return TapeConfig(str(tmp_path / "tapes"), str(tmp_path / "key"), ("study-*", "lab"))


class Feed:
    """Events as they become known."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    async def read(
        self, session_id: str | None, after_id: str, block_ms: int, count: int
    ) -> list[tuple[str, dict[str, Any]]]:
        await asyncio.sleep(0.01)
        return [(str(n + 1), event) for n, event in enumerate(self.events) if n >= int(after_id)]


def emotion(uid: str, missing: dict[str, str], *, is_final: bool = True) -> dict[str, Any]:
    told: dict[str, Any] = {name: {"used": True} for name in ("text", "audio", "visual")}
    told |= {name: {"used": False, "reason": why} for name, why in missing.items()}
    return {"type": "emotion.utterance", "utterance_id": uid, "is_final": is_final, "modalities": told}


def talking(taping: Taping, room: str = "study-1", session_id: str = "ab" * 16) -> Conversation:
    return taping.conversation(room, session_id, CONFIG, 1_700_000_000_000, 0.2)


async def test_a_session_of_a_named_room_is_kept_with_what_its_utterances_went_without(
    config: TapeConfig,
) -> None:
    feed = Feed()
    taping = Taping(config, feed)
    live = two_people(talking(taping))
    feed.events += [
        emotion("anna.0", {"visual": "deadline"}, is_final=False),
        emotion("anna.0", {"visual": "no_face"}),
        emotion("ben.0", {}),
        {"type": "session.closed"},
    ]
    await taping.close(5.0)
    path = config.path_of("ab" * 16)
    reader = SealedReader(path, KEY)
    found = tapes.look_through(reader)
    assert found.missing == {"anna.0": {"visual": "no_face"}, "ben.0": {}}
    assert (found.whole, found.opened.room, found.length_s) == (True, "room", 13.0)
    again = list(tapes.messages("s", tape.from_bytes(reader), lambda _s: None))
    live_of_s = [replace(each, session_id="s") for each in live]
    assert final(again) == final(live_of_s)
    assert b"study" not in path.read_bytes() and "study" not in path.name


async def test_other_rooms_are_not_recorded(config: TapeConfig, tmp_path: Path) -> None:
    taping = Taping(config, Feed())
    assert [taping.records(room) for room in ("study-", "lab", "lab2", "own")] == [True, True, False, False]
    assert type(talking(taping, "own")) is Conversation
    await taping.close(0.0)
    assert list((tmp_path / "tapes").iterdir()) == []
    nothing = Taping(TapeConfig(rooms=("*",)), Feed())  # no folder: off, whatever else is said
    assert type(talking(nothing)) is Conversation and not nothing.records("lab")
    await nothing.close(0.0)


async def test_a_shutdown_does_not_wait_for_answers_for_ever(config: TapeConfig) -> None:
    taping = Taping(config, Feed())
    two_people(talking(taping))
    await taping.close(0.1)
    assert tapes.look_through(SealedReader(config.path_of("ab" * 16), KEY)).whole


def test_recordings_without_a_key_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="recordings are sealed: key_file must name a key"):
        TapeConfig(folder=str(tmp_path))
    with pytest.raises(SettingsError, match="cannot be read"):
        Taping(TapeConfig(str(tmp_path), str(tmp_path / "key"), ("*",)), Feed())
    (tmp_path / "key").write_text(KEY.hex())
    with pytest.raises(SettingsError, match=r"tape\.folder .*key/x: Not a directory"):
        Taping(TapeConfig(str(tmp_path / "key" / "x"), str(tmp_path / "key"), ("*",)), Feed())


async def test_where_nothing_can_be_written_the_call_goes_on(
    config: TapeConfig, caplog: pytest.LogCaptureFixture
) -> None:
    taping = Taping(config, Feed())
    path = config.path_of("ab" * 16)
    path.write_bytes(b"there already")
    two_people(talking(taping))
    await taping.close(0.0)
    assert path.read_bytes() == b"there already"
    assert caplog.messages == ["the recording of session abababab ends here: File exists"]


async def test_a_redis_that_refuses_for_a_while_ends_no_tape(config: TapeConfig) -> None:
    class Refusing(Feed):
        refusals = 2

        async def read(self, *asked: Any) -> list[tuple[str, dict[str, Any]]]:
            self.refusals -= 1
            if self.refusals >= 0:
                raise BusError("events: Redis refuses: UNBLOCKED")
            return await super().read(*asked)

    feed = Refusing()
    feed.events += [emotion("anna.0", {"visual": "no_face"}), {"type": "session.closed"}]
    taping = Taping(config, feed)
    two_people(talking(taping))
    await taping.close(5.0)
    found = tapes.look_through(SealedReader(config.path_of("ab" * 16), KEY))
    assert (found.missing, found.whole) == ({"anna.0": {"visual": "no_face"}}, True)


async def test_a_tape_of_a_session_without_an_end_is_not_whole(config: TapeConfig) -> None:
    taping = Taping(config, Feed())
    talk = talking(taping)
    talk.start("room", None, "arrival")
    await taping.close(0.05)
    assert not tapes.look_through(SealedReader(config.path_of("ab" * 16), KEY)).whole


async def test_no_picture_of_who_is_read_by_words_alone(config: TapeConfig) -> None:
    taping = Taping(config, Feed())
    talk = taping.conversation("lab", "ab" * 16, replace(CONFIG, text_only=True), 0, 0.0)
    two_people(talk)
    await taping.close(0.0)
    kinds = {type(entry) for entry in tape.from_bytes(SealedReader(config.path_of("ab" * 16), KEY))}
    assert tape.Heard in kinds and tape.Seen not in kinds


# ---- a disk that fails, or hangs


class Disk(SealedWriter):
    def __init__(self, path: Path, write: Callable[[], None]) -> None:
        super().__init__(path, KEY)
        self._before = write

    def write(self, piece: bytes) -> None:
        self._before()
        super().write(piece)


def test_a_full_disk_ends_the_tape_and_not_the_call(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def full() -> None:
        raise OSError(28, "No space left on device")

    with ThreadPoolExecutor(1) as thread:
        kept = Tape(lambda: Disk(tmp_path / "a", full), thread, "abcd")
        talk = TapedConversation(kept, "s", CONFIG, 0, 0.0)
        said = two_people(talk)
        thread.submit(lambda: None).result()
        kept.put(tape.Ticked(1.0))
        kept.end()
    assert plain(said) == plain(two_people(TapedConversation(Kept(), "s", CONFIG, 0, 0.0)))  # type: ignore[arg-type]
    (record,) = [each for each in caplog.records if each.levelno == logging.ERROR]
    assert "recording of session abcd ends here: No space left" in record.message


def test_a_disk_that_fails_at_the_very_end_is_said_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Full(SealedWriter):
        def close(self) -> None:
            raise OSError(28, "No space left on device")

    with ThreadPoolExecutor(1) as thread:
        kept = Tape(lambda: Full(tmp_path / "a", KEY), thread, "abcd")
        kept.put(tape.Closed(1.0, "empty"))
        kept.end()
    assert caplog.messages == ["the recording of session abcd ends here: No space left on device"]
    assert not (reader := SealedReader(tmp_path / "a", KEY)).whole and len(list(reader)) == 1


def test_a_disk_that_hangs_is_not_waited_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    hangs = threading.Event()
    with ThreadPoolExecutor(1) as thread:
        kept = Tape(lambda: Disk(tmp_path / "a", lambda: None if hangs.wait(20) else None), thread, "abcd")
        picture = tape.Seen("anna", Picture(bytes(64 * 1024), 0))
        for _ in range(400):
            kept.put(picture)
        hangs.set()
    assert "the disk cannot follow" in caplog.text
    assert len(list(SealedReader(tmp_path / "a", KEY))) <= 256


# ---- replaying


def test_a_tape_wants_its_key(config: TapeConfig, tmp_path: Path) -> None:
    asked = Asked((tmp_path / "a.tape",))
    writer = SealedWriter(tmp_path / "a.tape", KEY)
    with pytest.raises(MediaError, match=r"a.tape is sealed: say where its key is, as tape\.key_file"):
        open_feed(asked, TapeConfig())
    with pytest.raises(MediaError, match="a.tape: nothing was recorded"):
        open_feed(asked, config)
    writer.abandon()


def test_a_tape_of_another_version_is_said_to_be_one(config: TapeConfig, tmp_path: Path) -> None:
    opened = tape.Opened("r", None, "arrival", 0, {"nonverbal": True})
    newer = replace(opened, conversation={"of_tomorrow": 1})
    for name, piece, told in (
        ("settings", tape.to_bytes(newer), "other settings than are known here: unknown setting of_tomorrow"),
        ("entry", tape.to_bytes(opened) + b'{"is":"Smelt","bytes":0}\n', "entries unknown here .Smelt."),
    ):
        writer = SealedWriter(tmp_path / f"{name}.tape", KEY)
        writer.write(piece)
        writer.abandon()
        with pytest.raises(MediaError, match=told):
            open_feed(Asked((tmp_path / f"{name}.tape",)), config)
