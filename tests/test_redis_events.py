from __future__ import annotations

import asyncio
import logging

import pytest

from realtime.errors import BusError
from realtime.redis_bus import RedisConfig, connect
from realtime.redis_cluster import Client
from realtime.redis_events import EventLog
from realtime.redis_server import RedisServer
from tests.conftest import (
    entries,
    until,
)

CONFIG = RedisConfig(shards=2, claim_idle_s=3600)
BODY = '{"schema":"emotion-event/1","type":"emotion.utterance","x":1.10,"text":"a,\\"b\\""}'


async def test_an_event_is_published_once_with_its_seq_second(redis_client: Client) -> None:
    events = EventLog(redis_client, CONFIG)
    assert await events.publish("s0", "e1", BODY) == 1
    assert await events.publish("s0", "e2", BODY) == 2
    assert await events.publish("s0", "e1", BODY) is None
    assert await events.publish("other", "e1", BODY) == 1
    raw = await entries(redis_client, CONFIG.keys.events("s0"))
    first = raw[0][1][b"event"]
    assert first == BODY.replace(",", ',"seq":1,', 1).encode()  # byte for byte, 1.10 included
    assert [event["seq"] for _, event in await events.read("s0", "0", 0, 10)] == [1, 2]
    for key in (CONFIG.keys.events("s0"), CONFIG.keys.state("s0"), CONFIG.keys.done("s0")):
        assert 0 < await redis_client.ttl(key) <= CONFIG.session_ttl_s


async def test_the_feed_has_every_event_at_least_once(redis_client: Client) -> None:
    events = EventLog(redis_client, CONFIG)
    for event_id in ("e1", "e2", "e1"):  # the repeat may be of an attempt that died before the feed
        await events.publish("s0", event_id, BODY)
    feed = await events.read(None, "0", 0, 10)
    assert [event["seq"] for _, event in feed] == [1, 2, 1]


async def test_a_subscriber_waits_and_resumes(redis_client: Client) -> None:
    events = EventLog(redis_client, CONFIG)
    waiting = asyncio.create_task(events.read("s0", "0", 2000, 10))
    await events.publish("s0", "e1", BODY)
    ((last, event),) = await waiting
    assert event["text"] == 'a,"b"'
    await events.publish("s0", "e2", BODY)
    assert [event["seq"] for _, event in await events.read("s0", last, 0, 10)] == [2]
    with pytest.raises(BusError):
        await events.read("s0", "no id", 0, 1)


@pytest.mark.parametrize("body", ["{}", '{"type":"x","schema":"y"}', '{"schema":"x"}'])
async def test_a_body_without_room_for_seq_is_refused(redis_client: Client, body: str) -> None:
    with pytest.raises(ValueError):
        await EventLog(redis_client, CONFIG).publish("s0", "e", body)


async def test_closing_starts_the_last_ttl(redis_client: Client) -> None:
    events = EventLog(redis_client, CONFIG)
    await events.publish("s0", "e1", BODY)
    await redis_client.persist(CONFIG.keys.events("s0"))
    await events.close("s0")
    assert await redis_client.ttl(CONFIG.keys.events("s0")) > 0


async def test_publishing_through_an_outage_is_exactly_once(
    own_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "realtime")
    config = RedisConfig(url=own_server.url)
    async with connect(config) as client:
        events = EventLog(client, config)
        assert await events.publish("s0", "e1", BODY) == 1
        await asyncio.to_thread(own_server.stop)
        publishing = asyncio.create_task(events.publish("s0", "e2", BODY))
        await until(lambda: "Redis is away" in caplog.text)
        assert await events.read("s0", "0", 50, 10) == []
        own_server.start()
        assert await publishing == 2
        assert [event["seq"] for _, event in await events.read("s0", "0", 0, 10)] == [1, 2]
