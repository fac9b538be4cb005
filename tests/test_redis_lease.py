"""Leases: one owner a shard, a higher number for the next, an even share."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from realtime.redis_bus import RedisConfig
from realtime.redis_cluster import Client
from realtime.redis_events import EventLog, Fenced
from realtime.redis_lease import ShardLeases

CONFIG = RedisConfig(shards=4, lease_s=0.6)
BODY = '{"schema":"emotion-event/1","type":"x"}'


@pytest.fixture
def client(redis_client: Client) -> Client:
    return redis_client


async def kept(*owners: ShardLeases, rounds: int = 1) -> None:
    for _ in range(rounds):
        for owner in owners:
            await owner.keep()
        await asyncio.sleep(CONFIG.lease_s / 3)


async def test_one_alone_owns_everything_and_nobody_takes_it(client: Client) -> None:
    one = ShardLeases(client, CONFIG, "one")
    await one.keep()
    assert one.held == {0: 1, 1: 1, 2: 1, 3: 1}
    await one.close()
    assert one.held == {}


async def test_two_share_evenly_and_the_number_rises_with_each_owner(client: Client) -> None:
    one, two = ShardLeases(client, CONFIG, "one"), ShardLeases(client, CONFIG, "two")
    await kept(one, two, rounds=3)
    assert len(one.held) == len(two.held) == 2
    assert set(one.held) | set(two.held) == {0, 1, 2, 3} and set(two.held.values()) == {2}
    await one.close()
    await kept(two, rounds=2)
    assert set(two.held) == {0, 1, 2, 3}
    await two.close()


async def test_who_says_nothing_loses_its_shards_and_knows_it(client: Client) -> None:
    frozen, heir = ShardLeases(client, CONFIG, "frozen"), ShardLeases(client, CONFIG, "heir")
    await frozen.keep()
    before = frozen.held
    await asyncio.sleep(CONFIG.lease_s + 0.1)
    assert frozen.held == {}
    await asyncio.sleep(2.0)  # until Redis has forgotten it among those who share
    await heir.keep()
    assert heir.held == {shard: fence + 1 for shard, fence in before.items()}
    await frozen.keep()
    assert frozen.held == {}


async def test_what_a_former_owner_writes_is_refused(client: Client) -> None:
    log = EventLog(client, CONFIG)
    assert await log.claim("s", 1) == []
    await log.remember("s", 1, [(b"{}", b"")])
    assert await log.publish("s", "e1", BODY, fence=1) == 1
    assert await log.claim("s", 2) == [(b"{}", b"")]
    for writing in (
        log.publish("s", "e2", BODY, fence=1),
        log.remember("s", 1, [(b"{}", b"")]),
        log.claim("s", 1),
    ):
        with pytest.raises(Fenced):
            await writing
    assert await log.publish("s", "e2", BODY, fence=2) == 2


async def test_an_event_is_not_told_once_the_other_was(client: Client) -> None:
    log = EventLog(client, CONFIG)
    assert await log.publish("s", "provisional", BODY, unless="end") == 1
    assert await log.publish("s", "end", BODY) == 2
    assert await log.publish("s", "late", BODY, unless="end") is None
    assert len(await log.read("s", "0", 0, 10)) == 2


async def test_a_closed_session_is_not_taken_over(client: Client, tmp_path: Path) -> None:
    log = EventLog(client, CONFIG)
    await log.claim("s", 1)
    await log.remember("s", 1, [(b"{}", b"")])
    await log.close("s")
    assert await log.claim("s", 2) is None
    assert not await client.exists(CONFIG.keys.window("s"))
