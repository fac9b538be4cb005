"""A Redis Cluster behind the commands of one server; an URL `redis+cluster://…` means one.

Everything that must happen in one step has one hash tag (see keys), so a cluster takes our commands as they
are, but for reads of several streams (`read_group`). What is left to do here is to give redis-py's cluster
client the manners of its plain one: it connects on first use, an outage is always a RedisError, and after
any outage it asks anew which node has what.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any, cast

import redis.asyncio
from redis import exceptions
from redis.asyncio.cluster import ClusterPipeline

_SCHEMES = {"redis+cluster": "redis", "rediss+cluster": "rediss"}
_POLL_S = 0.02  # between two looks at streams of several slots, for which no server waits at once
_STALE = (  # errors after which the slots may lie elsewhere
    exceptions.ConnectionError,
    exceptions.TimeoutError,
    exceptions.ClusterError,
    exceptions.ReadOnlyError,
)


def node_url(url: str) -> str | None:
    """URL of the node by which a cluster is found; None for the URL of a single server."""
    scheme, rest = url.partition("://")[::2]
    return f"{_SCHEMES[scheme]}://{rest}" if scheme in _SCHEMES else None


class Cluster(redis.asyncio.RedisCluster):
    """Client of a cluster. Raises RedisError as the client of a server does."""

    async def __aenter__(self) -> Cluster:
        return self  # redis-py would connect here, and fail where nobody waits for it yet

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()
        for of in ("nodes_cache", "startup_nodes"):  # aclose leaves them open after an outage
            await self.nodes_manager.aclose(of)

    async def initialize(self, *args: Any, **kwargs: Any) -> Cluster:
        """Learn which node has what, unless that is known. Raises RedisError."""
        try:
            await super().initialize(*args, **kwargs)
        except exceptions.RedisClusterException as error:  # which is no RedisError
            raise exceptions.ConnectionError(str(error)) from error
        return self

    async def execute_command(self, *args: Any, **kwargs: Any) -> Any:
        """Any command. Raises RedisError."""
        await self.initialize()  # before redis-py looks for the node, or it would take a random one
        try:
            return await super().execute_command(*args, **kwargs)
        except exceptions.SlotNotCoveredError as error:
            self.forget()
            raise exceptions.ClusterDownError(str(error)) from error
        except _STALE:
            self.forget()
            raise

    def pipeline(self, transaction: Any = None, shard_hint: Any = None) -> Pipeline:
        """Commands in one go to each node: in their order there, in none among the nodes."""
        made: Any = Pipeline  # redis-py leaves an attribute of its base without a value
        return cast(Pipeline, made(self, transaction))

    def forget(self) -> None:
        """Ask again which node has what before the next command; connections in use stay."""
        self._initialize = True


class Pipeline(ClusterPipeline):
    """Commands for several slots at once."""

    def unlink(self, *names: Any) -> Any:
        """Delete keys of one slot (redis-py's takes one key, and is a coroutine)."""
        return self.execute_command("UNLINK", *names)

    async def execute(self, raise_on_error: bool = True, allow_redirections: bool = True) -> list[Any]:
        """All of it. Raises RedisError; what arrived of it is not known then."""
        client: Any = self.cluster_client
        try:
            results = await super().execute(False, allow_redirections)
        except exceptions.SlotNotCoveredError as error:
            client.forget()
            raise exceptions.ClusterDownError(str(error)) from error
        except _STALE:
            client.forget()
            raise
        failures = [result for result in results if isinstance(result, Exception)]
        if any(isinstance(failure, _STALE) for failure in failures):
            client.forget()
        if failures and raise_on_error:
            raise failures[0]
        return list(results)


Client = redis.asyncio.Redis | Cluster


async def read_group(
    client: Cluster, group: str, consumer: str, streams: Sequence[str], count: int, block_ms: int
) -> list[Any]:
    """XREADGROUP of what is new in several streams, `count` of each, which may lie in several slots.

    A node waits for one slot alone, and a wait that is broken off may have taken entries unseen: so one
    stream is waited for, several are looked at every 20 ms. All were asked when it raises RedisError.
    """
    await client.initialize()
    end_s = time.monotonic() + block_ms / 1000
    block = ("BLOCK", block_ms) if block_ms and len(streams) == 1 else ()

    async def read(stream: str) -> Any:
        node = client.get_node_from_key(stream)  # told here, redis-py need not ask a server for it
        return await client.execute_command(
            "XREADGROUP", "GROUP", group, consumer, "COUNT", count, *block, "STREAMS", stream, ">",
            target_nodes=node,
        )  # fmt: skip

    while True:
        replies = await asyncio.gather(*map(read, streams), return_exceptions=True)
        for reply in replies:
            if isinstance(reply, BaseException):
                raise reply  # what the others brought is pending, and is read again
        found = [entry for reply in replies for entry in cast(Any, reply) or ()]
        left_s = end_s - time.monotonic()
        if found or left_s <= 0:
            return found
        await asyncio.sleep(min(_POLL_S, left_s))
