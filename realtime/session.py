"""Rooms and their live sessions: the async shell around `Conversation`.

All audio is heard by one task of the process (realtime.hearing); one task a session lets the clock end what
media no longer will. A session outlives its participants by
`linger_s`, so that a reconnect continues the conversation.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from realtime import telemetry
from realtime.conversation import Conversation, ConversationConfig
from realtime.errors import CmathStreamError, SignalingError
from realtime.hearing import Ear, Hearing
from realtime.listener import Listener
from realtime.messages import (
    AudioChunk,
    Caption,
    Message,
    Picture,
    Segment,
    SegmentWithdrawn,
    UtteranceEnded,
    UtteranceStarted,
)
from realtime.seats import OpenSession
from realtime.segmenter import HeardFrame
from realtime.vad import VadModel
from realtime.wall_clock import NowMs, local_ms

log = logging.getLogger(__name__)
Emit = Callable[[Message], None]
Refuse = Callable[[], str | None]
Unread = Callable[[], int | None]
Converse = Callable[[str, str, ConversationConfig, int, float], Conversation]  # the room, and its arguments


@dataclass(frozen=True, slots=True)
class SessionConfig:
    """Life of a session."""

    conversation: ConversationConfig = field(default_factory=ConversationConfig)
    linger_s: float = 30.0  # a session closes this long after its last participant left
    tick_s: float = 0.05  # how often the clock is looked at
    audio_queue_s: float = 4.0  # audio waiting for the VAD; beyond it the oldest is dropped
    early_start_s: float = 0.2  # silence after which an utterance goes to the workers already; 0 = never
    early_backlog: int = 16  # unread jobs of the slowest extractor above which nothing starts early
    full_backlog: int = 64  # and above which no new session begins
    text_only_for: tuple[str, ...] = ()  # purposes whose sessions are read by their words alone

    def __post_init__(self) -> None:
        if self.early_start_s < 0 or not 0 <= self.early_backlog <= self.full_backlog:
            raise ValueError("early_start_s >= 0 and 0 <= early_backlog <= full_backlog must hold")


class Rooms:
    """The open session of each room. `emit` takes every message, in order, and never blocks."""

    def __init__(
        self,
        config: SessionConfig,
        vad: VadModel,
        emit: Emit,
        refuse: Refuse = lambda: None,
        unread: Unread = lambda: 0,
        now_ms: NowMs = local_ms,
        converse: Converse = lambda _room, *how: Conversation(*how),
    ) -> None:
        """`refuse` says why nobody new can be served just now, or None; `unread`, how many jobs the slowest
        extractor has not begun, None where that is not known. `converse` makes a session's conversation."""
        self._config = config
        self._refuse = refuse
        self._unread = unread
        self._now_ms = now_ms
        self._converse = converse
        self._early = False  # as it was allowed last
        self._hearing = Hearing(vad)
        self._emit = emit
        self._sessions: dict[str, LiveSession] = {}

    async def join(
        self,
        room: str,
        participant_id: str,
        *,
        captions: bool,
        audio: bool,
        video: bool,
        purpose: str | None,
        consent: str | None = None,
    ) -> LiveSeat:
        """Seat a participant; opens the room's session if there is none.

        Raises SignalingError 403 for a purpose that is served by words alone in a session that is not, 409
        when the participant is already seated, 503 when `refuse` says so, the room's session is just being
        closed, or the workers cannot follow those that there are already.
        """
        if reason := self._refuse():
            raise SignalingError(503, reason)
        session = self._sessions.get(room)
        words_alone = self._config.text_only_for
        if session is not None and purpose in words_alone and session.purpose not in words_alone:
            raise SignalingError(403, "this purpose is served by words alone, and the room's session is not")
        if session is None:
            unread = self._unread()
            if unread is not None and unread > self._config.full_backlog:
                raise SignalingError(503, "the workers are behind: no new session just now")
            session = self._sessions[room] = self._opened(room, purpose)
            telemetry.SESSIONS_ACTIVE.inc()
        config = self._config.conversation
        listener = Listener(config.segmenter.stall_s, nonverbal=config.nonverbal)
        return session.join(
            participant_id,
            self._hearing,
            listener,
            audio=audio,
            video=video,
            captions=captions,
            consent=consent,
        )

    def _opened(self, room: str, purpose: str | None) -> LiveSession:
        config = self._config
        talk = config.conversation
        if purpose in config.text_only_for:
            talk = replace(talk, text_only=True)
        conversation = self._converse(room, secrets.token_hex(16), talk, self._now_ms(), config.early_start_s)
        return LiveSession(
            room, purpose, config, conversation, self._emit, self._forget, self._may_start_early
        )

    def open_session(self, room: str) -> OpenSession | None:
        """The room's open session: its id and purpose, which are those of its first join."""
        session = self._sessions.get(room)
        return OpenSession(session.id, session.purpose) if session else None

    @property
    def sessions(self) -> tuple[LiveSession, ...]:
        """All that are open, or about to be closed."""
        return tuple(self._sessions.values())

    async def close(self) -> None:
        """Shut down: every session flushes and closes now."""
        closing = [session.close("shutdown") for session in self._sessions.values()]
        for result in await asyncio.gather(*closing, return_exceptions=True):
            if isinstance(result, BaseException):
                log.error("a session did not close well: %s", type(result).__name__)
        await self._hearing.close()

    def _may_start_early(self) -> bool:
        # Work that may be in vain is only for workers who have nothing else to do. Jobs that wait unread say
        # so directly, whatever makes the workers slow; our own count of early starts would not.
        unread = self._unread()
        early = unread is not None and unread <= self._config.early_backlog
        if early is not self._early:
            self._early = early
            log.info("early start is %s: %s jobs wait", "possible" if early else "not possible", unread)
        return early

    def _forget(self, room: str) -> None:
        if self._sessions.pop(room, None) is not None:
            telemetry.SESSIONS_ACTIVE.dec()


