"""Rooms and sessions on a real clock with real speech: queues, linger, return, shutdown."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from realtime.errors import BusError, SignalingError
from realtime.messages import (
    AudioChunk,
    Caption,
    Message,
    ParticipantJoined,
    Segment,
    SessionClosed,
    SessionStarted,
    UtteranceEnded,
    UtteranceStarted,
)
from realtime.recording import Recording
from realtime.seats import OpenSession
from realtime.session import LiveSeat, Rooms, SessionConfig
from realtime.vad import VadModel
from tests.conftest import until

SPEECH = Path("cmath_stream/demo/anna.opus")
CONFIG = SessionConfig(linger_s=0.2, tick_s=0.01)


class Outlet(list[Message]):
    def of(self, kind: type) -> list[Message]:
        return [message for message in self if isinstance(message, kind)]


@pytest.fixture
def outlet() -> Outlet:
    return Outlet()


@pytest.fixture
async def rooms(outlet: Outlet) -> AsyncIterator[Rooms]:
    rooms = Rooms(CONFIG, VadModel(), outlet.append)
    yield rooms
    await rooms.close()


async def join(rooms: Rooms, pid: str = "anna", room: str = "r") -> LiveSeat:
    return await rooms.join(room, pid, captions=False, audio=True, video=False, purpose=None)


def say(seat: LiveSeat, seconds: float, at_s: float = 0.0) -> None:
    """The first seconds of the demo's Anna, in 20 ms pieces (her first line: 0.6 s to 2.7 s)."""
    for chunk in Recording.open(SPEECH).audio():
        for first in range(0, len(chunk.pcm), 320):
            start_s = chunk.start_s + first / 16_000
            if start_s >= seconds:
                return
            seat.push_audio(AudioChunk(chunk.pcm[first : first + 320], at_s + start_s))


async def test_speech_becomes_messages_in_order(rooms: Rooms, outlet: Outlet) -> None:
    seat = await join(rooms)
    say(seat, 3.2)
    await until(lambda: bool(outlet.of(UtteranceEnded)))
    kinds = [type(message) for message in outlet]
    assert kinds == [SessionStarted, ParticipantJoined, UtteranceStarted, Segment, UtteranceEnded]
    (segment,) = outlet.of(Segment)
    assert isinstance(segment, Segment)
    assert segment.start_ms == pytest.approx(600, abs=200) and segment.end_ms == pytest.approx(2665, abs=300)
    await seat.leave("bye")


async def test_a_track_that_stops_mid_word_ends_by_the_clock(rooms: Rooms, outlet: Outlet) -> None:
    seat = await join(rooms)
    say(seat, 1.5)
    await until(lambda: bool(outlet.of(UtteranceEnded)))
    (ended,) = outlet.of(UtteranceEnded)
    assert isinstance(ended, UtteranceEnded) and ended.end_ms <= 1501
    await seat.leave("bye")


async def test_leaving_hears_what_is_queued_and_flushes(rooms: Rooms, outlet: Outlet) -> None:
    seat = await join(rooms)
    say(seat, 1.5)
    await seat.leave("bye")
    assert len(outlet.of(UtteranceStarted)) == len(outlet.of(UtteranceEnded)) == 1
    await seat.leave("again")  # idempotent


async def test_a_return_within_the_linger_time_continues_the_session(rooms: Rooms, outlet: Outlet) -> None:
    first = await join(rooms)
    await first.leave("network")
    second = await join(rooms)
    assert second.session_id == first.session_id
    assert rooms.open_session("r") == OpenSession(first.session_id, None)
    await second.leave("bye")
    await until(lambda: bool(outlet.of(SessionClosed)))
    assert rooms.open_session("r") is None
    third = await join(rooms)
    assert third.session_id != first.session_id
    await third.leave("bye")


async def test_a_seat_is_taken_once(rooms: Rooms) -> None:
    seat = await join(rooms)
    with pytest.raises(SignalingError) as refused:
        await join(rooms)
    assert refused.value.status == 409
    await seat.leave("bye")


async def test_a_flood_of_audio_is_bounded(outlet: Outlet) -> None:
    rooms = Rooms(replace(CONFIG, audio_queue_s=1.0), VadModel(), outlet.append)
    seat = await join(rooms)
    for n in range(1000):  # 20 s at once, without a pause for the reader
        seat.push_audio(AudioChunk(np.zeros(320, np.float32), n * 0.02))
    assert len(seat._ear._queue) <= 51
    await seat.leave("bye")
    await rooms.close()


