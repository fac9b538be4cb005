"""A room that remembers: the seats of `realtime.seats` for tests, with the behaviour the ingest relies on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import numpy as np

from realtime.errors import SignalingError
from realtime.messages import SAMPLE_RATE_HZ, AudioChunk, Caption, Pcm, Picture
from realtime.seats import OpenSession


class FakeSeat:
    """Records what arrives and when; refuses media after `leave`, as no real seat would take it."""

    def __init__(self, rooms: FakeRooms, room: str, participant_id: str, offered: dict[str, bool]) -> None:
        self.session_id = f"session-of-{room}"
        self.participant_id = participant_id
        self.offered = offered
        self.audio: list[AudioChunk] = []
        self.audio_at_s: list[float] = []  # when each chunk arrived
        self.pictures: list[Picture] = []
        self.picture_at_s: list[float] = []
        self.captions: list[Caption] = []
        self.left: str | None = None
        self._rooms = rooms
        self._room = room

    @property
    def over(self) -> bool:
        return self.left is not None

    def now_s(self) -> float:
        return time.monotonic() - self._rooms.zero_s

    def push_audio(self, chunk: AudioChunk) -> None:
        assert self.left is None
        self.audio.append(chunk)
        self.audio_at_s.append(self.now_s())
        self._rooms.stir()

    def push_picture(self, picture: Picture) -> None:
        assert self.left is None
        self.pictures.append(picture)
        self.picture_at_s.append(self.now_s())
        self._rooms.stir()

    def push_caption(self, caption: Caption) -> None:
        assert self.left is None
        self.captions.append(caption)
        self._rooms.stir()

    async def leave(self, reason: str) -> None:
        if self.left is None:
            self.left = reason
            self._rooms.seated.discard((self._room, self.participant_id))
            self._rooms.stir()

    def sound(self) -> tuple[float, Pcm]:
        """All audio as one signal, holes as zeros, and the time of its first sample."""
        start_s = self.audio[0].start_s
        pcm = np.zeros(round((self.audio[-1].end_s - start_s) * SAMPLE_RATE_HZ) + 1, np.float32)
        for chunk in self.audio:
            at = round((chunk.start_s - start_s) * SAMPLE_RATE_HZ)
            pcm[at : at + len(chunk.pcm)] = chunk.pcm
        return start_s, pcm


class FakeRooms:
    """Seats everybody once, until told to be full."""

    def __init__(self) -> None:
        self.zero_s = time.monotonic()
        self.seats: list[FakeSeat] = []
        self.seated: set[tuple[str, str]] = set()
        self.open: dict[str, OpenSession] = {}  # and stays open, as while a session lingers
        self.consents: list[str | None] = []  # of each seat
        self.full = False
        self._changed = asyncio.Event()

    def open_session(self, room: str) -> OpenSession | None:
        return self.open.get(room)

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
    ) -> FakeSeat:
        if self.full:
            raise SignalingError(503, "full")
        if (room, participant_id) in self.seated:
            raise SignalingError(409, "already seated")
        self.seated.add((room, participant_id))
        seat = FakeSeat(self, room, participant_id, {"captions": captions, "audio": audio, "video": video})
        self.seats.append(seat)
        self.consents.append(consent)
        self.open.setdefault(room, OpenSession(seat.session_id, purpose))
        return seat

    def stir(self) -> None:
        """Something arrived: let those who wait look again."""
        self._changed.set()

    async def until(self, condition: Callable[[], object], timeout_s: float = 10.0) -> None:
        """Wait for a condition on what was recorded; no fixed sleeps."""
        async with asyncio.timeout(timeout_s):
            while not condition():
                self._changed.clear()
                await self._changed.wait()
