"""Sessions that are recorded: only where the operator names a folder, a key and rooms, and everybody agreed.

A recorded session's conversation puts whatever goes into it on its tape first.
"""

from __future__ import annotations

import asyncio
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Protocol

from realtime import tape
from realtime.conversation import Conversation, ConversationConfig
from realtime.errors import CmathStreamError, SettingsError
from realtime.messages import Caption, Message, Picture
from realtime.sealed import SealedWriter, read_key
from realtime.segmenter import HeardFrame
from realtime.settings import to_dict
from realtime.tape_writer import Tape

log = logging.getLogger(__name__)

SUFFIX = ".tape"
_POLL_MS = 1000
_COUNT = 100
_AGAIN_S = 0.5  # between two attempts


@dataclass(frozen=True, slots=True)
class TapeConfig:
    """What is recorded. Nothing, as long as no folder is named."""

    folder: str = ""
    key_file: str = ""  # 64 hexadecimal digits; whoever has them can hear the recordings
    rooms: tuple[str, ...] = ()  # names, with * and ? as in file names

    def __post_init__(self) -> None:
        if self.folder and not self.key_file:
            raise ValueError("recordings are sealed: key_file must name a key (openssl rand -hex 32)")

    def records(self, room: str) -> bool:
        """Whether sessions of this room are recorded."""
        return bool(self.folder) and any(fnmatchcase(room, pattern) for pattern in self.rooms)

    def path_of(self, session_id: str) -> Path:
        """The file of a session; its name says nothing of the room."""
        return Path(self.folder) / f"{session_id}{SUFFIX}"


class Events(Protocol):
    """Where the events of a session are read, see EventLog."""

    async def read(
        self, session_id: str | None, after_id: str, block_ms: int, count: int
    ) -> list[tuple[str, dict[str, Any]]]: ...


class Taping:
    """The tapes of one process."""

    def __init__(self, config: TapeConfig, events: Events) -> None:
        """`events`: they say what an utterance went without. Raises SettingsError."""
        self._config = config
        self._events = events
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="tape")
        if config.folder:
            self._key = read_key(Path(config.key_file))
            try:
                Path(config.folder).mkdir(mode=0o700, parents=True, exist_ok=True)
            except OSError as error:
                raise SettingsError(f"tape.folder {config.folder}: {error.strerror}") from None

    def records(self, room: str) -> bool:
        """Whether sessions of this room are recorded."""
        return self._config.records(room)

    def conversation(
        self, room: str, session_id: str, config: ConversationConfig, start_unix_ms: int, early_s: float
    ) -> Conversation:
        """A new conversation, on tape where the room's are."""
        if not self.records(room):
            return Conversation(session_id, config, start_unix_ms, early_s)
        path = self._config.path_of(session_id)
        kept = Tape(lambda: SealedWriter(path, self._key), self._thread, session_id[:8])
        task = asyncio.create_task(self._follow(session_id, kept), name=f"tape {session_id[:8]}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        log.info("session %s is recorded", session_id[:8])
        return TapedConversation(kept, session_id, config, start_unix_ms, early_s)

    async def close(self, patience_s: float) -> None:
        """Wait for the last answers so long, then end every tape."""
        late = set(self._tasks)
        if late:
            _, late = await asyncio.wait(late, timeout=patience_s)
        while late:  # redis-py may swallow a cancellation (asyncio.wait_for of Python 3.11)
            for task in late:
                task.cancel()
            _, late = await asyncio.wait(late, timeout=_AGAIN_S)
        await asyncio.to_thread(self._thread.shutdown)

    async def _follow(self, session_id: str, kept: Tape) -> None:
        """Put down what utterances went without, until the session's last event; then the tape is whole."""
        after = "0"
        try:
            while time.monotonic() < kept.until_s:
                try:
                    entries = await self._events.read(session_id, after, _POLL_MS, _COUNT)
                except CmathStreamError as error:  # a fail-over, say: the call goes on, and so does this
                    log.warning("tape of session %s: %s", session_id[:8], error)
                    await asyncio.sleep(_AGAIN_S)
                    continue
                for entry_id, event in entries:
                    after = entry_id
                    if event["type"] == "emotion.utterance" and event["is_final"]:
                        told = event["modalities"].items()
                        missing = {name: each["reason"] for name, each in told if not each["used"]}
                        kept.put(tape.Answered(event["utterance_id"], missing))
                    elif event["type"] == "session.closed":
                        return
        finally:
            kept.end()


class TapedConversation(Conversation):
    """A conversation whose inputs are kept.

    Who is recorded is also heard in the 16 bits that a tape has: both are the same samples.
    """

    def __init__(
        self, kept: Tape, session_id: str, config: ConversationConfig, start_unix_ms: int, early_s: float
    ) -> None:
        super().__init__(session_id, config, start_unix_ms, early_s)
        self._kept = kept

    def start(self, room: str, purpose: str | None, clock: str) -> list[Message]:
        """As in `Conversation`, and so are the others."""
        config = to_dict(self._config)
        self._kept.put(tape.Opened(room, purpose, clock, self._start_unix_ms, config))
        return super().start(room, purpose, clock)

    def join(
        self,
        pid: str,
        now_s: float,
        *,
        audio: bool,
        video: bool,
        captions: bool,
        consent: str | None = None,
    ) -> list[Message]:
        self._kept.put(tape.Joined(pid, now_s, audio, video, captions, consent))
        return super().join(pid, now_s, audio=audio, video=video, captions=captions, consent=consent)

    def push_audio(
        self, pid: str, frames: list[HeardFrame], now_s: float, *, early: bool = False
    ) -> list[Message]:
        frames = tape.in_16_bits(frames)
        self._kept.put(tape.Heard(pid, now_s, tuple(frames)))
        return super().push_audio(pid, frames, now_s, early=early)

    def push_picture(self, pid: str, picture: Picture) -> None:
        if not self._config.text_only:
            self._kept.put(tape.Seen(pid, picture))
        super().push_picture(pid, picture)

    def push_caption(self, pid: str, caption: Caption, now_s: float) -> list[Message]:
        self._kept.put(tape.Said(pid, now_s, caption))
        return super().push_caption(pid, caption, now_s)

    def expire(self, now_s: float) -> list[Message]:
        self._kept.put(tape.Ticked(now_s))
        return super().expire(now_s)

    def leave(self, pid: str, now_s: float, reason: str) -> list[Message]:
        self._kept.put(tape.Left(pid, now_s, reason))
        return super().leave(pid, now_s, reason)

    def close(self, now_s: float, reason: str) -> list[Message]:
        out = super().close(now_s, reason)  # whoever is still there leaves first, and that is kept by itself
        self._kept.put(tape.Closed(now_s, reason))
        return out
