"""The link to Redis and the way out of a process: configuration, patience with outages, Writer, Outbox.

Everything here writes at least once: after a lost answer a write is repeated, and consumers tell a repeat
by the identity inside the message (session, utterance, modality or kind). See redis_reader for the way in
and redis_events for what subscribers see.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import islice, takewhile
from typing import Any, TypeVar, cast

import redis.asyncio
from redis import exceptions
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from realtime import wire
from realtime.errors import BusError
from realtime.keys import Keys
from realtime.messages import Message, Segment, SegmentWithdrawn, Transcript
from realtime.redis_cluster import Client, Cluster, node_url

log = logging.getLogger(__name__)

T = TypeVar("T")
MAX_BLOCK_MS = 2000  # no read waits longer on the server, so that a dead link shows by the socket timeout

_MOST_CONNECTIONS = 1000  # of one client; a subscriber holds one (live_events.max_subscribers)
_BACKOFF_FIRST_S = 0.05
_BACKOFF_CAP_S = 1.0
_BATCH_COUNT = 64  # messages of one pipeline, and the bytes after which it is closed
_BATCH_BYTES = 4 << 20
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


@dataclass(slots=True)
class _Letter:
    """One message on its way out."""

    shard: int
    stream: str  # letters of one stream keep their order
    fields: dict[Any, Any]  # none: nothing is to be told
    blobs: dict[str, bytes]  # key → bytes; emptied when the media are given up
    size: int  # bytes, for the bound
    void: list[str] = field(default_factory=list)  # keys to delete
    arrived: bool = False  # as all before it of the same stream

    @classmethod
    def of(cls, message: Message, keys: Keys) -> _Letter:
        shard = keys.shard_of(message.session_id)
        if isinstance(message, SegmentWithdrawn):  # without its media a job is soon answered, and in vain
            void = keys.media(message.session_id, message.utterance_id, message.attempt)
            return cls(shard, keys.segments(shard), {}, {}, sum(map(len, void)), void)
        stream = keys.segments(shard) if isinstance(message, Segment | Transcript) else keys.inbox(shard)
        blobs = {}
        if isinstance(message, Segment):
            fields, media = wire.encode_segment(message)
            ids = message.session_id, message.utterance_id, message.attempt
            blobs = {keys.blob(*ids, kind): blob for kind, blob in media.items() if blob}
        else:
            fields = wire.encode(message)
        size = sum(map(len, fields.values())) + sum(map(len, blobs.values()))
        return cls(shard, stream, dict(fields), blobs, size)


async def _post(client: Client, config: RedisConfig, letters: deque[_Letter]) -> int:
    """Write the head of the queue and return how many letters arrived, in order.

    Raises RedisError when the first one failed. What arrived behind a failure in another stream is not
    written again.
    """
    batch, size = [], 0
    for letter in islice(letters, _BATCH_COUNT):
        batch.append(letter)
        size += letter.size
        if size > _BATCH_BYTES:
            break
    todo = [letter for letter in batch if not letter.arrived]
    if isinstance(client, Cluster):
        problem = await _write_by_shard(client, config, todo)
    else:
        problem = await _write(client, config, todo)
    arrived = sum(1 for _ in takewhile(lambda letter: letter.arrived, batch))
    if arrived == 0 and problem is not None:
        raise problem
    return arrived


async def _write_by_shard(client: Cluster, config: RedisConfig, letters: list[_Letter]) -> Exception | None:
    """Write letters to all their nodes at once, and return what became of the first if it failed.

    A pipeline has an order on each node, none among nodes: media are there before their jobs, and jobs before
    the notices put after them, because each is awaited. A node that is away holds up its shards alone.
    """
    shards = defaultdict(list)
    for letter in letters:
        shards[letter.shard].append(letter)

    async def write(some: list[_Letter]) -> Exception | None:
        inbox = config.keys.inbox(some[0].shard)
        jobs = [letter for letter in some if letter.stream != inbox]
        notices = [letter for letter in some if letter.stream == inbox]
        media = client.pipeline(transaction=False)
        for letter in jobs:
            _add_media(media, config, letter)
        try:
            await media.execute()
            problem = await _write(client, config, jobs, media=False)
            return problem or await _write(client, config, notices)
        except exceptions.RedisError as error:
            return error

    return (await asyncio.gather(*map(write, shards.values())))[0]


async def _write(
    client: Client, config: RedisConfig, letters: list[_Letter], *, media: bool = True
) -> Exception | None:
    """Write letters in one pipeline, mark those that arrived, and return the first failure."""
    pipe = client.pipeline(transaction=False)
    commands = []  # how many commands each letter takes
    for letter in letters:
        before = len(pipe)
        if media:
            _add_media(pipe, config, letter)
        if letter.fields:
            pipe.xadd(letter.stream, letter.fields, maxlen=config.stream_maxlen, approximate=True)
        if letter.void:
            pipe.unlink(*letter.void)
        commands.append(len(pipe) - before)
    results = await pipe.execute(raise_on_error=False)
    failures: dict[str, Exception] = {}  # by stream
    at = 0
    for letter, count in zip(letters, commands, strict=True):
        failure = next((r for r in results[at : at + count] if isinstance(r, Exception)), None)
        if failure is not None:
            failures.setdefault(letter.stream, failure)
        letter.arrived = letter.stream not in failures
        at += count
    return next(iter(failures.values()), None)


def _add_media(pipe: Any, config: RedisConfig, letter: _Letter) -> None:
    for key, blob in letter.blobs.items():
        pipe.set(key, blob, ex=config.blob_ttl_s)


class Writer:
    """Writes messages and waits until they are in Redis: for who must know before going on (ack)."""

    def __init__(self, client: Client, config: RedisConfig, who: str = "writer") -> None:
        self._client = client
        self._config = config
        self._who = who

    async def write(self, messages: Sequence[Message]) -> None:
        """Write in order, through outages. Raises BusError (refused) or WireError (a bad message)."""
        letters = deque(_Letter.of(message, self._config.keys) for message in messages)
        while letters:
            arrived = await patiently(lambda: _post(self._client, self._config, letters), self._who)
            for _ in range(arrived):
                letters.popleft()


class Outbox:
    """How the ingest writes: `put` returns at once, `run` carries the messages to Redis in their order.

    Bounded. While Redis is away and the bytes run out, the media of the oldest segments are given up and
    counted: media age fastest (their jobs have deadlines) and weigh a thousand times a notice. The segment's
    job still goes, and the workers answer it "media_expired", so every utterance keeps its one end. Notices
    are never given up; when even their count runs out `put` refuses, since a session with a hole in its
    notices could not be told from a whole one. One event loop, one owner of `run`.
    """

    def __init__(self, client: Client, config: RedisConfig) -> None:
        self._client = client
        self._config = config
        self._keys = config.keys
        self._letters: deque[_Letter] = deque()
        self._heavy: deque[_Letter] = deque()  # those of `_letters` that have media, in the same order
        self._filled = asyncio.Event()
        self._emptied = asyncio.Event()
        self._emptied.set()
        self.bytes = 0
        self.media_given_up = 0  # segments

    def __len__(self) -> int:
        """Messages not yet in Redis."""
        return len(self._letters)

    @property
    def crowded(self) -> bool:
        """True when so much waits for Redis that nobody new should be let in."""
        return len(self._letters) > 0.8 * self._config.outbox_count

    def put(self, message: Message) -> None:
        """Queue a message. Raises BusError when `outbox_count` messages wait, WireError for a bad message."""
        if len(self._letters) >= self._config.outbox_count:
            raise BusError(f"outbox is full: {len(self._letters)} messages wait for Redis")
        letter = _Letter.of(message, self._keys)
        self._letters.append(letter)
        if letter.blobs:
            self._heavy.append(letter)
        self.bytes += letter.size
        while self.bytes > self._config.outbox_bytes and self._heavy:
            self._give_up_media(self._heavy.popleft())
        self._emptied.clear()
        self._filled.set()

    async def run(self) -> None:
        """Carry messages until cancelled; what was not written then stays and is lost with the process."""
        outage = Outage("outbox")
        reported = 0
        while True:
            await self._filled.wait()
            try:
                arrived = await _post(self._client, self._config, self._letters)
            except exceptions.RedisError as error:  # a refusal too: only the operator can mend it
                await outage.wait(error)
                continue
            outage.over()
            for _ in range(arrived):
                self._remove_first()
            if self.media_given_up > reported:
                reported = self.media_given_up
                log.warning("outbox: the media of %s segments so far were given up", reported)

    async def flush(self) -> None:
        """Wait until everything put so far is in Redis; give it a timeout."""
        await self._emptied.wait()

    def _remove_first(self) -> None:
        letter = self._letters.popleft()
        if self._heavy and self._heavy[0] is letter:
            self._heavy.popleft()
        self.bytes -= letter.size
        if not self._letters:
            self._filled.clear()
            self._emptied.set()

    def _give_up_media(self, letter: _Letter) -> None:
        freed = sum(map(len, letter.blobs.values()))
        letter.blobs = {}  # a pipeline under way keeps the dict that it has
        letter.size -= freed
        self.bytes -= freed
        self.media_given_up += 1
