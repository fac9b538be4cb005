"""What the ingest needs of the room behind it, and no more. `realtime.session` implements it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from realtime.messages import AudioChunk, Caption, Picture


class Seat(Protocol):
    """One participant's place in a session. Every `push_*` returns at once; times are session seconds."""

    @property
    def session_id(self) -> str: ...

    @property
    def participant_id(self) -> str: ...

    @property
    def over(self) -> bool:
        """True once the place is given up, by whoever sat there or because its session was closed."""
        ...

    def now_s(self) -> float:
        """Session clock: seconds since the session's first join."""
        ...

    def push_audio(self, chunk: AudioChunk) -> None: ...

    def push_picture(self, picture: Picture) -> None: ...

    def push_caption(self, caption: Caption) -> None: ...

    async def leave(self, reason: str) -> None:
        """Flush the open utterance and go. Idempotent; nothing is pushed after it."""
        ...


@dataclass(frozen=True, slots=True)
class OpenSession:
    """The conversation that a room holds just now."""

    id: str
    purpose: str | None


class Rooms(Protocol):
    """The open session of each room."""

    def open_session(self, room: str) -> OpenSession | None: ...

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
    ) -> Seat:
        """Seat a participant. Raises SignalingError 503 (full) or 409 (already seated)."""
        ...
