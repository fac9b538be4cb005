"""The way in: one consumer of a group over the shards of one job stream.

Order of a read: what this consumer had taken and not acknowledged (after a restart or an outage), what
others left lying, then what is new. Entries that come again come one at a time, so that a job that kills
its worker is counted alone and does not drag its neighbours into the dead letters.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from redis import exceptions

from realtime import telemetry, wire
from realtime.errors import WireError
from realtime.messages import Message, Pcm, Segment
from realtime.redis_bus import MAX_BLOCK_MS, Outage, RedisConfig, is_away, patiently, refused
from realtime.redis_cluster import Client, Cluster, read_group
from realtime.redis_trim import trim

log = logging.getLogger(__name__)

_PAGE = 16  # pending entries looked at in one step


@dataclass(frozen=True, slots=True)
class Delivery:
    """One entry handed to a consumer; it stays pending until acknowledged."""

    stream: str
    entry_id: str
    message: Message | WireError
    times_delivered: int  # 1 = the first time
    media_expired: bool = False  # a Segment's blob was asked for and is gone
    fields: Mapping[Any, Any] = field(default_factory=dict, repr=False)  # as read


@dataclass(slots=True)
class _Sweep:
    """A walk over the pending entries of one stream: the own ones, or anybody's that lie idle."""

    stream: str
    own: bool
    start: str = "-"


