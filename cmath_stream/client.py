"""For programs that want the emotions: `subscribe` to one conversation over HTTP, `consume` all over Redis.

Both give `LiveEvent`s, in order, and wait out what passes: a server that restarts, a network that goes away.
docs/SUBSCRIBE.md shows how they are used; neither loads a model.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp
from redis import exceptions

from realtime.errors import CmathStreamError
from realtime.redis_bus import Outage, RedisConfig, check, connect, is_away, patiently
from realtime.redis_cluster import Client

log = logging.getLogger(__name__)

_BACKOFF_FIRST_S = 0.2
_BACKOFF_CAP_S = 10.0
_SILENT_S = 40.0  # the server sends a comment each 15 s: after so long the connection is dead
_MAX_LINE_BYTES = 1 << 20
_BLOCK_MS = 1000
_COUNT = 64


class SubscriptionRefused(CmathStreamError):
    """The server says no in a way that asking again will not change; `status` is its HTTP status."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status


@dataclass(frozen=True, slots=True)
class LiveEvent:
    """One public event (`cmath-stream schema print`)."""

    stream_id: str  # where to go on after it: `after=` of subscribe
    data: dict[str, Any]

    @property
    def type(self) -> str:
        """Such as emotion.utterance, participant.joined, session.closed."""
        return str(self.data["type"])

    @property
    def event_id(self) -> str:
        """The same for every repetition of one fact."""
        return str(self.data["event_id"])

    @property
    def session_id(self) -> str:
        """The conversation."""
        return str(self.data["session_id"])

    @property
    def participant_id(self) -> str | None:
        """Whom it is about; None where it is about the session."""
        return self.data.get("participant_id")

    @property
    def is_final(self) -> bool:
        """An emotion that will not be revised."""
        return bool(self.data.get("is_final"))

    @property
    def label(self) -> str | None:
        """The emotion; None where the model abstained, and of other events."""
        return self.data.get("label")

    @property
    def probabilities(self) -> dict[str, float]:
        """By emotion, summing to 1; empty for other events."""
        return {emotion["name"]: emotion["probability"] for emotion in self.data.get("emotions", ())}

    @property
    def text(self) -> str | None:
        """What was said, where it is known."""
        return self.data.get("text")


async def subscribe(
    url: str, session: str, *, token: str | None = None, after: str = "$", finals_only: bool = False
) -> AsyncGenerator[LiveEvent, None]:
    """Events of a session, or of a room's open one, until it has closed.

    `url` is the server's root; `after` a stream id, "0" for all that is kept, "$" for what is new. A lost
    connection is taken up again where it broke off. Raises SubscriptionRefused (400, 401, 403, 404).
    """
    target = f"{url.rstrip('/')}/v1/sessions/{session}/events"
    headers = {"Accept": "text/event-stream"} | ({"Authorization": f"Bearer {token}"} if token else {})
    timeout = aiohttp.ClientTimeout(total=None, connect=10.0, sock_read=_SILENT_S)
    failures = 0
    async with aiohttp.ClientSession(headers=headers, timeout=timeout, read_bufsize=_MAX_LINE_BYTES) as http:
        while True:
            try:
                query = {"from": after, "final": str(int(finals_only))}
                async with http.get(target, params=query) as response:
                    if response.status == 204:
                        return  # all has been told
                    if response.status != 200:
                        await _refused(response)
                    async for after, data in _entries(response):
                        failures = 0
                        if data is not None:
                            yield LiveEvent(after, data)
                            if data["type"] == "session.closed":
                                return
            except (aiohttp.ClientError, TimeoutError, ConnectionError) as error:
                log.info("subscription: %s, coming back", type(error).__name__)
            ceiling_s = min(_BACKOFF_CAP_S, _BACKOFF_FIRST_S * 2.0 ** min(failures, 10))
            failures += 1
            await asyncio.sleep(ceiling_s * random.uniform(0.5, 1.0))


async def _refused(response: aiohttp.ClientResponse) -> None:
    """Raises SubscriptionRefused for what stays; returns for what passes (5xx, 429)."""
    if response.status < 500 and response.status != 429:
        try:
            detail = str((await response.json(content_type=None))["detail"])
        except (ValueError, KeyError, TypeError):
            detail = response.reason or "no reason given"
        raise SubscriptionRefused(response.status, f"the server refuses ({response.status}): {detail}")


