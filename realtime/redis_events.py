"""The public side of Redis: each session's ordered event stream, and the feed of all sessions.

One Lua call makes an event exactly once: it looks the id up, takes the next `seq`, appends and refreshes
the TTLs, all in the session's hash slot. The feed lies in another slot and is written after it, at least
once: its readers tell a repeat by `event_id`.

Beside it lies what the fusion needs to go on with a session in another process. Both are written under the
writer's fencing number (see redis_lease), and refused once a higher one has written.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from redis import exceptions

from realtime.errors import CmathStreamError
from realtime.redis_bus import MAX_BLOCK_MS, Outage, RedisConfig, is_away, patiently, refused
from realtime.redis_cluster import Client

# The event text is spliced, not re-encoded: cjson would change numbers and the order of the keys.
_FENCED = """
if tonumber(redis.call('HGET', KEYS[2], 'fence') or 0) > tonumber(ARGV[1]) then return -1 end
"""
_PUBLISH = (
    _FENCED
    + """
local seq = redis.call('HGET', KEYS[3], ARGV[2])
local fresh = not seq
if fresh and ARGV[7] ~= '' and redis.call('HEXISTS', KEYS[3], ARGV[7]) == 1 then return -2 end
if fresh then
  seq = redis.call('HINCRBY', KEYS[2], 'seq', 1)
  redis.call('HSET', KEYS[3], ARGV[2], seq)
  redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[5], '*', 'event', ARGV[3] .. seq .. ARGV[4])
end
for i = 1, 3 do redis.call('EXPIRE', KEYS[i], ARGV[6]) end
return {fresh and 1 or 0, tonumber(seq)}
"""
)
_CLAIM = (
    _FENCED
    + """
redis.call('HSET', KEYS[2], 'fence', ARGV[1])
redis.call('EXPIRE', KEYS[2], ARGV[2])
return {redis.call('HGET', KEYS[2], 'status') or '', redis.call('XRANGE', KEYS[1], '-', '+')}
"""
)
_REMEMBER = (
    _FENCED
    + """
for i = 4, #ARGV, 2 do
  redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[2], '*', 'head', ARGV[i], 'vectors', ARGV[i + 1])
