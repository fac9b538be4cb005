"""The link to Redis: configuration, the client, and patience with outages.

See redis_outbox for the way out of a process, redis_reader for the way in, and redis_events for what
subscribers see.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import redis.asyncio
from redis import exceptions
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from realtime.errors import BusError
from realtime.keys import Keys
from realtime.redis_cluster import Client, Cluster, node_url

log = logging.getLogger(__name__)

T = TypeVar("T")
MAX_BLOCK_MS = 2000  # no read waits longer on the server, so that a dead link shows by the socket timeout

_MOST_CONNECTIONS = 1000  # of one client; a subscriber holds one (live_events.max_subscribers)
_BACKOFF_FIRST_S = 0.05
_BACKOFF_CAP_S = 1.0
_AWAY = (  # errors that time heals; a ResponseError is ours, or the operator's, to mend
    exceptions.ConnectionError,  # BusyLoadingError included
    exceptions.TimeoutError,
    exceptions.ReadOnlyError,
    exceptions.OutOfMemoryError,
    exceptions.ClusterError,  # ClusterDownError included
    exceptions.TryAgainError,
)


@dataclass(frozen=True, slots=True)
class RedisConfig:
    """Where Redis is, what keys are called, how long and how much they keep."""

    url: str | None = None  # redis+cluster://… is a cluster; None: REDIS_URL, else a server of our own
    prefix: str = "emo:"
    shards: int = 4  # of the job streams; the same in every process of an installation
    blob_ttl_s: int = 300
    session_ttl_s: int = 86_400
    stream_maxlen: int = 100_000  # safety only: job streams are trimmed behind their groups
    dead_maxlen: int = 10_000
    events_maxlen: int = 10_000
    feed_maxlen: int = 100_000
    claim_idle_s: float = 30.0  # a job untouched for so long has lost its worker
    trim_every_s: float = 10.0
    lease_s: float = 3.0  # a fusion that says nothing for so long has lost its shards
    window_maxlen: int = 256  # utterances' traces of a session, from which another process goes on
    connect_timeout_s: float = 2.0
    socket_timeout_s: float = 5.0
    outbox_bytes: int = 64 << 20
    outbox_count: int = 100_000

    def __post_init__(self) -> None:
        if self.shards < 1:
            raise ValueError("shards must be at least 1")
        if not 1 <= self.blob_ttl_s <= 300:
            raise ValueError("blob_ttl_s must lie in 1..300: media of people are not kept")
        if self.socket_timeout_s * 1000 <= MAX_BLOCK_MS:
            raise ValueError(
                f"socket_timeout_s must exceed {MAX_BLOCK_MS / 1000:g} s, the longest blocking read"
            )

    @property
    def keys(self) -> Keys:
        """Key names under this configuration."""
        return Keys(self.prefix, self.shards)


def connect(config: RedisConfig) -> Client:
    """A client that connects on first use (`async with connect(…) as client`). Raises BusError for a bad URL.

    It does not retry by itself: the loops here know what may be repeated.
    """
    options: dict[str, Any] = {
        "protocol": 2,  # one reply shape on every server from 6.2
        "socket_connect_timeout": config.connect_timeout_s,
        "socket_timeout": config.socket_timeout_s,
        "socket_keepalive": True,
        "health_check_interval": 10,
        "max_connections": _MOST_CONNECTIONS,
        "retry": Retry(NoBackoff(), 0),
    }
    url = config.url or ""
    try:
        if node := node_url(url):
            return cast(Cluster, Cluster.from_url(node, **options))
        return redis.asyncio.Redis.from_url(url, **options)
    except (ValueError, exceptions.RedisClusterException) as error:
        raise BusError(f"Redis URL is not valid: {error}") from None


def without_password(url: str) -> str:
    """The URL as it may be shown."""
    head, at, host = url.rpartition("@")
    scheme, slashes, login = head.partition("://")
    return f"{scheme}{slashes}{login.partition(':')[0]}:***@{host}" if at else url


async def check(client: Client) -> None:
    """One PING, for the start of a program. Raises BusError with one line if Redis does not serve us."""
    try:
        await client.ping()
    except exceptions.RedisError as error:
        raise BusError(f"Redis does not answer: {error}") from None


@asynccontextmanager
async def answering(config: RedisConfig) -> AsyncIterator[Client]:
    """A client for one command of a person, to whom an outage is one line (BusError) instead of a wait."""
    async with connect(config) as client:
        await check(client)
        try:
            yield client
        except exceptions.MovedError as error:
            raise refused(error) from None
        except exceptions.RedisError as error:
            raise BusError(f"Redis failed half way ({error}): give the command again") from None


def is_away(error: exceptions.RedisError) -> bool:
    """True for an outage, which passes; False for a refusal, which stays."""
    return isinstance(error, _AWAY) or str(error).startswith("MISCONF")


def refused(error: exceptions.RedisError, who: str = "Redis") -> BusError:
    """What to raise for an error that stays."""
    if isinstance(error, exceptions.MovedError):  # its text is a slot's number
        return BusError(f"{who}: this is one node of a cluster: begin the URL with redis+cluster://")
    return BusError(f"{who}: Redis refuses: {error}")


class Outage:
    """Patience of one loop: capped exponential backoff with jitter, one log line at loss, one at return."""

    def __init__(self, who: str) -> None:
        self._who = who
        self._since_s: float | None = None  # monotonic
        self._failures = 0

    async def wait(self, error: Exception) -> None:
        """Note a failure and sleep, 1 s at most."""
        if self._since_s is None:
            self._since_s = time.monotonic()
            log.warning("%s: Redis is away (%s: %s), retrying", self._who, type(error).__name__, error)
        ceiling_s = min(_BACKOFF_CAP_S, _BACKOFF_FIRST_S * 2.0 ** min(self._failures, 10))
        self._failures += 1
        await asyncio.sleep(ceiling_s * random.uniform(0.5, 1.0))

    def over(self) -> None:
        """Note a success."""
        if self._since_s is not None:
            log.warning("%s: Redis is back after %.1f s", self._who, time.monotonic() - self._since_s)
            self._since_s, self._failures = None, 0


async def patiently(call: Callable[[], Awaitable[T]], who: str) -> T:
    """Repeat an idempotent `call` until Redis is there. Raises BusError where Redis refuses it."""
    outage = Outage(who)
    while True:
        try:
            result = await call()
        except exceptions.RedisError as error:
            if not is_away(error):
                raise refused(error, who) from error
            await outage.wait(error)
        else:
            outage.over()
            return result