class GroupReader:
    """Consumer `consumer` of `group` over the shards of one kind of stream.

    A consumer's name must come back after a crash for it to find its own pending entries at once; entries
    of a name that never returns are claimed after `claim_idle_s`. `pcm` and `pictures` say which blobs of a
    Segment are fetched with it. Outages never leave `read`, `ack` and `dead_letter`; they are waited out.
    """

    def __init__(
        self,
        client: Client,
        config: RedisConfig,
        kind: Literal["segments", "inbox"],
        group: str,
        consumer: str,
        *,
        shards: Sequence[int] | None = None,  # None = all
        pcm: bool = False,
        pictures: bool = False,
    ) -> None:
        self._client = client
        self._config = config
        self._keys = config.keys
        self.group = group
        self.consumer = consumer
        self.pcm = pcm
        self.pictures = pictures
        self._name = self._keys.segments if kind == "segments" else self._keys.inbox
        self.streams = [self._name(shard) for shard in (range(config.shards) if shards is None else shards)]
        self._who = f"{group}/{consumer}"
        self._outage = Outage(self._who)
        self._in_flight: set[tuple[str, str]] = set()  # (stream, id) handed out and not settled
        self._groups_exist = False
        self._sweeps: deque[_Sweep] = deque()
        self._next_claim_s = self._next_trim_s = 0.0  # monotonic
        self._start_over()

    def assign(self, shards: Iterable[int]) -> None:
        """From now on read these shards alone; of one that is new, first what its reader before us left."""
        before, self.streams = self.streams, [self._name(shard) for shard in shards]
        self._sweeps = deque(sweep for sweep in self._sweeps if sweep.stream in self.streams)
        self._in_flight = {each for each in self._in_flight if each[0] in self.streams}
        self._sweeps.extend(_Sweep(stream, own=True) for stream in self.streams if stream not in before)
        self._groups_exist = False

    def shard_of(self, session_id: str) -> int:
        """Where the entries of a session are."""
        return self._keys.shard_of(session_id)

    async def read(self, count: int, block_ms: int) -> list[Delivery]:
        """At most max(count, shards) deliveries; [] after `block_ms` (2 s at most; 0 = do not wait).

        During an outage it sleeps a moment and returns []. Raises BusError where Redis refuses for good.
        """
        try:
            deliveries = await self._read(count, min(block_ms, MAX_BLOCK_MS))
        except asyncio.CancelledError:
            self._start_over()  # the server may have given us entries whose names we never saw
            raise
        except exceptions.RedisError as error:
            self._start_over()
            if is_away(error):
                await self._outage.wait(error)
            elif not str(error).startswith(("NOGROUP", "UNBLOCKED")):  # a Redis that lost its data
                raise refused(error, self._who) from error
            return []
        self._outage.over()
        self._in_flight.update((d.stream, d.entry_id) for d in deliveries)
        return deliveries

    async def ack(self, deliveries: Iterable[Delivery]) -> None:
        """Settle deliveries whose answers are written."""
        settled = list(deliveries)

        async def call() -> None:
            pipe = self._client.pipeline(transaction=False)
            for stream in {d.stream for d in settled}:
                pipe.xack(stream, self.group, *(d.entry_id for d in settled if d.stream == stream))
            await pipe.execute()

        if settled:
            await patiently(call, self._who)
            self._in_flight.difference_update((d.stream, d.entry_id) for d in settled)

    async def dead_letter(self, delivery: Delivery, error: str) -> None:
        """Put the original fields, with the reason, aside for a person to look at, and settle the delivery.

        `error` must hold nothing of what a person said or showed.
        """
        note = {"error": error, "deliveries": delivery.times_delivered, "failed_at": int(time.time() * 1000)}
        fields: dict[Any, Any] = {**delivery.fields, **note}
        key = self._keys.dead(delivery.stream)
        await patiently(lambda: self._client.xadd(key, fields, maxlen=self._config.dead_maxlen), self._who)
        telemetry.DLQ_TOTAL.labels(stage=self.group).inc()
        log.warning("%s: entry %s goes to the dead letters: %s", self._who, delivery.entry_id, error)
        await self.ack([delivery])

    async def renew(self, deliveries: Iterable[Delivery]) -> None:
        """Say that work goes on: nobody claims these for another `claim_idle_s`. Best effort."""
        pipe = self._client.pipeline(transaction=False)
        for d in deliveries:
            pipe.xclaim(d.stream, self.group, self.consumer, 0, [d.entry_id], justid=True)
        try:
            await pipe.execute()
        except exceptions.RedisError as error:
            log.debug("%s: claim not renewed: %s", self._who, error)

    async def fetch_pcm(self, session_id: str, utterance_id: str, attempt: int) -> Pcm | None:
        """Speech of an utterance, float32 [T], or None when it has expired. Raises WireError."""
        key = self._keys.blob(session_id, utterance_id, attempt, "pcm")
        blob: Any = await patiently(lambda: self._client.get(key), self._who)
        return None if blob is None else wire.decode_pcm(blob)

    # ---- reading -----------------------------------------------------------------------------------

    def _start_over(self) -> None:
        self._groups_exist = False
        self._sweeps = deque(_Sweep(stream, own=True) for stream in self.streams)

    async def _read(self, count: int, block_ms: int) -> list[Delivery]:
        if not self.streams:
            await asyncio.sleep(block_ms / 1000)
            return []
        if not self._groups_exist:
            for stream in self.streams:
                await self._create_group(stream)
            self._groups_exist = True
        now_s = time.monotonic()
        if now_s >= self._next_trim_s:
            self._next_trim_s = now_s + self._config.trim_every_s
            for stream in self.streams:
                await trim(self._client, stream)
        if now_s >= self._next_claim_s:
            self._next_claim_s = now_s + self._config.claim_idle_s / 4
            self._sweeps.extend(_Sweep(stream, own=False) for stream in self.streams)
        while self._sweeps:
            again = await self._advance(self._sweeps[0])
            if again is not None:
                return [again]
            self._sweeps.popleft()
        return [
            await self._delivery(stream.decode(), entry_id.decode(), fields, 1)
            for stream, entries in await self._read_new(max(1, count // len(self.streams)), block_ms)
            for entry_id, fields in entries
        ]

    async def _read_new(self, count: int, block_ms: int) -> Any:
        """At most `count` entries of each stream, in the shape of XREADGROUP's reply."""
        who = self.group, self.consumer
        if isinstance(self._client, Cluster):
            return await read_group(self._client, *who, self.streams, count, block_ms)
        streams: dict[Any, Any] = dict.fromkeys(self.streams, ">")
        block = block_ms or None  # 0 would be "for ever" to Redis
        return await self._client.xreadgroup(*who, streams, count=count, block=block) or ()

    async def _create_group(self, stream: str) -> None:
        try:
            await self._client.xgroup_create(stream, self.group, id="0", mkstream=True)
        except exceptions.ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise

    async def _advance(self, sweep: _Sweep) -> Delivery | None:
        """Take over the next pending entry of a sweep; None when the sweep is done."""
        idle_ms = 0 if sweep.own else int(self._config.claim_idle_s * 1000)
        while True:
            page: Any = await self._client.xpending_range(
                sweep.stream,
                self.group,
                min=sweep.start,
                max="+",
                count=_PAGE,
                consumername=self.consumer if sweep.own else None,
                idle=idle_ms or None,
            )
            if not page:
                return None
            for row in page:
                entry_id = row["message_id"].decode()
                sweep.start = f"({entry_id}"
                if (sweep.stream, entry_id) in self._in_flight:
                    continue
                # `idle_ms` again: of two that saw the same stale entry only one gets it.
                taken: Any = await self._client.xclaim(
                    sweep.stream, self.group, self.consumer, idle_ms, [entry_id]
                )
                fields = taken[0][1] if taken else None
                if fields:
                    telemetry.REDELIVERED_TOTAL.labels(stage=self.group).inc()
                    return await self._delivery(sweep.stream, entry_id, fields, row["times_delivered"] + 1)
                if not await self._client.xrange(sweep.stream, entry_id, entry_id):
                    await self._client.xack(sweep.stream, self.group, entry_id)  # trimmed before it was done

    async def _delivery(self, stream: str, entry_id: str, fields: Mapping[Any, Any], times: int) -> Delivery:
        message: Message | WireError
        expired = False
        try:
            message = wire.decode(fields)
            if isinstance(message, Segment):
                message, expired = await self._with_media(message, fields)
        except WireError as error:
            message = error
        return Delivery(stream, entry_id, message, times, expired, fields)

    async def _with_media(self, segment: Segment, fields: Mapping[Any, Any]) -> tuple[Segment, bool]:
        """The segment with the blobs that were asked for, and whether one of them has expired."""
        heard = self.pcm and (self.group == "text" or not segment.text_only)
        asked = {"pcm": heard, "pictures": self.pictures}
        kinds = [kind for kind, size in wire.media_sizes(fields).items() if size and asked[kind]]
        if not kinds:
            return segment, False
        ids = segment.session_id, segment.utterance_id, segment.attempt
        names = [self._keys.blob(*ids, kind) for kind in kinds]
        found: Any = await self._client.mget(names)
        blobs = dict(zip(kinds, found, strict=True))
        whole = wire.decode_segment(fields, blobs.get("pcm"), blobs.get("pictures"))
        return whole, None in blobs.values()
