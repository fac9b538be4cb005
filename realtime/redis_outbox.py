"""The way out of a process into Redis: a Writer that waits, an Outbox that does not.

Both write at least once: after a lost answer a write is repeated, and consumers tell a repeat by the identity
inside the message (session, utterance, modality or kind). See redis_reader for the way in.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice, takewhile
from typing import Any

from redis import exceptions

from realtime import wire
from realtime.errors import BusError
from realtime.keys import Keys
from realtime.messages import Message, Segment, SegmentWithdrawn, Transcript
from realtime.redis_bus import Outage, RedisConfig, patiently
from realtime.redis_cluster import Client, Cluster

log = logging.getLogger(__name__)

_BATCH_COUNT = 64  # messages of one pipeline, and the bytes after which it is closed
_BATCH_BYTES = 4 << 20


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
