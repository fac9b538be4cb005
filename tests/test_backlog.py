"""What Redis says of the jobs that wait, and what is not known."""

from __future__ import annotations

import asyncio

from realtime import telemetry
from realtime.backlog import Backlog
from realtime.redis_bus import RedisConfig, connect
from realtime.redis_cluster import Client
from realtime.redis_outbox import Writer
from realtime.redis_reader import GroupReader
from tests.conftest import entries, make_segment, read_all, until

CONFIG = RedisConfig(shards=2, trim_every_s=3600)


def worker(client: Client, group: str) -> GroupReader:
    return GroupReader(client, CONFIG, "segments", group, f"{group}-1")


async def seen(backlog: Backlog) -> int | None:
    """What it says after a look."""
    await backlog.look()
    return backlog.unread


async def test_the_slowest_group_counts_over_all_shards(redis_client: Client) -> None:
    backlog = Backlog(redis_client, CONFIG)
    assert await seen(backlog) is None  # nobody has come to work yet
    quick, slow = worker(redis_client, "text"), worker(redis_client, "audio")
    assert await quick.read(1, 0) == await slow.read(1, 0) == []
    assert await seen(backlog) == 0
    sent = [make_segment(f"u{n}", session_id=f"s{n}", seconds=0.01) for n in range(12)]
    assert {CONFIG.keys.shard_of(segment.session_id) for segment in sent} == {0, 1}
    await Writer(redis_client, CONFIG).write(sent)
    await quick.ack(await read_all(quick, 12))
    assert await seen(backlog) == 12
    lags = [telemetry.QUEUE_LAG.labels(stage=stage)._value.get() for stage in ("text", "audio")]
    assert lags == [0, 12]
    await slow.ack(await read_all(slow, 12))
    assert await seen(backlog) == 0


async def test_what_was_trimmed_behind_the_groups_does_not_wait(redis_client: Client) -> None:
    reader = worker(redis_client, "audio")
    sent = [make_segment(f"u{n}", session_id="s0", seconds=0.01) for n in range(300)]
    assert await reader.read(1, 0) == []
    await Writer(redis_client, CONFIG).write(sent)
    await reader.ack(await read_all(reader, 300))
    stream = CONFIG.keys.segments(CONFIG.keys.shard_of("s0"))
    await redis_client.xtrim(stream, maxlen=100, approximate=True)
    assert await redis_client.xlen(stream) < 300
    assert await seen(Backlog(redis_client, CONFIG)) == 0


async def test_a_null_lag_is_not_known(redis_client: Client) -> None:
    await Writer(redis_client, CONFIG).write([make_segment(f"u{n}", seconds=0.01) for n in range(3)])
    stream = CONFIG.keys.segments(CONFIG.keys.shard_of("s0"))
    (_, (middle, _), _) = await entries(redis_client, stream)
    await redis_client.xdel(stream, middle)  # what nothing here does, and somebody else may
    assert await worker(redis_client, "audio").read(1, 0)
    assert await seen(Backlog(redis_client, CONFIG)) is None


async def test_an_outage_makes_it_unknown_and_ends_nothing(redis_client: Client) -> None:
    async with connect(RedisConfig(url="redis://127.0.0.1:1/0")) as nobody:
        backlog = Backlog(nobody, CONFIG)
        backlog.unread = 3
        task = asyncio.create_task(backlog.run(), name="backlog")
        await until(lambda: backlog.unread is None)
        assert not task.done()
        task.cancel()
        await asyncio.wait({task})
