"""Signalling between the people of a room who see and hear each other: a relay that understands nothing.

`GET /v1/rooms/{room}/mesh?participant=NAME` as a WebSocket:

    server → client   {"type": "welcome", "peers": ["ann"], "ice_servers": [{"urls": …}]}    to who enters
                      {"type": "joined", "peer": "ben"}  {"type": "left", "peer": "ben"}   to the others
                      {"type": "signal", "from": "ben", "data": …}
    client → server   {"to": "ann", "data": …}

Media never come here: they go from browser to browser. Who enters makes the offers, so that no two cross.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import WSMsgType, web

from realtime.access import grant_of
from realtime.rate_limit import RateLimit
from realtime.refusals import refusing, require_name
from realtime.sockets import PROTOCOL
from realtime.turn import IceServer

FULL = 1013  # close codes (RFC 6455 §7.4): try again later
POLICY = 1008  # a message that makes no sense, or too many of them
REPLACED = 4001  # the same participant came in once more


@dataclass(frozen=True, slots=True)
class MeshConfig:
    """Limits of the relay. A mesh costs each person one upload per other one: four is what homes bear."""

    people: int = 4  # in one room
    rooms: int = 256
    message_bytes: int = 32 * 1024  # an SDP with its candidates has 3 to 8 KiB
    burst: int = 120  # messages at once, of one person
    per_s: float = 20.0  # and in the long run
    waiting: int = 256  # messages that wait for a slow reader before it is let go
    heartbeat_s: float = 10.0


@dataclass(slots=True)
class _Member:
    ws: web.WebSocketResponse
    waiting: asyncio.Queue[str]
    over: asyncio.Event = field(default_factory=asyncio.Event)
    code: int = 1000

    def tell(self, message: dict[str, Any]) -> None:
        try:
            self.waiting.put_nowait(json.dumps(message, ensure_ascii=False, separators=(",", ":")))
        except asyncio.QueueFull:
            self.end(POLICY)

    def end(self, code: int) -> None:
        if not self.over.is_set():
            self.code = code
            self.over.set()


class Mesh:
    """Who is where, in this process."""

    def __init__(
        self, ice_servers: Callable[[], list[IceServer]] = list, config: MeshConfig = MeshConfig()
    ) -> None:
        self._ice_servers = ice_servers
        self._config = config
        self._rooms: dict[str, dict[str, _Member]] = {}

    def add_routes(self, app: web.Application) -> None:
        """Put the relay on `app`; its shutdown ends every connection."""
        app.router.add_get("/v1/rooms/{room}/mesh", refusing(self._enter), allow_head=False)
        app.on_shutdown.append(self._close)

    async def _close(self, _: web.Application) -> None:
        for members in self._rooms.values():
            for member in members.values():
                member.end(1001)

    async def _enter(self, request: web.Request) -> web.StreamResponse:
        room = require_name("room", request.match_info["room"])
        grant = grant_of(request)
        grant.require(room, "publish")
        name = require_name("participant", grant.named(request.query.get("participant") or None) or "")
        ws = web.WebSocketResponse(
            protocols=(PROTOCOL,), heartbeat=self._config.heartbeat_s,
            max_msg_size=self._config.message_bytes, timeout=2.0,
        )  # fmt: skip
        await ws.prepare(request)
        member = _Member(ws, asyncio.Queue(self._config.waiting))
        if not self._seat(room, name, member):  # after the upgrade, so that a browser's page learns why
            await ws.close(code=FULL, message=b"this room is full")
            return ws
        tasks = [
            asyncio.create_task(self._listen(room, name, member), name="mesh listen"),
            asyncio.create_task(_speak(member), name="mesh speak"),
            asyncio.create_task(member.over.wait(), name="mesh over"),
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._leave(room, name, member)
        await ws.close(code=member.code)
        return ws

    def _seat(self, room: str, name: str, member: _Member) -> bool:
        members = self._rooms.get(room, {})
        before = members.get(name)
        if before is None and (
            len(members) >= self._config.people or (not members and len(self._rooms) >= self._config.rooms)
        ):
            return False
        if before is not None:
            self._leave(room, name, before)
            before.end(REPLACED)
        members = self._rooms.setdefault(room, {})
        member.tell({"type": "welcome", "peers": list(members), "ice_servers": self._ice_servers()})
        for other in members.values():
            other.tell({"type": "joined", "peer": name})
        members[name] = member
        return True

    def _leave(self, room: str, name: str, member: _Member) -> None:
        members = self._rooms.get(room, {})
        if members.get(name) is not member:
            return  # it was replaced
        del members[name]
        for other in members.values():
            other.tell({"type": "left", "peer": name})
        if not members:
            del self._rooms[room]

    async def _listen(self, room: str, name: str, member: _Member) -> None:
        clock = asyncio.get_running_loop().time
        limit = RateLimit(self._config.per_s, self._config.burst)
        async for message in member.ws:
            signal = _signal(message.data) if message.type is WSMsgType.TEXT else None
            if signal is None or limit.wait_s(name, clock()) > 0:
                member.end(POLICY)
                return
            to, data = signal
            receiver = self._rooms.get(room, {}).get(to)
            if receiver is not None:  # one who has just left: the sender is told so anyway
                receiver.tell({"type": "signal", "from": name, "data": data})


async def _speak(member: _Member) -> None:
    try:
        while True:
            await member.ws.send_str(await member.waiting.get())
    except ConnectionError:
        return


def _signal(text: str) -> tuple[str, Any] | None:
    """(receiver, data) of a client's message, or None."""
    try:
        message = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(message, dict) or set(message) != {"to", "data"} or not isinstance(message["to"], str):
        return None
    return message["to"], message["data"]