class LiveSession:
    """One conversation on the wall clock."""

    def __init__(
        self,
        room: str,
        purpose: str | None,
        config: SessionConfig,
        conversation: Conversation,
        emit: Emit,
        forget: Callable[[str], None],
        may_start_early: Callable[[], bool],
    ) -> None:
        self.id = conversation.session_id
        self.purpose = purpose
        self.room = room
        self._config = config
        self._emit = emit
        self._forget = forget
        self._may_start_early = may_start_early
        self._zero_s = time.monotonic()
        self._conversation = conversation
        self._seats: dict[str, LiveSeat] = {}
        self._empty_since_s: float | None = 0.0
        self._closing: asyncio.Task[None] | None = None
        self._closed = False
        self._failing = False  # messages are being lost; said once
        self._send(self._conversation.start(room, purpose, "arrival"))
        self._ticker = asyncio.create_task(self._tick(), name=f"session-{self.id[:8]}")
        log.info("session %s opened", self.id[:8])

    @property
    def size(self) -> int:
        """Participants seated now."""
        return len(self._seats)

    @property
    def utterances(self) -> int:
        """Utterances started so far."""
        return self._conversation.started

    def now_s(self) -> float:
        """Session clock, seconds since its first join."""
        return time.monotonic() - self._zero_s

    def join(
        self,
        pid: str,
        hearing: Hearing,
        listener: Listener,
        *,
        audio: bool,
        video: bool,
        captions: bool,
        consent: str | None = None,
    ) -> LiveSeat:
        """Seat one participant. Raises SignalingError as `Rooms.join` does."""
        if self._closing is not None:
            raise SignalingError(503, "this room's session is being closed; try again", retry_after_s=1.0)
        if pid in self._seats:
            raise SignalingError(409, "this participant is already in the room")
        joined = self._conversation.join(
            pid, self.now_s(), audio=audio, video=video, captions=captions, consent=consent
        )
        self._send(joined)
        self._empty_since_s = None
        seat = self._seats[pid] = LiveSeat(self, pid, hearing, listener, self._config.audio_queue_s)
        return seat

    def heard(self, pid: str, frames: list[HeardFrame]) -> None:
        """Audio of one participant, framed and judged."""
        early = self._may_start_early()
        self._send(self._conversation.push_audio(pid, frames, self.now_s(), early=early))

    def seen(self, pid: str, picture: Picture) -> None:
        """A picture of one participant."""
        self._conversation.push_picture(pid, picture)

    def captioned(self, pid: str, caption: Caption) -> None:
        """Words of one participant."""
        self._send(self._conversation.push_caption(pid, caption, self.now_s()))

    def left(self, pid: str, reason: str) -> None:
        """One participant went, after its last audio was heard."""
        del self._seats[pid]
        self._send(self._conversation.leave(pid, self.now_s(), reason))
        if not self._seats:
            self._empty_since_s = self.now_s()

    def end(self, reason: str) -> None:
        """Begin to flush and to end; nobody is seated any more."""
        if self._closing is None and not self._closed:
            self._closing = asyncio.create_task(self._close(reason), name=f"close-{self.id[:8]}")

    async def close(self, reason: str) -> None:
        """Flush and end. Whoever asks again waits for the same end."""
        self.end(reason)
        if self._closing is not None:
            await asyncio.shield(self._closing)

    async def _close(self, reason: str) -> None:
        try:
            for seat in list(self._seats.values()):
                await seat.leave(reason)
        finally:  # whatever became of a seat, the room is free again
            self._ticker.cancel()
            await asyncio.gather(self._ticker, return_exceptions=True)
            self._finish(reason)

    def _finish(self, reason: str) -> None:
        self._closed = True
        self._forget(self.room)
        self._send(self._conversation.close(self.now_s(), reason))
        telemetry.SESSIONS_TOTAL.labels(outcome=reason).inc()
        log.info("session %s closed: %s", self.id[:8], reason)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(self._config.tick_s)
            self._send(self._conversation.expire(self.now_s()))
            if (
                self._closing is None
                and self._empty_since_s is not None
                and self.now_s() - self._empty_since_s >= self._config.linger_s
            ):
                self._finish("empty")
                return

    def _send(self, messages: list[Message]) -> None:
        for message in messages:
            if isinstance(message, UtteranceEnded):
                telemetry.ENDPOINT_DELAY_SECONDS.observe(message.endpoint_ms / 1000)
            elif isinstance(message, UtteranceStarted):
                telemetry.UTTERANCES_TOTAL.labels(outcome="segmented").inc()
            elif isinstance(message, Segment) and message.early:
                telemetry.EARLY_STARTED_TOTAL.inc()
            elif isinstance(message, SegmentWithdrawn):
                telemetry.EARLY_DISCARDED_TOTAL.labels(reason=message.reason).inc()
            try:
                self._emit(message)
                self._failing = False
            except CmathStreamError as error:  # the conversation has moved on: each message stands for itself
                telemetry.UTTERANCES_TOTAL.labels(outcome="unsent").inc()
                if not self._failing:
                    log.error("session %s: messages are lost: %s", self.id[:8], error)
                self._failing = True


