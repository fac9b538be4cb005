"""Wall-clock time that all processes of an installation agree on: Redis's.

Deadlines and latencies are set on one machine and looked at on another, whose clock may be off by more than
a job lives; a worker whose clock is a minute ahead would find every job too old. So all count by the server
that they share.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from redis import exceptions

from realtime.redis_cluster import Client

log = logging.getLogger(__name__)

NowMs = Callable[[], int]  # milliseconds since 1970

_EVERY_S = 60.0  # clocks that run freely part by a few milliseconds in that time
_SAID_S = 1.0  # a clock that is off by more is worth a line


def local_ms() -> int:
    """By this machine's own clock."""
    return round(time.time() * 1000)


@asynccontextmanager
async def shared_clock(client: Client) -> AsyncIterator[NowMs]:
    """Redis's time, asked for once now and then every minute; in between it runs on. Raises RedisError."""
    clock = _Clock(client)
    await clock.ask()
    if abs(off_s := clock.off_by_s()) > _SAID_S:
        log.warning("the clock of this machine is %+.1f s off Redis's, by which all is counted", off_s)
    following = asyncio.create_task(clock.follow(), name="clock")
    try:
        yield clock.now_ms
    finally:
        following.cancel()


async def off_by_s(client: Client) -> float:
    """How far this machine's clock is ahead of Redis's. Raises RedisError."""
    clock = _Clock(client)
    await clock.ask()
    return clock.off_by_s()


class _Clock:
    def __init__(self, client: Client) -> None:
        self._client = client
        self._zero_s = 0.0  # Redis's time at zero of the monotonic clock, which nobody can set

    def now_ms(self) -> int:
        return round((self._zero_s + time.monotonic()) * 1000)

    def off_by_s(self) -> float:
        return (local_ms() - self.now_ms()) / 1000

    async def ask(self) -> None:
        began_s = time.monotonic()
        seconds, microseconds = await self._client.time()
        middle_s = (began_s + time.monotonic()) / 2
        self._zero_s = seconds + microseconds / 1e6 - middle_s

    async def follow(self) -> None:
        while True:
            await asyncio.sleep(_EVERY_S)
            try:
                await self.ask()
            except exceptions.RedisError:
                pass  # it runs on