end
redis.call('EXPIRE', KEYS[1], ARGV[3])
return 0
"""
)

Remembered = tuple[bytes, bytes]  # head and vectors of one trace, as the fusion writes them


class Fenced(CmathStreamError):
    """Another process owns the session by now: whatever we believe of it is out of date."""


class EventLog:
    """Publishes events of sessions and reads them back for subscribers."""

    def __init__(self, client: Client, config: RedisConfig) -> None:
        self._client = client
        self._config = config
        self._keys = config.keys
        self._publish = client.register_script(_PUBLISH)
        self._claim = client.register_script(_CLAIM)
        self._remember = client.register_script(_REMEMBER)
        self._outage = Outage("events")

    async def publish(
        self, session_id: str, event_id: str, body: str, *, fence: int = 0, unless: str = ""
    ) -> int | None:
        """Append an event once; its `seq`, or None if `event_id`, or `unless`, had been published before.

        `body` is the event's JSON without `seq`, its first key `schema`; `seq` becomes the second. Waits out
        outages. A repeat still goes to the feed, where the first attempt may not have arrived.
        Raises Fenced.
        """
        if not body.startswith('{"schema":"') or "," not in body:
            raise ValueError('an event begins with {"schema":"…", and has more keys')
        schema, rest = body.split(",", 1)
        before, after = f'{schema},"seq":', f",{rest}"
        keys = self._session_keys(session_id)
        limits = self._config.events_maxlen, self._config.session_ttl_s

        async def append() -> Any:
            args: list[int | str] = [fence, event_id, before, after, *limits, unless]
            return _unfenced(await self._publish(keys=keys, args=args))

        reply = await patiently(append, "events")
        if reply == -2:
            return None
        fresh, seq = bool(reply[0]), int(reply[1])
        fields: dict[Any, Any] = {"event": f"{before}{seq}{after}"}
        maxlen = self._config.feed_maxlen
        await patiently(lambda: self._client.xadd(self._keys.feed, fields, maxlen=maxlen), "events")
        return seq if fresh else None

    async def claim(self, session_id: str, fence: int) -> list[Remembered] | None:
        """Make a session ours, and read what was remembered of it; None where it is closed. Raises Fenced."""
        keys = [self._keys.window(session_id), self._keys.state(session_id)]

        async def call() -> Any:
            return _unfenced(await self._claim(keys=keys, args=[fence, self._config.session_ttl_s]))

        status, traces = await patiently(call, "events")
        if status == b"closed":
            return None
        fields = (dict(zip(pairs[::2], pairs[1::2], strict=True)) for _, pairs in traces)
        return [(each[b"head"], each[b"vectors"]) for each in fields]

    async def remember(self, session_id: str, fence: int, traces: Sequence[Remembered]) -> None:
        """Keep what another process would need to go on. Raises Fenced."""
        keys = [self._keys.window(session_id), self._keys.state(session_id)]
        limits = self._config.window_maxlen, self._config.session_ttl_s
        parts = [part for trace in traces for part in trace]

        async def call() -> Any:
            return _unfenced(await self._remember(keys=keys, args=[fence, *limits, *parts]))

        if parts:
            await patiently(call, "events")

    async def read(
        self, session_id: str | None, after_id: str, block_ms: int, count: int
    ) -> list[tuple[str, dict[str, Any]]]:
        """Events after `after_id` ("0" = from the start) of a session, or of all (None): (entry id, event).

        Waits `block_ms` (2 s at most; 0 = not at all) for the first; [] when none came or Redis is away.
        Raises BusError for an `after_id` that is no stream id.
        """
        key = self._keys.feed if session_id is None else self._keys.events(session_id)
        block = min(block_ms, MAX_BLOCK_MS) or None
        try:
            reply: Any = await self._client.xread({key: after_id}, count=count, block=block)
        except exceptions.RedisError as error:
            if not is_away(error):
                raise refused(error, "events") from error
            await self._outage.wait(error)
            return []
        self._outage.over()
        entries = reply[0][1] if reply else []
        return [(entry_id.decode(), json.loads(fields[b"event"])) for entry_id, fields in entries]

    async def newest(self, session_id: str | None) -> tuple[str, dict[str, Any]] | None:
        """Newest entry (id, event) of a session's stream, or of the feed (None); None while there is none."""
        key = self._keys.feed if session_id is None else self._keys.events(session_id)
        entries: Any = await patiently(lambda: self._client.xrevrange(key, count=1), "events")
        return (entries[0][0].decode(), json.loads(entries[0][1][b"event"])) if entries else None

    async def last_id(self, session_id: str | None) -> str:
        """Id of the newest entry, as `newest` finds it; "0" while there is none."""
        newest = await self.newest(session_id)
        return newest[0] if newest else "0"

    async def close(self, session_id: str) -> None:
        """No event follows: start the last TTL of a session's keys, forget what only a running one needs."""

        async def call() -> None:
            pipe = self._client.pipeline(transaction=False)
            pipe.hset(self._keys.state(session_id), "status", "closed")
            for key in self._session_keys(session_id):
                pipe.expire(key, self._config.session_ttl_s)
            pipe.unlink(self._keys.window(session_id))
            await pipe.execute()

        await patiently(call, "events")

    async def held(self, session_ids: Sequence[str]) -> list[bool]:
        """Whether an ingest holds each of these sessions (see register)."""

        async def call() -> list[bool]:
            pipe = self._client.pipeline(transaction=False)
            for session_id in session_ids:
                pipe.exists(self._keys.held(session_id))
            return [bool(found) for found in await pipe.execute()]

        return await patiently(call, "events") if session_ids else []

    async def drop_media(self, session_id: str, utterance_id: str, attempt: int) -> None:
        """Delete the media blobs of an utterance that is done; `attempt` is the one it was announced with."""
        names = self._keys.media(session_id, utterance_id, attempt)
        await patiently(lambda: self._client.unlink(*names), "events")

    def _session_keys(self, session_id: str) -> list[str]:
        return [self._keys.events(session_id), self._keys.state(session_id), self._keys.done(session_id)]


def _unfenced(reply: Any) -> Any:
    if reply == -1:
        raise Fenced("another process owns the session")
    return reply
