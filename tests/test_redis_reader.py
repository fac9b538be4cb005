from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from realtime.errors import WireError
from realtime.messages import FeaturesMissing, Picture, Segment, UtteranceStarted
from realtime.redis_bus import RedisConfig, connect
from realtime.redis_cluster import Client
from realtime.redis_events import EventLog
from realtime.redis_outbox import Writer
from realtime.redis_reader import Delivery, GroupReader
from realtime.redis_server import RedisServer
from tests.conftest import (
    entries,
    is_bounded,
    make_segment,
    make_started,
    read_all,
    until,
)

CONFIG = RedisConfig(shards=2, claim_idle_s=3600)
PICTURE = Picture(b"\xff\xd8 jpeg", 40)


def reader(client: Client, config: RedisConfig = CONFIG, **options: Any) -> GroupReader:
    options = {"kind": "segments", "group": "audio", "consumer": "a-1"} | options
    return GroupReader(client, config, **options)


async def blocked(client: Client) -> None:
    """Wait until a reader waits on the server."""

    async def one() -> bool:
        return bool((await client.info("clients"))["blocked_clients"])

    await until(one)


def ids(deliveries: list[Delivery]) -> list[str]:
    return [d.message.utterance_id for d in deliveries if isinstance(d.message, Segment | UtteranceStarted)]


async def test_a_voice_that_may_not_be_read_is_fetched_for_its_words_alone(redis_client: Client) -> None:
    before = replace(make_segment("u0"), text_only=True)
    await Writer(redis_client, CONFIG).write([before])
    for group, fetched in (("text", True), ("audio", False)):
        (delivery,) = await read_all(reader(redis_client, group=group, pcm=True), 1)
        assert isinstance(delivery.message, Segment) and not delivery.media_expired
        assert bool(len(delivery.message.pcm)) is fetched


async def test_every_group_gets_every_job_and_the_media_it_asks(
    redis_client: Client,
) -> None:
    before = make_segment("u0", pictures=(PICTURE,))
    await Writer(redis_client, CONFIG).write([before])
    for group, pcm, pictures in (("text", False, False), ("audio", True, False), ("face", True, True)):
        (delivery,) = await read_all(reader(redis_client, group=group, pcm=pcm, pictures=pictures), 1)
        message = delivery.message
        assert isinstance(message, Segment)
        assert delivery.times_delivered == 1
        assert not delivery.media_expired
        assert np.array_equal(message.pcm, before.pcm) is pcm
        assert message.pictures == ((PICTURE,) if pictures else ())


async def test_expired_media_are_told(redis_client: Client) -> None:
    await Writer(redis_client, CONFIG).write([make_segment("u0")])
    source = reader(redis_client, pcm=True)
    await EventLog(redis_client, CONFIG).drop_media("s0", "u0", 0)
    (delivery,) = await read_all(source, 1)
    assert delivery.media_expired
    assert await source.fetch_pcm("s0", "u0", 0) is None


async def test_an_entry_that_is_no_message_comes_as_an_error(redis_client: Client) -> None:
    await redis_client.xadd(CONFIG.keys.segments(0), {"v": "9"})
    source = reader(redis_client)
    (delivery,) = await read_all(source, 1)
    assert isinstance(delivery.message, WireError)
    await source.dead_letter(delivery, str(delivery.message))
    ((_, fields),) = await entries(redis_client, CONFIG.keys.dead(CONFIG.keys.segments(0)))
    assert fields[b"v"] == b"9"
    assert fields[b"deliveries"] == b"1"
    assert b"version" in fields[b"error"]
    assert int(fields[b"failed_at"]) > 0
    assert await pending(redis_client, CONFIG) == 0


async def pending(client: Client, config: RedisConfig, group: str = "audio") -> int:
    streams = [config.keys.segments(shard) for shard in range(config.shards)]
    summaries: list[Any] = [await client.xpending(stream, group) for stream in streams]
    return sum(summary["pending"] for summary in summaries)


async def test_a_consumer_that_returns_gets_its_own_first_one_at_a_time(
    redis_client: Client,
) -> None:
    config = RedisConfig(shards=1, claim_idle_s=3600)
    writer = Writer(redis_client, config)
    await writer.write([make_segment(f"u{i}", seconds=0.01) for i in range(40)])
    before = await read_all(reader(redis_client, config), 40)
    assert len(before) == 40  # taken, and then the process dies
    await writer.write([make_segment("new", seconds=0.01)])
    again = reader(redis_client, config)
    first = await again.read(16, 50)
    assert (ids(first), first[0].times_delivered) == (["u0"], 2)
    rest = await read_all(again, 40)
    assert ids(first + rest) == [f"u{i}" for i in range(40)] + ["new"]
    assert rest[-1].times_delivered == 1
    await again.ack(first + rest)
    assert await pending(redis_client, config) == 0
    assert await again.read(16, 0) == []


async def test_what_a_dead_consumer_left_is_claimed_by_one_other(redis_client: Client) -> None:
    config = RedisConfig(shards=2, claim_idle_s=0.05)
    await Writer(redis_client, config).write([make_segment(f"u{i}", seconds=0.01) for i in range(5)])
    await read_all(reader(redis_client, config, consumer="dead"), 5)
    heirs = [reader(redis_client, config, consumer=name) for name in ("b", "c")]
    found: list[Delivery] = []
    async with asyncio.timeout(5):
        while len(found) < 5:
            for heir in heirs:
                taken = await heir.read(8, 20)
                await heir.ack(taken)
                found += taken
    assert sorted(ids(found)) == [f"u{i}" for i in range(5)]
    assert {d.times_delivered for d in found} == {2}