class LiveSeat:
    """Where one participant's media goes in. Every `push_*` returns at once."""

    def __init__(
        self, session: LiveSession, pid: str, hearing: Hearing, listener: Listener, queue_s: float
    ) -> None:
        self.participant_id = pid
        self.session_id = session.id
        self._session = session
        self._ear = Ear(hearing, listener, lambda frames: session.heard(pid, frames), queue_s)
        self._gone: asyncio.Task[None] | None = None

    @property
    def over(self) -> bool:
        """True once the place is given up."""
        return self._gone is not None

    def now_s(self) -> float:
        """Session clock, seconds."""
        return self._session.now_s()

    def push_audio(self, chunk: AudioChunk) -> None:
        """Queue audio; if the VAD cannot follow, the oldest goes and is counted."""
        if self._gone is None:
            self._ear.push(chunk)

    def push_picture(self, picture: Picture) -> None:
        """Keep a picture for the utterances around it."""
        if self._gone is None:
            self._session.seen(self.participant_id, picture)

    def push_caption(self, caption: Caption) -> None:
        """Words, on the session clock."""
        if self._gone is None:
            self._session.captioned(self.participant_id, caption)

    async def leave(self, reason: str) -> None:
        """Hear what is queued, flush the open utterance, go. Whoever asks again waits for the same end."""
        if self._gone is None:
            self._gone = asyncio.create_task(self._go(reason), name=f"leave-{self.session_id[:8]}")
        await asyncio.shield(self._gone)

    async def _go(self, reason: str) -> None:
        await self._ear.heard()
        self._session.left(self.participant_id, reason)
