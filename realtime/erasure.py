"""Everything that Redis holds of one session is removed, and then looked for again.

Entries of the job streams cannot be overwritten, and XDEL would make the groups' `lag` unknown, so they go
by trimming exactly behind the groups: what is left of them is what some worker has not done with. They go
first, since whoever still works on a session may write its keys anew.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass

from realtime import wire
from realtime.dead_letters import short
from realtime.errors import OperatorError
from realtime.redis_bus import RedisConfig
from realtime.redis_cluster import Client
from realtime.redis_pages import entries, paged
from realtime.redis_trim import floors, order, trim
from realtime.taping import TapeConfig

_LOOK_S = 0.2


@dataclass(frozen=True, slots=True)
class Sought:
    """One place that was searched."""

    what: str
    found: int  # entries or keys, before
    left: int  # after, by a second look


class Erasure:
    """Of one session. Every method raises RedisError in an outage; what was removed stays removed."""

    def __init__(self, client: Client, config: RedisConfig, session_id: str) -> None:
        self._client = client
        self._keys = config.keys
        self._id = session_id
        shard = self._keys.shard_of(session_id)
        self._jobs = [
            self._keys.segments(shard),
            self._keys.inbox(shard),
        ]  # an answer goes from first to second

    async def run(self, patience_s: float) -> list[Sought]:
        """Remove everything, giving work under way `patience_s` to be done, and look again.

        Raises OperatorError while an ingest holds the session.
        """
        if await self._client.exists(self._keys.held(self._id)):
            raise OperatorError(
                f"session {self._id} is open, more would come: `cmath-stream session close {self._id}` first"
            )
        before = await self._look()
        await self._trim(patience_s)
        for some in paged(await self._all_keys()):
            await self._client.unlink(*some)
        await self._delete(self._keys.feed, await self._in_feed())
        for stream in self._jobs:
            dead = self._keys.dead(stream)
            await self._delete(dead, await self._in(dead))
        after = await self._look()
        return [Sought(what, before[what], after[what]) for what in before]

    async def waits_for(self) -> str:
        """What must happen before nothing is left, as one clause."""
        names: set[str] = set()
        unread = False
        for stream in self._jobs:
            if left := await self._in(stream):
                needed = await floors(self._client, stream)
                names |= {group for group, first in needed.items() if order(left[-1]) >= first}
                unread = unread or not needed
        if unread:
            return "the workers that read these streams have never run, start them"
        if names:
            return f"{' and '.join(f'`worker {name}`' for name in sorted(names))} must do with them first"
        return "somebody has written of this session just now"

    async def _look(self) -> dict[str, int]:
        """How much there is, by place."""
        found = {
            f"keys {self._keys.all_of(self._id)}": len(await self._all_keys()),
            f"entries of {self._keys.feed}": len(await self._in_feed()),
        }
        for stream in self._jobs:
            found[f"entries of work stream {short(stream)}"] = len(await self._in(stream))
            found[f"dead letters of {short(stream)}"] = len(await self._in(self._keys.dead(stream)))
        return found

    async def _trim(self, patience_s: float) -> None:
        end_s = time.monotonic() + patience_s
        for stream in self._jobs:
            while await self._in(stream):
                await trim(self._client, stream, exactly=True)
                if time.monotonic() >= end_s or not await self._in(stream):
                    break
                await asyncio.sleep(_LOOK_S)

    async def _all_keys(self) -> list[bytes]:
        return [key async for key in self._client.scan_iter(self._keys.all_of(self._id), count=1000)]

    async def _in_feed(self) -> list[bytes]:
        return [
            entry_id
            async for entry_id, fields in entries(self._client, self._keys.feed)
            if json.loads(fields[b"event"]).get("session_id") == self._id
        ]

    async def _in(self, stream: str) -> list[bytes]:
        """Entries of the session in a job stream or its dead letters."""
        return [entry_id async for entry_id, fields in entries(self._client, stream) if self._is_ours(fields)]

    def _is_ours(self, fields: dict[bytes, bytes]) -> bool:
        session_id = wire.identity(fields)[1]
        if session_id:
            return session_id == self._id
        return any(self._id.encode() in value for value in fields.values())  # no message: better too many

    async def _delete(self, stream: str, ids: Sequence[bytes]) -> None:
        for some in paged(ids):
            await self._client.xdel(stream, *some)


def erase_tape(config: TapeConfig, session_id: str) -> Sought:
    """The recording of a session, in the folder that this machine's settings name. Raises OperatorError."""
    path = config.path_of(session_id)
    found = path.exists()
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise OperatorError(f"the recording {path} cannot be removed: {error.strerror}") from None
    return Sought(f"recordings in {config.folder}", int(found), int(path.exists()))
