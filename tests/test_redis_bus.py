from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from realtime.errors import BusError
from realtime.messages import Picture, SegmentWithdrawn
from realtime.redis_bus import RedisConfig, check, connect
from realtime.redis_cluster import Client
from realtime.redis_outbox import Outbox, Writer
from realtime.redis_reader import GroupReader
from realtime.redis_server import RedisServer
from tests.conftest import (
    entries,
    make_features,
    make_segment,
    make_started,
    make_transcript,
    read_all,
    until,
)

CONFIG = RedisConfig(shards=2, claim_idle_s=3600)
PICTURE = Picture(b"\xff\xd8 jpeg", 40)


@asynccontextmanager
async def running(outbox: Outbox) -> AsyncIterator[None]:
    task = asyncio.create_task(outbox.run(), name="outbox")
    yield
    task.cancel()
    await asyncio.wait({task})


def audio_reader(client: Client, config: RedisConfig = CONFIG, **options: Any) -> GroupReader:
    options = {"kind": "segments", "group": "audio", "consumer": "a-1"} | options
    return GroupReader(client, config, **options)


@pytest.mark.parametrize("bad", [{"shards": 0}, {"blob_ttl_s": 301}, {"socket_timeout_s": 2.0}])
def test_impossible_settings_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        RedisConfig(**bad)


def test_a_url_that_is_none_is_refused() -> None:
    with pytest.raises(BusError, match="not valid"):
        connect(RedisConfig(url="http://x"))


async def test_check_tells_in_one_line_that_nobody_answers() -> None:
    async with connect(RedisConfig(url="redis://127.0.0.1:1/0")) as client:
        with pytest.raises(BusError, match="does not answer"):
            await check(client)


# ---- writing ---------------------------------------------------------------------------------------


async def test_messages_go_to_the_streams_of_their_session(
    redis_client: Client,
) -> None:
    keys = CONFIG.keys
    shard = keys.shard_of("s0")
    segment = make_segment("u0", pictures=(PICTURE,))
    await Writer(redis_client, CONFIG).write(
        [segment, make_transcript(), make_started("u0"), make_features()]
    )
    assert await redis_client.xlen(keys.segments(shard)) == 2
    assert await redis_client.xlen(keys.inbox(shard)) == 2
    assert 0 < await redis_client.ttl(keys.blob("s0", "u0", 0, "pcm")) <= 300
    assert 0 < await redis_client.ttl(keys.blob("s0", "u0", 0, "pictures")) <= 300


async def test_a_job_is_written_before_the_notices_put_after_it(redis_client: Client) -> None:
    outbox = Outbox(redis_client, CONFIG)
    for number in range(100):
        outbox.put(make_segment(f"u{number}", seconds=0.01))
        outbox.put(make_started(f"u{number}"))
    async with running(outbox):
        await asyncio.wait_for(outbox.flush(), 5)
    shard = CONFIG.keys.shard_of("s0")
    jobs = await entries(redis_client, CONFIG.keys.segments(shard))
    notices = await entries(redis_client, CONFIG.keys.inbox(shard))
    assert [utterance(fields) for _, fields in jobs] == [f"u{i}" for i in range(100)]
    assert [utterance(fields) for _, fields in notices] == [f"u{i}" for i in range(100)]
    # The ids of both streams begin with the server's time in ms.
    assert all(
        job[0].split(b"-")[0] <= note[0].split(b"-")[0] for job, note in zip(jobs, notices, strict=True)
    )


def utterance(fields: dict[bytes, bytes]) -> str:
    return str(json.loads(fields[b"head"])["utterance_id"])


async def test_a_withdrawn_segment_leaves_its_job_and_no_media(redis_client: Client) -> None:
    keys = CONFIG.keys
    shard = keys.shard_of("s0")
    first = make_segment("u0", pictures=(PICTURE,))
    outbox = Outbox(redis_client, CONFIG)
    outbox.put(first)
    outbox.put(SegmentWithdrawn("s0", "p0", "u0", 0, "resumed"))
    outbox.put(replace(first, attempt=1))
    async with running(outbox):
        await asyncio.wait_for(outbox.flush(), 5)
    assert (len(outbox), outbox.bytes) == (0, 0)
    assert await redis_client.exists(*keys.media("s0", "u0", 0)) == 0
    assert await redis_client.exists(*keys.media("s0", "u0", 1)) == 2
    assert await redis_client.xlen(keys.inbox(shard)) == 0
    jobs = await read_all(audio_reader(redis_client, pcm=True), 2)
    assert [job.media_expired for job in jobs] == [True, False]


async def test_an_outage_loses_nothing_and_keeps_the_order(
    own_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "realtime")
    config = RedisConfig(url=own_server.url, shards=2)
    async with connect(config) as client:
        outbox = Outbox(client, config)
        async with running(outbox):
            for number in range(50):
                outbox.put(make_started(f"n{number}"))
            await asyncio.wait_for(outbox.flush(), 5)
            await asyncio.to_thread(own_server.stop)
            for number in range(50, 100):
                outbox.put(make_started(f"n{number}"))
            outbox.put(make_segment("late"))
            await until(lambda: "Redis is away" in caplog.text)
            assert len(outbox) == 51
            own_server.start()
            await asyncio.wait_for(outbox.flush(), 5)
        assert (len(outbox), outbox.bytes, outbox.media_given_up) == (0, 0, 0)
        notices = await entries(client, config.keys.inbox(config.keys.shard_of("s0")))
        names = [utterance(fields) for _, fields in notices]
        assert list(dict.fromkeys(names)) == [f"n{i}" for i in range(100)]  # at least once, in order
        source = audio_reader(client, config, pcm=True)
        (job,) = await read_all(source, 1)
        assert not job.media_expired
    assert caplog.text.count("Redis is away") == 1
    assert caplog.text.count("Redis is back") == 1


async def test_when_bytes_run_out_the_oldest_media_go_and_every_message_stays(
    redis_client: Client,
) -> None:
    config = RedisConfig(shards=1, outbox_bytes=40_000)
    outbox = Outbox(redis_client, config)
    for number in range(4):  # 16 kB of speech each
        outbox.put(make_segment(f"u{number}"))
        outbox.put(make_started(f"u{number}"))
    assert outbox.media_given_up == 2
    assert outbox.bytes <= 40_000
    async with running(outbox):
        await asyncio.wait_for(outbox.flush(), 5)
    assert outbox.bytes == 0
    jobs = await read_all(audio_reader(redis_client, config, pcm=True), 4)
    assert [job.media_expired for job in jobs] == [True, True, False, False]
    assert await redis_client.xlen(config.keys.inbox(0)) == 4


async def test_a_full_outbox_refuses_instead_of_making_a_hole(redis_client: Client) -> None:
    outbox = Outbox(redis_client, RedisConfig(outbox_count=2))
    outbox.put(make_started("a"))
    outbox.put(make_started("b"))
    with pytest.raises(BusError, match="full"):
        outbox.put(make_started("c"))


async def test_a_writer_that_is_refused_says_so(redis_client: Client) -> None:
    stream = CONFIG.keys.inbox(CONFIG.keys.shard_of("s0"))
    await redis_client.set(stream, "not a stream", ex=60)
    with pytest.raises(BusError, match="WRONGTYPE"):
        await Writer(redis_client, CONFIG).write([make_started("u")])
