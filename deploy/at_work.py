"""Whether the worker of this container asks Redis for work: exit status 0 if so, else 1 and one line.

Workers serve no HTTP, so their health is read where it shows: a worker that is warm reads its streams several
times a second, and Redis keeps when each consumer was last seen. One that loads its model is no consumer yet,
so this is readiness too. Wants Redis 7.2 or Valkey: older ones count from the last job, not the last look.
Knows a worker by its default name, the host's; a prefix or a number of shards must come from the environment,
as no settings file is read.
"""

from __future__ import annotations

import os
import socket
import sys
from typing import Any

import redis

from realtime import settings
from realtime.messages import MODALITIES
from realtime.redis_bus import RedisConfig
from realtime.redis_cluster import node_url

SILENT_S = 60.0  # a long model call renews its claim every 10 s
_SECTION = settings.ENV_PREFIX + "REDIS__"


def connect(url: str) -> redis.Redis | redis.RedisCluster:
    """A client that waits for no more than some seconds."""
    node = node_url(url)
    kind: Any = redis.RedisCluster if node else redis.Redis
    made: redis.Redis | redis.RedisCluster = kind.from_url(
        node or url, socket_timeout=5, socket_connect_timeout=2, protocol=2
    )
    return made


def why_not(client: redis.Redis | redis.RedisCluster, config: RedisConfig, consumer: str) -> str | None:
    """None while `consumer` is at work in the group of some extractor."""
    seen_s = []
    for modality in MODALITIES:
        for shard in range(config.shards):
            try:
                rows = client.xinfo_consumers(config.keys.segments(shard), modality)
            except redis.ResponseError:  # no such stream or group: nobody of that modality has come up yet
                continue
            seen_s += [row["idle"] / 1000 for row in rows if row["name"] == consumer.encode()]
    if not seen_s:
        return f"no worker {consumer} has asked for work yet"
    if min(seen_s) > SILENT_S:
        return f"worker {consumer} was last seen {min(seen_s):.0f} s ago"
    return None


def main() -> None:
    """Read the environment as the worker did, and look."""
    given = {
        settings.ENV_PREFIX + name.removeprefix(_SECTION): value
        for name, value in os.environ.items()
        if name.startswith(_SECTION)
    }
    config = settings.load(RedisConfig, None, given)
    url = config.url or os.environ["REDIS_URL"]
    try:
        with connect(url) as client:
            problem = why_not(client, config, socket.gethostname())
    except (redis.RedisError, redis.RedisClusterException) as error:
        problem = f"Redis does not answer: {error}"
    if problem:
        sys.exit(problem)


if __name__ == "__main__":
    main()
