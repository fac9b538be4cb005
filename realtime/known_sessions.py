"""Sessions as Redis knows them, for a person: list, find by name, look at one, have one closed.

Reads types and totals of events, never what was said or felt. Every method raises RedisError in an outage.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from realtime.errors import OperatorError
from realtime.redis_bus import RedisConfig
from realtime.redis_cluster import Client
from realtime.redis_pages import entries, paged
from realtime.register import Held

CLOSE_S = 15  # how long a request to close waits for the ingest, which looks every second
MIN_PREFIX = 8  # characters of a session id that may stand for all of it

State = Literal["open", "closed", "unheld"]
_ID = re.compile("[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class Session:
    """One session at a glance; None is what cannot be known cheaply."""

    id: str
    room: str | None
    started_at: str | None  # ISO 8601, UTC
    state: State  # "unheld": its end is not published, and no ingest holds it
    reason: str | None  # why it closed
    participants: int | None  # seated now
    utterances: int | None  # started
    events: int  # kept in its stream


@dataclass(frozen=True, slots=True)
class Key:
    """One key of a session."""

    name: str
    type: str
    ttl_s: int  # -1 = it never ends


@dataclass(frozen=True, slots=True)
class Details:
    """All that is told of one session."""

    session: Session
    fields: dict[str, str]  # of its state hash
    events: dict[str, int]  # how many of each type
    totals: dict[str, int] | None  # of its closing event
    keys: list[Key]


class KnownSessions:
    """The sessions of an installation."""

    def __init__(self, client: Client, config: RedisConfig) -> None:
        self._client = client
        self._keys = config.keys

    async def all(self) -> list[Session]:
        """Every session that Redis has a key of, in order of their start."""
        ids = {
            self._keys.session_of(key.decode())
            async for key in self._client.scan_iter(self._keys.any_session, count=1000)
        }
        found: list[Session] = []
        for some in paged(sorted(ids)):
            found += await self._glance(some)
        return sorted(found, key=lambda session: (session.started_at or "", session.id))

    async def find(self, name: str) -> Session:
        """The one session of this id, or of a prefix of it, or of this room. Raises OperatorError.

        Of a room with several sessions the open one is meant, if there is just one.
        """
        every = await self.all()
        meant = [session for session in every if session.id == name]
        meant = meant or [session for session in every if session.room == name]
        if len(meant) > 1:
            meant = [session for session in meant if session.state == "open"] or meant
        if not meant and len(name) >= MIN_PREFIX:
            meant = [session for session in every if session.id.startswith(name)]
        if not meant:
            raise OperatorError(
                f"Redis knows no session or room {name!r}: give a room, a session id or {MIN_PREFIX} or more "
                "of its first characters, see `cmath-stream session list`"
            )
        if len(meant) > 1:
            ids = ", ".join(session.id for session in meant)
            raise OperatorError(f"{name!r} is {len(meant)} sessions: say which one by its id: {ids}")
        return meant[0]

    async def details(self, session: Session) -> Details:
        """Everything that may be shown of a session."""
        state: Any = await self._client.hgetall(self._keys.state(session.id))
        types: Counter[str] = Counter()
        totals = None
        async for _, fields in entries(self._client, self._keys.events(session.id)):
            event = json.loads(fields[b"event"])
            types[event["type"]] += 1
            totals = event.get("totals", totals)
        names = [key async for key in self._client.scan_iter(self._keys.all_of(session.id), count=1000)]
        pipe = self._client.pipeline(transaction=False)
        for name in sorted(names):
            pipe.type(name)
            pipe.ttl(name)
        answers = await pipe.execute()
        keys = [
            Key(name.decode(), kind.decode(), ttl_s)
            for name, kind, ttl_s in zip(sorted(names), answers[::2], answers[1::2], strict=True)
            if ttl_s != -2  # it has just ended
        ]
        told = {name.decode(): value.decode(errors="replace") for name, value in state.items()}
        return Details(session, told, dict(sorted(types.items())), totals, keys)

    async def close(self, session: Session, patience_s: float = CLOSE_S) -> None:
        """Ask the ingest that holds the session to close it, and wait until it has.

        Raises OperatorError where it is not open, or nobody closes it within `patience_s`.
        """
        if session.state == "closed":
            raise OperatorError(f"session {session.id} has closed already ({session.reason})")
        if session.state == "unheld":
            raise OperatorError(
                f"no ingest holds session {session.id}: nobody can close it, and nothing can come into it; "
                "its end is published when `worker fuse` has read it, or never if its ingest died"
            )
        request, held = self._keys.close(session.id), self._keys.held(session.id)
        await self._client.set(request, "1", ex=CLOSE_S)
        end_s = time.monotonic() + patience_s
        is_held = True
        while is_held and time.monotonic() < end_s:
            await asyncio.sleep(0.1)
            is_held = bool(await self._client.exists(held))
        if await self._client.unlink(request):
            raise OperatorError(f"session {session.id} was not closed: its ingest does not answer any more")
        if is_held:
            raise OperatorError(
                f"session {session.id} is still open after {patience_s:g} s: its ingest has begun to close it"
            )

    async def _glance(self, ids: Sequence[str]) -> list[Session]:
        pipe = self._client.pipeline(transaction=False)
        for session_id in ids:
            events = self._keys.events(session_id)
            pipe.get(self._keys.held(session_id))
            pipe.xlen(events)
            pipe.xrange(events, count=1)
            pipe.xrevrange(events, count=1)
        answers = await pipe.execute()
        return [_session(each, *answers[4 * n : 4 * n + 4]) for n, each in enumerate(ids)]


def is_id(name: str) -> bool:
    """Whether this is a whole session id, of a session that is known or not."""
    return _ID.fullmatch(name) is not None


def _event(entries: Any) -> dict[str, Any]:
    event: dict[str, Any] = json.loads(entries[0][1][b"event"]) if entries else {"type": ""}
    return event


def _session(session_id: str, told: bytes | None, count: int, first: Any, last: Any) -> Session:
    begin, end = _event(first), _event(last)
    held = Held.from_json(told) if told else None
    closed = end["type"] == "session.closed"
    state: State = "closed" if closed else "open" if held else "unheld"
    utterances = end["totals"]["started"] if closed else held.utterances if held else None
    return Session(
        session_id,
        held.room if held else begin.get("room"),  # the first event may have been trimmed away
        begin.get("started_at") if begin["type"] == "session.started" else None,
        state,
        end["reason"] if closed else None,
        held.participants if held and not closed else None,
        utterances,
        count,
    )
