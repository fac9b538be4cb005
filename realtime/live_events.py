"""A session's events over HTTP: server-sent events, and the same over a WebSocket.

    GET /v1/sessions/{room or session id}/events?from=ID&final=1    text/event-stream
    GET /v1/sessions/{room or session id}/ws?from=ID&final=1        {"id": "…", "event": {…}} a message
    GET /v1/rooms/{room}                    {"room", "session_id", "purpose", "recorded"}

A subscriber is one handler that reads Redis for itself and waits for its own client: who reads slowly, or
not at all, holds up nobody, and what waits for them waits in Redis.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from aiohttp import web

from realtime.access import grant_of
from realtime.errors import SignalingError
from realtime.redis_events import EventLog
from realtime.refusals import refusing, require_name
from realtime.seats import OpenSession
from realtime.sockets import PROTOCOL

T = TypeVar("T")
Entry = tuple[str, dict[str, Any]]  # id in the stream, event

_START_S = 5.0  # for Redis to say whether there is such a session
_POLL_MS = 1000  # the longest that a client who has gone is not noticed
_COUNT = 100
_RETRY_MS = 2000  # after which a browser's EventSource comes back
_ID = re.compile(r"[0-9]{1,19}(-[0-9]{1,19})?")  # fits the 64 bits of Redis


@dataclass(frozen=True, slots=True)
class LiveEventsConfig:
    """Limits of the subscribers of one process."""

    max_subscribers: int = 200  # each holds a connection to Redis
    heartbeat_s: float = 15.0  # a comment after so much silence, so that nothing between takes us for dead
    write_s: float = 20.0  # a client that takes nothing for so long is let go


@dataclass(frozen=True, slots=True)
class _Wanted:
    session_id: str
    after_id: str
    finals: bool
    over: bool  # the session has closed and the client has all of it


class LiveEvents:
    """The subscribers of this process and their routes.

    `session_of` gives the open session of a room, `records` says whether its sessions are recorded.
    """

    def __init__(
        self,
        log: EventLog,
        session_of: Callable[[str], OpenSession | None],
        config: LiveEventsConfig = LiveEventsConfig(),
        records: Callable[[str], bool] = lambda _room: False,
    ) -> None:
        self._log = log
        self._session_of = session_of
        self._config = config
        self._records = records
        self._closing = False
        self.subscribers = 0

    def add_routes(self, app: web.Application) -> None:
        """Put the routes on `app`; its shutdown ends every subscription."""
        app.router.add_get("/v1/sessions/{session}/events", refusing(self._events), allow_head=False)
        app.router.add_get("/v1/sessions/{session}/ws", refusing(self._socket), allow_head=False)
        app.router.add_get("/v1/rooms/{room}", refusing(self._room))
        app.on_shutdown.append(self._close)

    async def _close(self, _: web.Application) -> None:
        self._closing = True

    async def _room(self, request: web.Request) -> web.Response:
        """What somebody should know before they enter: who is there, what for, and whether it is kept."""
        room = require_name("room", request.match_info["room"])
        grant_of(request).require(room, "publish", "subscribe")
        session = self._session_of(room)
        told = {"session_id": session.id, "purpose": session.purpose} if session else {}
        body = {"room": room, "session_id": None, "purpose": None, "recorded": self._records(room)} | told
        return web.json_response(body, headers={"Cache-Control": "no-store"})

    async def _events(self, request: web.Request) -> web.StreamResponse:
        wanted = await self._wanted(request)
        if wanted.over:
            return web.Response(status=204)  # what tells an EventSource to stay away
        with self._place():
            response = web.StreamResponse(
                headers={
                    "Content-Type": "text/event-stream; charset=utf-8",
                    "Cache-Control": "no-store",
                    "X-Accel-Buffering": "no",
                }
            )
            await response.prepare(request)

            async def write(text: str) -> None:
                async with asyncio.timeout(self._config.write_s):
                    await response.write(text.encode())

            def gone() -> bool:
                return request.transport is None or request.transport.is_closing()

            try:
                # The id alone: a client that is cut off before the first event comes back to this very place.
                await write(f"retry: {_RETRY_MS}\nid: {wanted.after_id}\n\n")
                async with aclosing(self._batches(wanted, gone)) as batches:
                    async for batch in batches:
                        await write("".join(map(_sse, batch)) or ": alive\n\n")
            except (ConnectionError, TimeoutError):
                if request.transport is not None:
                    request.transport.abort()  # what it did not take is in Redis still
            return response

    async def _socket(self, request: web.Request) -> web.StreamResponse:
        wanted = await self._wanted(request)
        with self._place():
            ws = web.WebSocketResponse(
                protocols=(PROTOCOL,), heartbeat=self._config.heartbeat_s, max_msg_size=1024, timeout=2.0
            )
            await ws.prepare(request)
            listening = asyncio.create_task(_until_closed(ws), name="events socket")
            try:
                if not wanted.over:
                    async with aclosing(self._batches(wanted, listening.done)) as batches:
                        async for batch in batches:
                            for entry_id, event in batch:
                                async with asyncio.timeout(self._config.write_s):
                                    await ws.send_str(_json({"id": entry_id, "event": event}))
                await ws.close(code=1001 if self._closing else 1000)
            except (ConnectionError, TimeoutError):
                if request.transport is not None:
                    request.transport.abort()
            finally:
                listening.cancel()
                await asyncio.gather(listening, return_exceptions=True)
            return ws

    # ---- one subscription

    async def _wanted(self, request: web.Request) -> _Wanted:
        name = require_name("session", request.match_info["session"])
        after_id = request.headers.get("Last-Event-ID") or request.query.get("from") or "$"
        if after_id != "$" and not _ID.fullmatch(after_id):
            raise SignalingError(400, "from, and Last-Event-ID, must be a stream id such as 0 or 1764-0")
        final = request.query.get("final", "0")
        if final not in ("0", "1"):
            raise SignalingError(400, "final must be 0 or 1")
        session = self._session_of(name)
        session_id = session.id if session else name
        room, purpose = (name, session.purpose) if session else await self._recorded(session_id)
        grant_of(request).require(room, "subscribe")
        newest = await self._in_time(self._log.newest(session_id))
        if newest is None and session is None:
            raise SignalingError(404, "there is no such session, and no such room with an open one")
        grant_of(request).require_purpose(purpose)
        newest_id = newest[0] if newest else "0"
        if after_id == "$":
            after_id = newest_id
        closed = newest is not None and newest[1]["type"] == "session.closed"
        over = closed and _order(after_id) >= _order(newest_id)
        return _Wanted(session_id, after_id, final == "1", over)

    async def _recorded(self, session_id: str) -> tuple[str | None, str | None]:
        """Room and purpose of a session by its own events; without any, the name may be that of a room.

        The room is None where the beginning is kept no longer: only a token for all rooms reaches it then.
        """
        first = await self._in_time(self._log.read(session_id, "0", 0, 1))
        return (first[0][1].get("room"), first[0][1].get("purpose")) if first else (session_id, None)

    async def _in_time(self, answer: Coroutine[Any, Any, T]) -> T:
        try:
            async with asyncio.timeout(_START_S):
                return await answer
        except TimeoutError:
            raise SignalingError(503, "Redis is away; try again in a few seconds") from None

    @contextmanager
    def _place(self) -> Iterator[None]:
        if self._closing or self.subscribers >= self._config.max_subscribers:
            raise SignalingError(503, "this server has as many subscribers as it takes; try again later")
        self.subscribers += 1
        try:
            yield
        finally:
            self.subscribers -= 1

    async def _batches(self, wanted: _Wanted, gone: Callable[[], bool]) -> AsyncGenerator[list[Entry], None]:
        """Entries as they come, [] after each heartbeat's silence; ends with the session, or its reader."""
        clock = asyncio.get_running_loop().time
        last_id, silent_since = wanted.after_id, clock()
        while not self._closing and not gone():
            entries = await self._log.read(wanted.session_id, last_id, _POLL_MS, _COUNT)
            last_id = entries[-1][0] if entries else last_id
            told = [entry for entry in entries if not wanted.finals or _is_final(entry[1])]
            if told or clock() - silent_since >= self._config.heartbeat_s:
                silent_since = clock()
                yield told
            if entries and entries[-1][1]["type"] == "session.closed":
                return


def _is_final(event: dict[str, Any]) -> bool:
    """The last word on an utterance, or on the session: a reader of finals has to know the end as well."""
    return bool(event.get("is_final")) or event["type"] == "session.closed"


def _order(entry_id: str) -> tuple[int, int]:
    milliseconds, _, number = entry_id.partition("-")
    return int(milliseconds), int(number or 0)


def _sse(entry: Entry) -> str:
    return f"id: {entry[0]}\ndata: {_json(entry[1])}\n\n"


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


async def _until_closed(ws: web.WebSocketResponse) -> None:
    """Nothing is expected of the client, but its pongs and its goodbye have to be read."""
    async for _ in ws:
        pass