async def test_one_bad_chunk_costs_itself_not_the_participant(rooms: Rooms, outlet: Outlet) -> None:
    seat = await join(rooms)
    seat.push_audio(AudioChunk(np.zeros((2, 2), np.float32), 0.0))  # not sound at all
    say(seat, 3.2)
    await until(lambda: bool(outlet.of(UtteranceEnded)))
    await seat.leave("bye")


async def test_messages_that_cannot_be_sent_end_neither_the_session_nor_its_room() -> None:
    def full(_: Message) -> None:
        raise BusError("outbox is full")

    rooms = Rooms(CONFIG, VadModel(), full)
    seat = await join(rooms)
    say(seat, 3.2)
    await seat.leave("bye")
    await until(lambda: rooms.open_session("r") is None)
    assert (await join(rooms)).session_id != seat.session_id
    await rooms.close()


async def test_early_start_ends_where_jobs_wait(outlet: Outlet) -> None:
    unread: list[int | None] = [0]
    config = replace(CONFIG, early_backlog=2)
    rooms = Rooms(config, VadModel(), outlet.append, unread=lambda: unread[0])
    for n, (waiting, early) in enumerate([(0, True), (2, True), (3, False), (None, False)]):
        unread[0] = waiting
        seat = await join(rooms, room=f"r{n}")
        say(seat, 3.2)
        await until(lambda n=n: len(outlet.of(UtteranceEnded)) == n + 1)  # type: ignore[misc]
        segment = outlet.of(Segment)[-1]
        assert isinstance(segment, Segment) and segment.early is early
        await seat.leave("bye")
    await rooms.close()


async def test_early_start_can_be_switched_off(outlet: Outlet) -> None:
    rooms = Rooms(replace(CONFIG, early_start_s=0.0), VadModel(), outlet.append)
    seat = await join(rooms)
    say(seat, 3.2)
    await until(lambda: bool(outlet.of(UtteranceEnded)))
    assert [s.early for s in outlet.of(Segment) if isinstance(s, Segment)] == [False]
    await seat.leave("bye")
    await rooms.close()


async def test_no_session_begins_while_the_workers_are_behind(outlet: Outlet) -> None:
    unread: list[int | None] = [None]
    rooms = Rooms(CONFIG, VadModel(), outlet.append, unread=lambda: unread[0])
    await join(rooms)  # nobody knows: nobody is refused
    unread[0] = CONFIG.full_backlog + 1
    with pytest.raises(SignalingError, match="workers are behind") as refused:
        await join(rooms, room="new")
    assert refused.value.status == 503
    await rooms.join("r", "ben", captions=False, audio=True, video=False, purpose=None)  # it has begun
    unread[0] = CONFIG.full_backlog
    await join(rooms, room="new")
    await rooms.close()


@pytest.mark.parametrize("bad", [{"early_start_s": -0.1}, {"early_backlog": -1}, {"full_backlog": 3}])
def test_config_refuses_nonsense(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        SessionConfig(**bad)


async def test_a_full_house_refuses_with_its_reason(outlet: Outlet) -> None:
    rooms = Rooms(CONFIG, VadModel(), outlet.append, lambda: "too much waits")
    with pytest.raises(SignalingError, match="too much waits") as refused:
        await join(rooms)
    assert refused.value.status == 503
    await rooms.close()


async def test_leaving_while_the_house_closes_hears_everything(outlet: Outlet) -> None:
    rooms = Rooms(CONFIG, VadModel(), outlet.append)
    seat = await join(rooms)
    say(seat, 3.2)
    await asyncio.gather(seat.leave("bye"), rooms.close(), seat.leave("again"))
    assert len(outlet.of(UtteranceEnded)) == 1 and len(outlet.of(SessionClosed)) == 1


async def test_words_alone_make_utterances(rooms: Rooms, outlet: Outlet) -> None:
    seat = await rooms.join("r", "anna", captions=True, audio=False, video=False, purpose=None)
    seat.push_caption(Caption(0.0, 0.5, "hello there"))
    assert len(outlet.of(UtteranceEnded)) == 1
    await seat.leave("bye")


async def test_shutdown_closes_every_session(outlet: Outlet) -> None:
    rooms = Rooms(CONFIG, VadModel(), outlet.append)
    for room in ("r", "q"):
        say(await join(rooms, room=room), 1.5)
    await rooms.close()
    assert len(outlet.of(SessionClosed)) == 2
    assert len(outlet.of(UtteranceEnded)) == len(outlet.of(UtteranceStarted)) == 2
    assert [t for t in asyncio.all_tasks() if t.get_name().startswith(("listen", "session"))] == []
