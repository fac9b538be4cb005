"""The relay between browsers: who hears whom, and what it does not put up with."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from realtime.access import bearer_middleware
from realtime.mesh import FULL, POLICY, REPLACED, Mesh, MeshConfig, _Member
from realtime.sockets import socket_middleware


@asynccontextmanager
async def relay(config: MeshConfig | None = None) -> AsyncIterator[tuple[Mesh, str]]:
    mesh = Mesh(lambda: [{"urls": "stun:127.0.0.1:9"}], config or MeshConfig())
    app = web.Application(middlewares=[socket_middleware, bearer_middleware(None, None)])
    mesh.add_routes(app)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield mesh, f"http://127.0.0.1:{runner.addresses[0][1]}/v1/rooms"
    finally:
        await runner.cleanup()


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def told(ws: aiohttp.ClientWebSocketResponse) -> Any:
    return await ws.receive_json(timeout=5)


async def ended(ws: aiohttp.ClientWebSocketResponse) -> int:
    """Close code, once the server has closed."""
    while (message := await ws.receive(timeout=5)).type is aiohttp.WSMsgType.TEXT:
        pass
    assert message.type is aiohttp.WSMsgType.CLOSE
    return int(message.data)


async def test_two_people_find_each_other(http: aiohttp.ClientSession) -> None:
    async with relay() as (mesh, url):
        async with http.ws_connect(f"{url}/r/mesh?participant=ann") as ann:
            assert await told(ann) == {
                "type": "welcome",
                "peers": [],
                "ice_servers": [{"urls": "stun:127.0.0.1:9"}],
            }
            async with http.ws_connect(f"{url}/r/mesh?participant=ben") as ben:
                assert (await told(ben))["peers"] == ["ann"]
                assert await told(ann) == {"type": "joined", "peer": "ben"}
                await ben.send_json({"to": "ann", "data": {"sdp": "ü"}})
                assert await told(ann) == {"type": "signal", "from": "ben", "data": {"sdp": "ü"}}
                await ann.send_json({"to": "nobody", "data": 1})  # has just left
                async with http.ws_connect(f"{url}/other/mesh?participant=cat") as cat:
                    assert (await told(cat))["peers"] == []  # rooms do not hear each other
            assert await told(ann) == {"type": "left", "peer": "ben"}
    assert mesh._rooms == {}


async def test_who_comes_back_takes_their_own_place(http: aiohttp.ClientSession) -> None:
    async with relay(MeshConfig(people=2)) as (_, url):
        async with (
            http.ws_connect(f"{url}/r/mesh?participant=ann") as ann,
            http.ws_connect(f"{url}/r/mesh?participant=ben") as before,
        ):
            await told(before)
            async with http.ws_connect(f"{url}/r/mesh?participant=ben") as ben:
                assert (await told(ben))["peers"] == ["ann"]
                assert await ended(before) == REPLACED
                assert [(await told(ann))["type"] for _ in range(4)] == [
                    "welcome",
                    "joined",
                    "left",
                    "joined",
                ]


async def test_rooms_and_their_number_are_bounded(http: aiohttp.ClientSession) -> None:
    async with relay(MeshConfig(people=1, rooms=1)) as (_, url):
        async with http.ws_connect(f"{url}/r/mesh?participant=ann") as ann:
            await told(ann)
            for path in ("r/mesh?participant=ben", "second/mesh?participant=ben"):
                async with http.ws_connect(f"{url}/{path}") as ben:
                    assert await ended(ben) == FULL


@pytest.mark.parametrize("message", ["no json", "[]", '{"to": 1, "data": 2}', '{"to": "x"}', "[" * 10_000])
async def test_what_makes_no_sense_ends_the_connection(http: aiohttp.ClientSession, message: str) -> None:
    async with relay() as (_, url), http.ws_connect(f"{url}/r/mesh?participant=ann") as ann:
        await ann.send_str(message)
        assert await ended(ann) == POLICY


async def test_size_and_rate_are_bounded(http: aiohttp.ClientSession) -> None:
    async with relay(MeshConfig(message_bytes=1000, burst=3, per_s=0.001)) as (mesh, url):
        async with http.ws_connect(f"{url}/r/mesh?participant=ann") as ann:
            await ann.send_json({"to": "x", "data": "y" * 2000})
            assert await ended(ann) == 1009
        async with http.ws_connect(f"{url}/r/mesh?participant=ann") as ann:
            for _ in range(4):
                await ann.send_json({"to": "x", "data": 1})
            assert await ended(ann) == POLICY
        assert mesh._rooms == {}


async def test_who_reads_too_slowly_is_let_go() -> None:
    member = _Member(web.WebSocketResponse(), asyncio.Queue(1))
    member.tell({"type": "joined", "peer": "a"})
    member.tell({"type": "joined", "peer": "b"})
    assert member.over.is_set() and member.code == POLICY


@pytest.mark.parametrize("path", ["r/mesh", "r%20r/mesh?participant=a", "r/mesh?participant=a%2Fb"])
async def test_names_are_checked(http: aiohttp.ClientSession, path: str) -> None:
    async with relay() as (_, url):
        async with http.get(f"{url}/{path}") as response:
            assert response.status == 400
            assert "name" in (await response.json(content_type="application/problem+json"))["detail"]


async def test_shutting_down_says_goodbye(http: aiohttp.ClientSession) -> None:
    async with relay() as (_, url):
        ann = await http.ws_connect(f"{url}/r/mesh?participant=ann")
        await told(ann)
        goodbye = asyncio.create_task(ended(ann))
    assert await goodbye == 1001
