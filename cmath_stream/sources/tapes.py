"""A recorded live session, played again into a conversation like the one it was.

The settings that decide on utterances are those of the recording; the models are this replay's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from realtime import tape
from realtime.conversation import Conversation, ConversationConfig
from realtime.errors import MediaError, SettingsError
from realtime.messages import Message
from realtime.sealed import SealedReader
from realtime.settings import build
from realtime.taping import SUFFIX


@dataclass(slots=True)
class Contents:
    """What is known of a tape once it was read through."""

    opened: tape.Opened
    missing: dict[str, Mapping[str, str]] = field(default_factory=dict)  # by utterance, why by modality
    length_s: float = 0.0
    whole: bool = False


def is_tape(path: Path) -> bool:
    """By its name."""
    return path.suffix.lower() == SUFFIX


def look_through(reader: SealedReader) -> Contents:
    """Read all of it once. Raises MediaError."""
    entries = tape.from_bytes(reader)
    opened = next(entries, None)
    if not isinstance(opened, tape.Opened):
        raise MediaError(f"{reader.path.name}: nothing was recorded, not even the beginning of a session")
    _config(opened)
    found = Contents(opened)
    for entry in entries:
        if isinstance(entry, tape.Answered):
            found.missing[entry.utterance_id] = entry.missing
        elif isinstance(entry, tape.Ticked | tape.Left | tape.Closed):
            found.length_s = max(found.length_s, entry.now_s)
    found.whole = reader.whole
    return found


def messages(
    session_id: str, entries: Iterable[tape.Entry], on_progress: Callable[[float], None]
) -> Iterator[Message]:
    """The session from start to close; a tape that was cut ends where it was, as if everybody had hung up.

    `on_progress` gets the seconds reached.
    """
    conversation: Conversation | None = None
    now_s, closed = 0.0, False
    for entry in entries:
        if isinstance(entry, tape.Opened):
            conversation = Conversation(session_id, _config(entry), start_unix_ms=0)
            yield from conversation.start(entry.room, entry.purpose, entry.clock)
        assert conversation is not None
        match entry:
            case tape.Joined():
                yield from conversation.join(
                    entry.participant, entry.now_s, audio=entry.audio, video=entry.video,
                    captions=entry.captions, consent=entry.consent,
                )  # fmt: skip
            case tape.Heard():
                yield from conversation.push_audio(entry.participant, list(entry.frames), entry.now_s)
            case tape.Seen():
                conversation.push_picture(entry.participant, entry.picture)
            case tape.Said():
                yield from conversation.push_caption(entry.participant, entry.caption, entry.now_s)
            case tape.Ticked():
                now_s = entry.now_s
                on_progress(now_s)
                yield from conversation.expire(now_s)
            case tape.Left():
                yield from conversation.leave(entry.participant, entry.now_s, entry.reason)
            case tape.Closed():
                closed = True
                yield from conversation.close(entry.now_s, entry.reason)
    if conversation is not None and not closed:
        yield from conversation.close(now_s, "recording_cut")


def _config(opened: tape.Opened) -> ConversationConfig:
    try:
        return build(ConversationConfig, opened.conversation)
    except SettingsError as error:
        raise MediaError(f"the recording was made with other settings than are known here: {error}") from None
