"""The Python client, and the examples of docs/SUBSCRIBE.md as they stand there."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest

from cmath_stream.client import LiveEvent, SubscriptionRefused, consume, subscribe
from realtime.redis_bus import RedisConfig, connect
from realtime.redis_cluster import Client
from realtime.redis_server import RedisServer
from tests import conftest
from tests.calls import until
from tests.subscribing import TOKEN, served

EXAMPLES = re.findall(r"```python\n(.*?)```", Path("docs/SUBSCRIBE.md").read_text("utf-8"), re.DOTALL)


async def test_a_subscription_goes_on_where_a_restart_of_the_server_broke_it_off(
    redis_client: Client,
) -> None:
    heard: list[LiveEvent] = []
    async with served(redis_client) as here:
        await here.start("s0")
        port = int(here.url.rpartition(":")[2])

        async def listen() -> None:
            async for event in subscribe(here.url, "s0", after="0"):
                heard.append(event)

        listening = asyncio.create_task(listen())
        await here.emotion("s0", 0, final=False)
        await until(lambda: len(heard) == 2, "two events")
    async with served(redis_client, port=port) as here:
        await here.emotion("s0", 0, text="hello")
        await here.end("s0")
        async with asyncio.timeout(10):
            await listening
    assert [event.data["seq"] for event in heard] == [1, 2, 3, 4]
    assert [event.type for event in heard][::3] == ["session.started", "session.closed"]
    final = heard[2]
    assert (final.participant_id, final.label, final.text, final.is_final) == ("ann", "joy", "hello", True)
    assert final.session_id == "s0" and final.event_id and heard[0].participant_id is None
    async with served(redis_client) as here, aclosing(subscribe(here.url, "s0", after="0")) as all_of_it:
        assert [event.stream_id async for event in all_of_it] == [event.stream_id for event in heard]
        assert [event async for event in subscribe(here.url, "s0")] == []  # over: nothing is new any more
        finals = [event.data["seq"] async for event in subscribe(here.url, "s0", after="0", finals_only=True)]
        assert finals == [3, 4]


async def test_a_refusal_that_stays_is_raised(redis_client: Client) -> None:
    async with served(redis_client, token=TOKEN) as here:
        for session, token, status in (("nobody", TOKEN, 404), ("no body", TOKEN, 400), ("s0", None, 401)):
            with pytest.raises(SubscriptionRefused) as refused:
                await anext(subscribe(here.url, session, token=token))
            assert refused.value.status == status and "\n" not in str(refused.value)


def test_probabilities_by_name() -> None:
    event = LiveEvent("1-0", {"type": "emotion.utterance", "emotions": [{"name": "joy", "probability": 1.0}]})
    assert event.probabilities == {"joy": 1.0}


async def test_a_consumer_gets_again_what_its_body_did_not_finish(
    redis_client: Client, redis_url: str
) -> None:
    async with served(redis_client) as here:
        async with aclosing(consume(redis_url, "g", "c0")) as events:
            first = asyncio.create_task(anext(events))
            await _until_group(redis_client)
            await here.start("s0")
            await here.emotion("s0", 0)
            assert (await first).data["seq"] == 1
            assert (await anext(events)).data["seq"] == 2  # asking for it acknowledged the first
        async with aclosing(consume(redis_url, "g", "c0")) as events:
            assert (await anext(events)).data["seq"] == 2
        async with aclosing(consume(redis_url, "g", "c1", idle_s=0.05)) as events:  # c0 never returns
            await asyncio.sleep(0.1)
            assert (await anext(events)).data["seq"] == 2
            waiting = asyncio.create_task(anext(events))
            await _until_acked(redis_client)
            await here.end("s0")
            assert (await waiting).data["seq"] == 3


async def test_what_the_feed_no_longer_has_is_not_waited_for(redis_client: Client, redis_url: str) -> None:
    async with served(redis_client) as here:
        async with aclosing(consume(redis_url, "g", "c")) as events:
            first = asyncio.create_task(anext(events))
            await _until_group(redis_client)
            await here.start("s0")
            await first
        await redis_client.xtrim("emo:feed", maxlen=0, approximate=False)
        async with aclosing(consume(redis_url, "g", "c")) as events:
            waiting = asyncio.create_task(anext(events))
            await _until_acked(redis_client)
            await here.end("s0")
            assert (await waiting).type == "session.closed"


async def test_a_consumer_waits_out_a_redis_that_goes_and_comes_back_empty(own_server: RedisServer) -> None:
    config = RedisConfig(url=own_server.url)
    async with connect(config) as client, served(client) as here:
        async with aclosing(consume(own_server.url, "g", "c")) as events:
            waiting = asyncio.create_task(anext(events))
            await _until_group(client)
            await asyncio.to_thread(own_server.stop)
            await asyncio.sleep(0.1)
            own_server.start()
            await client.flushall()
            await here.start("s0")
            async with asyncio.timeout(10):
                assert (await waiting).type == "session.started"


@asynccontextmanager
async def running(code: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-u", "-c", code, stdout=asyncio.subprocess.PIPE
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def test_the_example_of_one_conversation(redis_client: Client) -> None:
    async with served(redis_client) as here:
        await here.start("s0", "demo")
        code = EXAMPLES[0].replace("http://127.0.0.1:8080", here.url)
        async with running(code) as process:
            await until(lambda: here.live.subscribers == 1, "a subscriber", 30)
            await here.emotion("s0", 0, text="hello")
            await here.end("s0")
            assert process.stdout is not None
            async with asyncio.timeout(30):
                assert await process.stdout.read() == b"ann joy hello\n"
                assert await process.wait() == 0


async def test_the_example_of_all_conversations(redis_client: Client, redis_url: str) -> None:
    code = EXAMPLES[1].replace("redis://127.0.0.1:6379/0", redis_url)
    async with served(redis_client) as here, running(code) as process:
        await _until_group(redis_client)
        await here.start("s0")
        await here.emotion("s0", 0)
        assert process.stdout is not None
        async with asyncio.timeout(30):
            assert await process.stdout.readline() == b"s0 ann joy\n"


def test_there_are_no_other_examples() -> None:
    assert len(EXAMPLES) == 2


async def _until_group(client: Client) -> None:
    await conftest.until(lambda: client.exists("emo:feed"), 30)


async def _until_acked(client: Client) -> None:
    async def acked() -> bool:
        return not (await client.xpending("emo:feed", "g"))["pending"]

    await conftest.until(acked)
