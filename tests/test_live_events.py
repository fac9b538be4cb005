"""Events as subscribers get them, over HTTP and WebSocket, from a real server and a real Redis."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from realtime.live_events import LiveEventsConfig
from realtime.redis_cluster import Client
from realtime.seats import OpenSession
from realtime.sockets import subprotocols
from tests.calls import until
from tests.subscribing import TOKEN, served


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def heard(response: aiohttp.ClientResponse, count: int | None = None) -> list[tuple[str, Any]]:
    """(id, event) of a stream: the first `count`, or all until it ends."""
    found: list[tuple[str, Any]] = []
    last_id = ""
    async with asyncio.timeout(5):
        async for raw in response.content:
            line = raw.decode().rstrip("\n")
            if line.startswith("id: "):
                last_id = line.removeprefix("id: ")
            elif line.startswith("data: "):
                found.append((last_id, json.loads(line.removeprefix("data: "))))
                if len(found) == count:
                    break
    return found


async def test_a_stream_begins_goes_on_and_ends_with_its_session(
    redis_client: Client, http: aiohttp.ClientSession
) -> None:
    async with served(redis_client) as here:
        await here.start("s0")
        async with http.get(f"{here.url}/v1/sessions/room/events?from=0") as response:
            assert response.status == 200
            assert response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
            assert response.headers["Cache-Control"] == "no-store"
            assert "Access-Control-Allow-Origin" not in response.headers
            ((_, started),) = await heard(response, 1)
            assert started["type"] == "session.started"
            await here.emotion("s0", 0, final=False, text="two\nlines, ü")
            await here.emotion("s0", 0)
            await here.end("s0")
            said = await heard(response)
        assert [event["seq"] for _, event in said] == [2, 3, 4]
        assert said[0][1]["text"] == "two\nlines, ü"
        # From the middle, by either way of saying so; by the session's own id, since the room's is over.
        for headers, query in (({"Last-Event-ID": said[0][0]}, ""), ({}, f"?from={said[0][0]}")):
            url = f"{here.url}/v1/sessions/s0/events{query}"
            async with http.get(url, headers=headers) as response:
                assert [event["seq"] for _, event in await heard(response)] == [3, 4]
        async with http.get(f"{here.url}/v1/sessions/s0/events?from=0&final=1") as response:
            assert [event["seq"] for _, event in await heard(response)] == [3, 4]
        for again in (said[-1][0], "$"):
            async with http.get(f"{here.url}/v1/sessions/s0/events?from={again}") as response:
                assert response.status == 204  # all is told: an EventSource would come back for ever
        await until(lambda: here.live.subscribers == 0, "no subscriber")


async def test_who_asks_for_what_is_new_is_told_where_that_begins(
    redis_client: Client, http: aiohttp.ClientSession
) -> None:
    async with served(redis_client) as here:
        await here.start("s0")
        async with http.get(f"{here.url}/v1/sessions/room/events") as response:
            assert (await response.content.readline()).startswith(b"retry: ")
            begins = (await response.content.readline()).decode().strip().removeprefix("id: ")
            await here.emotion("s0", 0)
            assert [event["seq"] for _, event in await heard(response, 1)] == [2]
        async with http.get(f"{here.url}/v1/sessions/room/events?from={begins}") as response:
            assert [event["seq"] for _, event in await heard(response, 1)] == [2]


async def test_a_room_that_was_just_opened_is_waited_for(
    redis_client: Client, http: aiohttp.ClientSession
) -> None:
    async with served(redis_client) as here:
        here.open["room"] = OpenSession("s0", "demo")  # seated, and nothing published yet
        async with http.get(f"{here.url}/v1/rooms/room") as response:
            told = {"room": "room", "session_id": "s0", "purpose": "demo", "recorded": False}
            assert await response.json() == told
        async with http.get(f"{here.url}/v1/sessions/room/events") as response:
            assert response.status == 200
            await here.start("s0")
            assert [event["type"] for _, event in await heard(response, 1)] == ["session.started"]
        async with http.get(f"{here.url}/v1/rooms/other") as response:
            nobody = {"room": "other", "session_id": None, "purpose": None, "recorded": False}
            assert await response.json() == nobody
        async with http.get(f"{here.url}/v1/rooms/kept") as response:
            assert (await response.json())["recorded"] is True


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("/v1/sessions/nobody/events", 404, "no such session"),
        ("/v1/sessions/nobody/ws", 404, "no such session"),
        ("/v1/sessions/no%20body/events", 400, "session name"),
        ("/v1/sessions/room/events?from=yesterday", 400, "stream id"),
        ("/v1/sessions/room/events?from=99999999999999999999", 400, "stream id"),
        ("/v1/sessions/room/events?from=0&final=yes", 400, "final"),
        ("/v1/rooms/ro%20om", 400, "room name"),
    ],
)
async def test_what_cannot_be_had_is_said(
    redis_client: Client, http: aiohttp.ClientSession, path: str, status: int, words: str
) -> None:
    async with served(redis_client) as here:
        await here.start("s0")
        async with http.get(here.url + path) as response:
            problem = await response.json(content_type="application/problem+json")
            assert (response.status, problem["status"]) == (status, status)
            assert words in problem["detail"]


async def test_silence_has_heartbeats_and_a_reader_who_goes_is_noticed(
    redis_client: Client, http: aiohttp.ClientSession
) -> None:
    async with served(redis_client, live=LiveEventsConfig(heartbeat_s=0.05)) as here:
        await here.start("s0")
        async with http.get(f"{here.url}/v1/sessions/room/events") as response:
            async with asyncio.timeout(5):
                while await response.content.readline() != b": alive\n":
                    pass
            assert here.live.subscribers == 1
        await until(lambda: here.live.subscribers == 0, "no subscriber")


async def test_a_reader_who_takes_nothing_holds_up_nobody_and_is_let_go(
    redis_client: Client, http: aiohttp.ClientSession
) -> None:
    async with served(redis_client, live=LiveEventsConfig(write_s=0.3)) as here:
        await here.start("s0")
        port = int(here.url.rpartition(":")[2])
        _, writer = await asyncio.open_connection("127.0.0.1", port, limit=1)
        writer.write(b"GET /v1/sessions/room/events?from=0 HTTP/1.1\r\nHost: x\r\n\r\n")
        await writer.drain()
        await until(lambda: here.live.subscribers == 1, "one subscriber")
        for n in range(80):  # 16 MB: more than sockets hold
            await here.emotion("s0", n, text="x" * 200_000)
        await until(lambda: here.live.subscribers == 0, "no subscriber")
        async with http.get(f"{here.url}/v1/sessions/room/events?from=0", read_bufsize=1 << 20) as response:
            assert response.status == 200
        writer.close()
        await redis_client.flushall()


async def test_there_is_a_bound_and_an_end(redis_client: Client, http: aiohttp.ClientSession) -> None:
    async with served(redis_client, live=LiveEventsConfig(max_subscribers=1)) as here:
        await here.start("s0")
        url = f"{here.url}/v1/sessions/room/events?from=0"
        response = await http.get(url)
        assert len(await heard(response, 1)) == 1
        async with http.get(url) as refused:
            assert refused.status == 503 and int(refused.headers["Retry-After"]) > 0
    assert await heard(response) == []  # the server's shutdown ended it
    response.close()


async def test_the_token_in_a_header_or_as_a_subprotocol(
    redis_client: Client, http: aiohttp.ClientSession
) -> None:
    async with served(redis_client, token=TOKEN) as here:
        await here.start("s0")
        mesh = "/v1/rooms/room/mesh?participant=ann"
        for path in ("/v1/sessions/room/events", "/v1/sessions/room/ws", "/v1/rooms/room", mesh):
            async with http.get(here.url + path) as response:
                assert response.status == 401
        right = {"Authorization": f"Bearer {TOKEN}"}
        async with http.get(f"{here.url}/v1/sessions/room/events?from=0", headers=right) as response:
            assert len(await heard(response, 1)) == 1
        url = f"{here.url}/v1/sessions/room/ws?from=0"
        for wrong in ((), subprotocols(None), subprotocols("not-the-token"), ("cmath-stream", "bearer.é!")):
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await http.ws_connect(url, protocols=wrong)
            assert refused.value.status == 401
        async with http.ws_connect(url, protocols=subprotocols(TOKEN)) as ws:
            assert ws.protocol == "cmath-stream"  # and not the token, which would be told back
            assert (await ws.receive_json(timeout=5))["event"]["type"] == "session.started"


async def test_the_relay_takes_the_token_too(redis_client: Client, http: aiohttp.ClientSession) -> None:
    async with served(redis_client, token=TOKEN) as here:
        url = f"{here.url}/v1/rooms/room/mesh?participant=ann"
        async with http.ws_connect(url, protocols=subprotocols(TOKEN)) as ws:
            assert (await ws.receive_json(timeout=5))["type"] == "welcome"


async def test_a_socket_tells_the_same_and_closes_with_the_session(
    redis_client: Client, http: aiohttp.ClientSession
) -> None:
    async with served(redis_client) as here:
        await here.start("s0")
        await here.emotion("s0", 0)
        async with http.ws_connect(f"{here.url}/v1/sessions/room/ws?from=0&final=1") as ws:
            first = await ws.receive_json(timeout=5)
            assert first["event"]["seq"] == 2 and first["id"].count("-") == 1
            await here.end("s0")
            assert (await ws.receive_json(timeout=5))["event"]["type"] == "session.closed"
            goodbye = await ws.receive(timeout=5)
            assert (goodbye.type, goodbye.data) == (aiohttp.WSMsgType.CLOSE, 1000)
        async with http.ws_connect(f"{here.url}/v1/sessions/s0/ws?from={first['id']}") as ws:
            assert (await ws.receive_json(timeout=5))["event"]["seq"] == 3
        await until(lambda: here.live.subscribers == 0, "no subscriber")
        await here.start("s1", "other")
        async with http.ws_connect(f"{here.url}/v1/sessions/other/ws") as ws:
            await ws.close()
        await until(lambda: here.live.subscribers == 0, "no subscriber")


async def test_a_page_of_another_origin_opens_no_socket(
    redis_client: Client, http: aiohttp.ClientSession
) -> None:
    async with served(redis_client) as here:
        await here.start("s0")
        url = f"{here.url}/v1/sessions/room/ws?from=0"
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await http.ws_connect(url, origin="https://evil.example")
        assert refused.value.status == 403
        async with http.ws_connect(url, origin=here.url) as ws:
            assert (await ws.receive_json(timeout=5))["event"]["seq"] == 1
