"""A role without HTTP of its own tells how it is, where it is given a port, and only there."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import aiohttp
import pytest
import redis.asyncio

from cmath_stream import roles
from cmath_stream.config import FusionConfig, Settings
from realtime.errors import SettingsError
from realtime.redis_bus import RedisConfig
from realtime.status import StatusConfig, always_ready, status_door
from tests.conftest import until


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def test_it_tells_when_it_is_ready() -> None:
    why_not: list[str | None] = ["loading"]

    async def ready() -> str | None:
        return why_not[0]

    config = StatusConfig(port=free_port())
    root = f"http://127.0.0.1:{config.port}"
    async with status_door(config, ready), aiohttp.ClientSession() as http:

        async def ask(path: str) -> tuple[int, str]:
            async with http.get(root + path) as response:
                return response.status, await response.text()

        assert await ask("/readyz") == (503, "loading\n")
        why_not[0] = None
        assert await ask("/readyz") == (200, "ready\n")
        assert await ask("/healthz") == (200, "ok\n")
        status, text = await ask("/metrics")
        assert status == 200 and "cmath_stream_utterances_total" in text
        assert (await ask("/whip/room"))[0] == 404


async def test_no_port_no_door_and_a_taken_one_is_said() -> None:
    async with status_door(StatusConfig(), always_ready):
        pass
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        config = StatusConfig(port=taken.getsockname()[1])
        with pytest.raises(SettingsError, match=r"set status\.port"):
            async with status_door(config, always_ready):
                pass
    with pytest.raises(ValueError):
        StatusConfig(port=-1)


async def test_the_fusion_has_one(redis_client: redis.asyncio.Redis, redis_url: str, tmp_path: Path) -> None:
    port, stop = free_port(), asyncio.Event()
    config = Settings(
        redis=RedisConfig(url=redis_url), fusion=FusionConfig("live-small"), status=StatusConfig(port=port)
    )
    fusion = asyncio.create_task(roles.fuse(config, "one", stop, lambda: None))

    async def ready() -> bool:
        async with aiohttp.ClientSession() as http:
            try:
                async with http.get(f"http://127.0.0.1:{port}/readyz") as response:
                    return response.status == 200
            except aiohttp.ClientConnectionError:
                return False

    await until(ready, timeout_s=60, every_s=0.05)
    stop.set()
    await fusion
    assert not await ready()
