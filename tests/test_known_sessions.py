"""Sessions as an operator sees them, and closing one: a real ingest's rooms on one side, Redis between."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from cmath_stream import events
from realtime.errors import OperatorError, SignalingError
from realtime.known_sessions import KnownSessions, is_id
from realtime.messages import Caption, Message, SessionClosed, SessionStarted
from realtime.redis_bus import RedisConfig
from realtime.redis_cluster import Client
from realtime.redis_events import EventLog
from realtime.register import BEAT_S, HELD_S, Held, Register
from realtime.seats import OpenSession
from realtime.session import LiveSeat, Rooms, SessionConfig
from realtime.vad import VadModel
from tests.calls import ToneTrack, calling, serving
from tests.conftest import until

CONFIG = RedisConfig(shards=2)
A, B = "a" * 32, "aaaaaaaab" + "c" * 23
SECRET = "nobody may read this"


class Ingest:
    """Rooms whose session is told to Redis."""

    def __init__(self, client: Client) -> None:
        self.sent: list[Message] = []
        self.rooms = Rooms(SessionConfig(tick_s=0.01), VadModel(), self.sent.append)
        self.register = Register(client, CONFIG, lambda: self.rooms.sessions)

    async def join(self, room: str = "r", pid: str = "anna") -> LiveSeat:
        return await self.rooms.join(room, pid, captions=True, audio=False, video=False, purpose=None)


@pytest.fixture
async def ingest(redis_client: Client) -> AsyncIterator[Ingest]:
    ingest = Ingest(redis_client)
    yield ingest
    await ingest.rooms.close()


@pytest.fixture
async def running(ingest: Ingest) -> AsyncIterator[Ingest]:
    task = asyncio.create_task(ingest.register.run(), name="register")
    yield ingest
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
def known(redis_client: Client) -> KnownSessions:
    return KnownSessions(redis_client, CONFIG)


async def tell(client: Client, *told: events.Event) -> None:
    log = EventLog(client, CONFIG)
    for event in told:
        await log.publish(event["session_id"], event["event_id"], events.to_json(event))


def started(sid: str, room: str = "standup", at_unix_ms: int = 1_790_000_000_000) -> events.Event:
    return events.session_started(SessionStarted(sid, room, at_unix_ms, "research", "arrival"))


def spoken(sid: str) -> events.Event:
    base = {"schema": events.SCHEMA, "type": "emotion.utterance", "event_id": "e1", "session_id": sid}
    return base | {"text": SECRET, "label": "joy"}


def closed(sid: str) -> events.Event:
    return events.session_closed(sid, 9000, "empty", {"started": 4, "emotions": 3, "dropped": 1})


async def test_open_closed_and_unheld(redis_client: Client, known: KnownSessions) -> None:
    await tell(redis_client, started(A), spoken(A), closed(A))
    await tell(redis_client, started(B, "lobby", 1_790_000_001_000))
    lost, done = B, A
    held = "d" * 32  # whose events the fusion has not published yet
    await redis_client.set(CONFIG.keys.held(held), Held("desk", 2, 5).to_json(), ex=HELD_S)
    found = {session.id: session for session in await known.all()}
    assert list(found) == [held, done, lost]  # in order of their start, the unknown one first
    assert (found[done].state, found[done].reason, found[done].utterances) == ("closed", "empty", 4)
    assert (found[done].room, found[done].events) == ("standup", 3)
    assert found[done].started_at == "2026-09-21T14:13:20.000Z"
    assert (found[lost].state, found[lost].room, found[lost].utterances) == ("unheld", "lobby", None)
    assert (found[held].state, found[held].room, found[held].participants) == ("open", "desk", 2)


async def test_other_keys_are_no_sessions(redis_client: Client) -> None:
    odd = RedisConfig(prefix="e[m]o*:")
    await EventLog(redis_client, odd).publish("s", "e", events.to_json(started("s")))
    await EventLog(redis_client, CONFIG).publish("t", "e", events.to_json(started("t")))
    await redis_client.xadd(odd.keys.segments(0), {"v": "1"}, maxlen=10)
    assert [session.id for session in await KnownSessions(redis_client, odd).all()] == ["s"]


async def test_a_name_must_mean_one_session(redis_client: Client, known: KnownSessions) -> None:
    await tell(redis_client, started(A), started(B))
    assert (await known.find(A)).id == A
    assert (await known.find(B[:9])).id == B
    for name, said in (("standup", "is 2 sessions"), (A[:8], "is 2 sessions"), (A[:7], "knows no session")):
        with pytest.raises(OperatorError, match=said):
            await known.find(name)
    await redis_client.set(CONFIG.keys.held(B), Held("standup", 1, 0).to_json(), ex=HELD_S)
    assert (await known.find("standup")).id == B  # the one that is open


async def test_details_tell_counts_and_no_words(redis_client: Client, known: KnownSessions) -> None:
    await tell(redis_client, started(A), spoken(A), closed(A))
    await redis_client.set(CONFIG.keys.blob(A, "anna.0", 0, "pcm"), b"sound", ex=300)
    details = await known.details(await known.find(A))
    assert details.events == {"emotion.utterance": 1, "session.closed": 1, "session.started": 1}
    assert details.totals == {"started": 4, "emotions": 3, "dropped": 1}
    assert details.fields == {"seq": "3"}
    assert {key.name for key in details.keys} == {
        *(f"emo:{{{A}}}:{name}" for name in ("done", "events", "state")),
        f"emo:blob:{{{A}}}:anna.0:0:pcm",
    }
    assert all(0 < key.ttl_s <= CONFIG.session_ttl_s for key in details.keys)
    assert SECRET not in repr(details) and "joy" not in repr(details)


# ---- the ingest's side ---------------------------------------------------------------------------------


async def test_an_ingest_tells_what_it_holds(
    redis_client: Client, ingest: Ingest, known: KnownSessions
) -> None:
    seat = await ingest.join()
    seat.push_caption(Caption(0.0, 0.5, SECRET))
    await ingest.register.look()
    (session,) = await known.all()
    assert (session.id, session.room, session.state) == (seat.session_id, "r", "open")
    assert (session.participants, session.utterances) == (1, 1)
    key = CONFIG.keys.held(seat.session_id)
    assert BEAT_S < await redis_client.ttl(key) <= HELD_S
    assert json.loads(await redis_client.get(key) or "") == {"room": "r", "participants": 1, "utterances": 1}
    await ingest.rooms.close()
    await ingest.register.look()
    assert not await redis_client.exists(key)  # at once, and not when it expires


async def test_close_reaches_the_ingest_that_holds_it(running: Ingest, known: KnownSessions) -> None:
    seat, other = await running.join(), await running.join("q")
    seat.push_caption(Caption(0.0, 0.5, "hello"))
    await until(lambda: known_open(known, 2))
    await known.close(await known.find("r"))
    (end,) = [message for message in running.sent if isinstance(message, SessionClosed)]
    assert (end.session_id, end.reason, end.started) == (seat.session_id, "operator", 1)
    assert seat.over and not other.over  # by which its peer sees that it has to go
    assert running.rooms.open_session("r") is None
    assert running.rooms.open_session("q") == OpenSession(other.session_id, None)
    assert (await running.join()).session_id != seat.session_id


async def known_open(known: KnownSessions, count: int) -> bool:
    return sum(session.state == "open" for session in await known.all()) == count


async def test_who_is_in_a_session_that_is_closed_is_disconnected(
    running: Ingest, known: KnownSessions
) -> None:
    async with serving(running.rooms) as url, calling(f"{url}/whip/r", ToneTrack()) as call:
        await call.ready()
        await until(lambda: known_open(known, 1))
        await known.close(await known.find("r"))
        await until(lambda: call.pc.connectionState == "closed", timeout_s=10)
        async with call.http.delete(call.resource) as answer:
            assert answer.status == 404


async def test_nobody_is_seated_while_the_session_closes(ingest: Ingest) -> None:
    seat = await ingest.join()
    (session,) = ingest.rooms.sessions
    session.end("operator")
    with pytest.raises(SignalingError) as refused:
        await ingest.join(pid="ben")
    assert refused.value.status == 503
    await ingest.rooms.close()  # waits for the same end
    assert seat.over and sum(isinstance(message, SessionClosed) for message in ingest.sent) == 1


async def test_what_nobody_holds_cannot_be_closed(redis_client: Client, known: KnownSessions) -> None:
    await tell(redis_client, started(A), closed(A), started(B, "lobby"))
    with pytest.raises(OperatorError, match="has closed already"):
        await known.close(await known.find(A))
    with pytest.raises(OperatorError, match="no ingest holds"):
        await known.close(await known.find("lobby"))
    await redis_client.set(CONFIG.keys.held(B), Held("lobby", 1, 0).to_json(), ex=HELD_S)  # and it died
    with pytest.raises(OperatorError, match="does not answer"):
        await known.close(await known.find("lobby"), patience_s=0.3)
    assert not await redis_client.exists(CONFIG.keys.close(B))  # no request waits for the next one


def test_an_id_is_told_from_a_name() -> None:
    assert is_id("0" * 32) and not is_id("0" * 31) and not is_id("standup") and not is_id("0" * 31 + "\n")


@pytest.mark.parametrize("told", [Held("r", 1, 2)])
def test_what_is_held_survives_redis(told: Any) -> None:
    assert Held.from_json(told.to_json()) == told
