"""What doctor says of a Redis, of servers for ICE and of recordings: each in one line, with what to do."""

from __future__ import annotations

import socket
from dataclasses import replace
from pathlib import Path

import pytest

from cmath_stream import doctor
from cmath_stream.config import Settings
from realtime.errors import CmathStreamError, SettingsError
from realtime.redis_bus import RedisConfig, connect
from realtime.redis_server import RedisServer
from realtime.server import IngestConfig
from realtime.taping import TapeConfig
from realtime.turn import TurnConfig
from tests.test_turn import SECRET, relay

__all__ = ["relay"]  # a fixture


async def test_of_a_redis_that_may_lose_something(own_server: RedisServer) -> None:
    settings = Settings(redis=RedisConfig(url=own_server.url))
    async with connect(settings.redis) as client:
        await client.config_set("appendonly", "no")
        await client.config_set("maxmemory-policy", "allkeys-lru")
        told = await doctor._redis(settings)
        assert "maxmemory-policy is allkeys-lru: sessions may vanish, set noeviction" in told
        assert "appendonly is off: a restart loses what is under way" in told
        await client.config_set("appendonly", "yes")
        await client.config_set("maxmemory-policy", "noeviction")
    assert ";" not in await doctor._redis(settings)


async def test_of_a_clock(own_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(redis=RedisConfig(url=own_server.url))
    assert "ms off Redis's" in await doctor._clock(settings)
    real = __import__("time").time
    monkeypatch.setattr("realtime.wall_clock.time.time", lambda: real() + 90)
    with pytest.raises(CmathStreamError, match=r"\+90\.0 s off Redis's, .* set it by NTP"):
        await doctor._clock(settings)


async def test_of_a_relay(relay: int) -> None:
    url = f"turn:127.0.0.1:{relay}?transport=udp"

    def told(secret: str) -> Settings:
        return Settings(ingest=IngestConfig(turn=TurnConfig((url,), secret)))

    assert await doctor._ice(told(SECRET)) == url
    with pytest.raises(
        CmathStreamError, match="no address from turn:127.0.0.1:.*: is it up, and is the secret"
    ):
        await doctor._ice(told("another"))


@pytest.mark.slow
async def test_of_a_stun_server_that_is_not_there() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as deaf:
        deaf.bind(("127.0.0.1", 0))
        url = f"stun:127.0.0.1:{deaf.getsockname()[1]}"
        with pytest.raises(CmathStreamError, match=f"no address from {url}"):
            await doctor._ice(Settings(ingest=IngestConfig(ice_servers=(url,))))
    assert "none set" in await doctor._ice(Settings())


async def test_of_recordings(tmp_path: Path) -> None:
    key = tmp_path / "key"
    settings = Settings(tape=TapeConfig(str(tmp_path / "tapes"), str(key), ("lab-*",)))
    assert await doctor._tape(Settings()) == "off: nothing is recorded"
    with pytest.raises(SettingsError, match="key .* cannot be read"):
        await doctor._tape(settings)
    key.write_text("ab" * 32)
    assert "rooms lab-* are recorded" in await doctor._tape(settings)
    nobody = replace(settings, tape=replace(settings.tape, rooms=()))
    assert "(none)" in await doctor._tape(nobody)
