"""Who owns which shard: leases with fencing numbers, so that a session has one fusion at a time.

A lease is a key with a TTL; whoever takes it gets the next number of its shard. Whatever the owner writes
carries that number, and Redis refuses it once a higher one has written: a process that was frozen past its
lease finds its writes void, however sure of itself it wakes up. Owners share the shards evenly, by Redis's
own clock, so that nobody's has to be right.
"""

from __future__ import annotations

import math
import secrets
import time
from typing import Any

from redis import exceptions

from realtime.redis_bus import RedisConfig, is_away
from realtime.redis_cluster import Client

# One's own lease is renewed, a free one is taken under a new number, another's is left alone.
_TAKE = """
local owner = redis.call('GET', KEYS[1])
if owner == ARGV[1] then
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
  redis.call('EXPIRE', KEYS[2], ARGV[3])
  return tonumber(redis.call('GET', KEYS[2]))
end
if owner then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
local fence = redis.call('INCR', KEYS[2])
redis.call('EXPIRE', KEYS[2], ARGV[3])
return fence
"""
_RELEASE = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"
_ALIVE = """
local now = tonumber(redis.call('TIME')[1])
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('EXPIRE', KEYS[1], ARGV[2] + 1)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - tonumber(ARGV[2]) - 1)
return redis.call('ZCARD', KEYS[1])
"""


class ShardLeases:
    """The shards of one process. `keep` must be called at least every `lease_s` / 3."""

    def __init__(self, client: Client, config: RedisConfig, name: str) -> None:
        """`name` is for people; a restarted process is another owner, and waits for its lease to end."""
        self._client = client
        self._config = config
        self._keys = config.keys
        self._owner = f"{name}-{secrets.token_hex(4)}"
        self._take = client.register_script(_TAKE)
        self._release = client.register_script(_RELEASE)
        self._alive = client.register_script(_ALIVE)
        self._held: dict[int, int] = {}  # shard → its fencing number
        self._kept_s = float("-inf")  # monotonic, when they were last renewed

    @property
    def held(self) -> dict[int, int]:
        """Shard → fencing number, of those that are ours as far as we can know."""
        return {} if time.monotonic() - self._kept_s >= self._config.lease_s else dict(self._held)

    async def keep(self) -> None:
        """Renew what is held, take what is free up to our share, give back what is beyond it.

        Does nothing before a third of the lease is over. In an outage nothing is renewed, and leases end.
        """
        now_s = time.monotonic()
        if now_s - self._kept_s < self._config.lease_s / 3:
            return
        try:
            owners: Any = await self._alive(
                keys=[self._keys.owners], args=[self._owner, math.ceil(self._config.lease_s)]
            )
            share = math.ceil(self._config.shards / max(1, int(owners)))
            held: dict[int, int] = {}
            for shard in sorted(range(self._config.shards), key=lambda shard: shard not in self._held):
                if len(held) < share:
                    fence = await self._call_take(shard)
                    if fence:
                        held[shard] = fence
                elif shard in self._held:
                    await self._release(keys=[self._keys.lease(shard)], args=[self._owner])
        except exceptions.RedisError as error:
            if not is_away(error):
                raise
            return
        self._held, self._kept_s = held, now_s

    def drop(self) -> None:
        """Somebody else has written with a higher number: nothing is ours until it is taken again."""
        self._held, self._kept_s = {}, float("-inf")

    async def close(self) -> None:
        """Give everything back, so that the next owner need not wait."""
        try:
            for shard in self._held:
                await self._release(keys=[self._keys.lease(shard)], args=[self._owner])
            await self._client.zrem(self._keys.owners, self._owner)
        except exceptions.RedisError:
            pass  # they end by themselves
        self._held = {}

    async def _call_take(self, shard: int) -> int:
        keys = [self._keys.lease(shard), self._keys.fence(shard)]
        config = self._config  # a number outlives every session that was written under it
        args: list[int | str] = [self._owner, round(config.lease_s * 1000), 2 * config.session_ttl_s]
        fence: Any = await self._take(keys=keys, args=args)
        return int(fence)