async def test_a_renewed_claim_is_not_taken_away(redis_client: Client) -> None:
    config = RedisConfig(shards=1, claim_idle_s=1.0)
    await Writer(redis_client, config).write([make_segment("u0", seconds=0.01)])
    slow, heir = reader(redis_client, config, consumer="slow"), reader(redis_client, config, consumer="heir")
    held = await read_all(slow, 1)
    loop = asyncio.get_running_loop()
    end_s = loop.time() + 1.5
    while loop.time() < end_s:
        assert await heir.read(1, 40) == []
        await slow.renew(held)
    assert ids(await read_all(heir, 1)) == ["u0"]  # once it is silent, it is taken


async def test_a_redis_that_lost_its_data_is_served_again(redis_client: Client) -> None:
    source = reader(redis_client)
    assert await source.read(8, 0) == []
    await redis_client.flushall()
    await Writer(redis_client, CONFIG).write([make_segment("u0", seconds=0.01)])
    assert ids(await read_all(source, 1)) == ["u0"]


async def test_a_stream_deleted_under_a_waiting_reader_returns(
    redis_client: Client,
) -> None:
    source = reader(redis_client)
    await source.read(1, 0)
    waiting = asyncio.create_task(source.read(1, 2000))
    await blocked(redis_client)
    await redis_client.flushall()
    assert await waiting == []
    await Writer(redis_client, CONFIG).write([make_segment("u0", seconds=0.01)])
    assert ids(await read_all(source, 1)) == ["u0"]


async def test_reading_through_an_outage_loses_nothing(
    own_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "realtime")
    config = RedisConfig(url=own_server.url, shards=2)
    async with connect(config) as client:
        source = reader(client, config)
        await Writer(client, config).write([make_segment(f"u{i}", seconds=0.01) for i in range(6)])
        held = await source.read(2, 50)
        assert held
        waiting = asyncio.create_task(source.read(2, 2000))
        await asyncio.to_thread(own_server.stop)
        found = await waiting
        settling = asyncio.create_task(source.ack(held))
        assert await source.read(2, 50) == []  # no exception
        await until(lambda: caplog.text.count("Redis is away") == 2)  # of the reads and of the ack
        own_server.start()
        await settling
        found += await read_all(source, 6 - len(held) - len(found))
        assert sorted(ids(held + found)) == [f"u{i}" for i in range(6)]  # none twice: held ones are known
        await source.ack(found)
        assert await pending(client, config) == 0


async def test_a_read_that_is_cancelled_gives_its_entries_later(redis_client: Client) -> None:
    source = reader(redis_client)
    await source.read(1, 0)
    waiting = asyncio.create_task(source.read(4, 2000))
    await blocked(redis_client)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await Writer(redis_client, CONFIG).write([make_segment("u0", seconds=0.01)])
    assert ids(await read_all(source, 1)) == ["u0"]


async def test_job_streams_are_trimmed_behind_the_slowest_group(redis_client: Client) -> None:
    config = RedisConfig(shards=1, trim_every_s=0.0)
    stream = config.keys.segments(0)
    fast = reader(redis_client, config, group="fast")
    slow = reader(redis_client, config, group="slow")
    await slow.read(1, 0)
    await Writer(redis_client, config).write([make_segment(f"u{i}", seconds=0.001) for i in range(500)])
    await fast.ack(await read_all(fast, 500))
    await fast.read(1, 0)
    assert await redis_client.xlen(stream) == 500  # the slow group has read nothing yet
    held = await read_all(slow, 500)
    await slow.ack(held[:400])
    await slow.read(1, 0)
    assert 100 <= await redis_client.xlen(stream) <= 200  # whole nodes of 100 entries
    groups: list[Any] = await redis_client.xinfo_groups(stream)
    assert {group["lag"] for group in groups} == {0}
    await slow.ack(held[400:])
    await slow.read(1, 0)
    assert await redis_client.xlen(stream) <= 100


async def test_an_entry_trimmed_before_it_was_done_is_forgotten(redis_client: Client) -> None:
    config = RedisConfig(shards=1, claim_idle_s=3600)
    await Writer(redis_client, config).write([make_segment("gone", seconds=0.01)])
    await read_all(reader(redis_client, config), 1)
    await redis_client.xtrim(config.keys.segments(0), maxlen=0, approximate=False)
    assert await reader(redis_client, config).read(1, 0) == []
    assert await pending(redis_client, config) == 0


async def test_the_inbox_holds_notices_and_answers(redis_client: Client) -> None:
    missing = FeaturesMissing("s0", "u0", "audio", "too_short", 1)
    await Writer(redis_client, CONFIG).write([make_started("u0"), missing])
    found = await read_all(reader(redis_client, kind="inbox", group="fusion", consumer="f"), 2)
    assert [d.message for d in found] == [make_started("u0"), missing]


async def test_the_key_watch_sees_a_key_that_stays(redis_client: Client) -> None:
    await redis_client.set("stays", 1)
    assert not await is_bounded(redis_client, b"stays")
    await redis_client.delete("stays")