async def _entries(
    response: aiohttp.ClientResponse,
) -> AsyncIterator[tuple[str, dict[str, Any] | None]]:
    """(stream id, event) of a text/event-stream; None for an id that comes alone, which is a place."""
    if response.status != 200:
        return
    entry_id, data = "", None
    async for raw in response.content:
        line = raw.decode().rstrip("\r\n")
        name, _, value = line.partition(": ")
        if name == "id":
            entry_id = value
        elif name == "data":
            data = json.loads(value)
        elif not line and entry_id:
            yield entry_id, data
            data = None


async def consume(
    redis_url: str, group: str, consumer: str, *, prefix: str = "emo:", idle_s: float = 60.0
) -> AsyncGenerator[LiveEvent, None]:
    """Events of all sessions, shared among the consumers of a group, each acknowledged when the body is done.

    A body that raises, or a process that dies, leaves its event pending: the same consumer gets it first
    when it comes back, another one after `idle_s`. So each event comes at least once; `event_id` tells a
    repeat. A new group begins with what is new. Raises BusError where Redis refuses.
    """
    config = RedisConfig(url=redis_url, prefix=prefix)
    async with connect(config) as client:
        await check(client)
        reader = _FeedReader(client, config.keys.feed, group, consumer, int(idle_s * 1000))
        await reader.create_group("$")
        while True:
            for event in await reader.read():
                yield event
                await reader.ack(event)


class _FeedReader:
    """One consumer of a group over the feed: own pending entries, then abandoned ones, then new ones."""

    def __init__(self, client: Client, feed: str, group: str, consumer: str, idle_ms: int) -> None:
        self._client = client
        self._feed = feed
        self._group = group
        self._consumer = consumer
        self._idle_ms = idle_ms
        self._outage = Outage(f"feed {group}")
        self._own = "0"  # pending entries of our own after this one; ">" when there are none

    async def create_group(self, start: str) -> None:
        async def create() -> None:
            try:
                await self._client.xgroup_create(self._feed, self._group, id=start, mkstream=True)
            except exceptions.ResponseError as error:
                if not str(error).startswith("BUSYGROUP"):
                    raise

        await patiently(create, "feed")

    async def read(self) -> list[LiveEvent]:
        """The next entries; [] when none came for a second or Redis is away."""
        try:
            entries = await self._read()
        except exceptions.RedisError as error:
            self._own = "0"  # the server may have given us entries whose names we never saw
            if str(error).startswith("NOGROUP"):  # a Redis that lost its data: all it has now is new
                await self.create_group("0")
            elif is_away(error):
                await self._outage.wait(error)
            else:
                raise
            return []
        self._outage.over()
        return [
            LiveEvent(entry_id.decode(), json.loads(fields[b"event"]))
            for entry_id, fields in entries
            if fields
        ]

    async def _read(self) -> list[Any]:
        if self._own != ">":
            entries = await self._group_read(self._own, None)
            self._own = entries[-1][0].decode() if entries else ">"
            if entries:
                return await self._kept(entries)
        reply: Any = await self._client.xautoclaim(
            self._feed, self._group, self._consumer, self._idle_ms, "0", count=_COUNT
        )
        return await self._kept(reply[1]) or await self._group_read(">", _BLOCK_MS)

    async def _kept(self, pending: list[Any]) -> list[Any]:
        """Pending entries without those that the feed no longer has: these are over."""
        trimmed = [entry_id for entry_id, fields in pending if not fields]
        if trimmed:
            await self._client.xack(self._feed, self._group, *trimmed)
        return [(entry_id, fields) for entry_id, fields in pending if fields]

    async def _group_read(self, after: str, block_ms: int | None) -> list[Any]:
        reply: Any = await self._client.xreadgroup(
            self._group, self._consumer, {self._feed: after}, count=_COUNT, block=block_ms
        )
        return list(reply[0][1]) if reply else []

    async def ack(self, event: LiveEvent) -> None:
        await patiently(lambda: self._client.xack(self._feed, self._group, event.stream_id), "feed")
