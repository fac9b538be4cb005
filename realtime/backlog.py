"""How far the workers are behind, as Redis knows it: jobs that the slowest group has not read yet."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from typing import Any

from redis import exceptions

from realtime import telemetry
from realtime.redis_bus import RedisConfig
from realtime.redis_cluster import Client

log = logging.getLogger(__name__)

_LOOK_S = 0.5  # one short pipeline each time


class Backlog:
    """Watches the job streams. `run` looks, `unread` says what was seen last."""

    def __init__(self, client: Client, config: RedisConfig) -> None:
        self._client = client
        self._streams = [config.keys.segments(shard) for shard in range(config.shards)]
        self.unread: int | None = None  # None: not known (no worker yet, Redis away or older than 7)

    async def run(self) -> None:
        """Look until cancelled; an outage only makes `unread` unknown."""
        while True:
            try:
                await self.look()
            except exceptions.RedisError as error:
                self.unread = None
                log.debug("backlog: %s", error)
            await asyncio.sleep(_LOOK_S)

    async def look(self) -> None:
        """Ask once. Raises RedisError."""
        pipe = self._client.pipeline(transaction=False)
        for stream in self._streams:
            pipe.xinfo_groups(stream)
        lags: Counter[str] = Counter()
        known = True
        for groups in await pipe.execute(raise_on_error=False):
            if isinstance(groups, exceptions.ResponseError):  # the stream is not there yet: nor is a job
                continue
            if isinstance(groups, Exception):
                raise groups
            for group in groups:
                lag: Any = group.get("lag")  # NULL is unknown, not 0
                known = known and lag is not None
                lags[group["name"].decode()] += lag or 0
        self.unread = max(lags.values()) if known and lags else None
        for stage, lag in lags.items() if known else ():
            telemetry.QUEUE_LAG.labels(stage=stage).set(lag)
