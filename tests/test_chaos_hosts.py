"""Two hosts share the work; one is cut off, a clock is wrong, a disk is full: nothing said is lost.

The hosts are network namespaces, each with a link of its own to Redis; only root can make them.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from pathlib import Path

import pytest

from realtime.redis_bus import RedisConfig, connect
from tests.chaos import (
    PEOPLE,
    SPACING_S,
    WORKERS,
    Installation,
    checked,
    publish,
    record,
    running,
    told,
)
from tests.conftest import until

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.alone,
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(
        os.geteuid() != 0 or shutil.which("ip") is None or sys.platform != "linux",
        reason="only root can make network namespaces (iproute2)",
    ),
]

ROOMS = 2
UTTERANCES = 20  # of each of the four
HOSTS = ("one", "two")
AHEAD_S = 3600  # the clock of a worker
DISK_MB = 64


class Host:
    """A network namespace that sees nothing but Redis, over one link."""

    def __init__(self, number: int) -> None:
        self.name = f"cmath-{os.getpid()}-{number}"
        self.link = f"cm{os.getpid() % 100_000}n{number}"  # at most 15 characters
        self.here, self.there = (f"10.213.{number}.{side}" for side in (1, 2))

    @property
    def within(self) -> tuple[str, ...]:
        return ("ip", "netns", "exec", self.name)

    def cut(self) -> None:
        _ip("link", "set", self.link, "down")

    def mend(self) -> None:
        _ip("link", "set", self.link, "up")


@contextmanager
def host(number: int) -> Iterator[Host]:
    made = Host(number)
    inner = f"{made.link}i"
    try:
        _ip("netns", "add", made.name)
        _ip("link", "add", made.link, "type", "veth", "peer", "name", inner, "netns", made.name)
        _ip("addr", "add", f"{made.here}/24", "dev", made.link)
        made.mend()
        for words in (
            f"addr add {made.there}/24 dev {inner}",
            f"link set {inner} up",
            "link set lo up",
        ):
            _ip("-n", made.name, *words.split())
        yield made
    finally:
        with suppress(subprocess.CalledProcessError):
            _ip("link", "del", made.link)
        with suppress(subprocess.CalledProcessError):
            _ip("netns", "del", made.name)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@asynccontextmanager
async def relayed(address: str, port: int) -> AsyncIterator[None]:
    """Redis listens on loopback; this is its door towards one host."""

    async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with closing(sink), suppress(ConnectionError):
            while part := await source.read(1 << 16):
                sink.write(part)
                await sink.drain()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            redis_reader, redis_writer = await asyncio.open_connection("127.0.0.1", port)
        except ConnectionError:  # it restarts
            writer.close()
            return
        await asyncio.gather(pump(reader, redis_writer), pump(redis_reader, writer))

    server = await asyncio.start_server(serve, address, port)
    try:
        yield
    finally:
        server.close()


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


async def full(disk: Path, seconds: float) -> None:
    """Nothing can be written to it for a while."""
    with suppress(OSError), (disk / "ballast").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(1 << 16))
    await asyncio.sleep(seconds)
    (disk / "ballast").unlink()


def wrong_clock(folder: Path) -> dict[str, str]:
    """The environment of a Python whose clock is ahead."""
    folder.mkdir()
    lines = ["import time", "_right = time.time", f"time.time = lambda: _right() + {AHEAD_S}"]
    (folder / "sitecustomize.py").write_text("\n".join(lines))
    return {"PYTHONPATH": os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))}


async def at_work(made: Installation) -> set[str]:
    """Names of the workers that have got anything to do."""
    config = RedisConfig(url=made.redis.url)
    found = set()
    async with connect(config) as client:
        for shard in range(config.shards):
            for group in WORKERS:
                with suppress(Exception):
                    for each in await client.xinfo_consumers(config.keys.segments(shard), group):
                        if each.get("inactive", -1) >= 0:
                            found.add(f"{group} {each['name'].decode()}")
    return found


async def test_two_hosts_share_the_work_and_one_may_go(tmp_path: Path) -> None:
    for n, name in enumerate(PEOPLE):
        record(tmp_path, name, 1.0 + n * SPACING_S / 2, UTTERANCES)
    with small_disk(tmp_path / "redis") as disk, host(1) as one, host(2) as two:
        made = Installation(tmp_path)
        port = made.redis.port
        skewed = wrong_clock(tmp_path / "clock")
        for each, name in zip((one, two), HOSTS, strict=True):
            url = {"REDIS_URL": f"redis://{each.here}:{port}/0"}
            for role in (*WORKERS, "fuse"):
                odd = skewed if (role, name) == ("audio", "one") else {}
                made.add(("worker", role, "--name", name), each.within, **url, **odd)
        async with relayed(one.here, port), relayed(two.here, port), running(made):
            calls = [asyncio.create_task(publish(made, tmp_path, room)) for room in range(ROOMS)]
            await asyncio.sleep(10)
            shared = await at_work(made)
            two.cut()
            await asyncio.sleep(15)
            await full(disk, 3.0)
            await asyncio.sleep(5)
            two.mend()
            assert await asyncio.gather(*calls) == [0] * ROOMS

            async def over() -> bool:
                closed = [event for event in await told(made) if event["type"] == "session.closed"]
                return len(closed) == ROOMS

            await until(over, timeout_s=60)
            events = await told(made)
    found = checked(events)
    reasons = [
        f"{name} {modality['reason']}"
        for event in events
        if event.get("is_final")
        for name, modality in event["modalities"].items()
        if not modality["used"] and name != "visual"
    ]
    print(f"{found}; at work: {sorted(shared)}; missing: {reasons}")
    assert shared == {f"{role} {name}" for role in WORKERS for name in HOSTS}
    assert found.sessions == ROOMS and found.said + found.dropped == ROOMS * len(PEOPLE) * UTTERANCES
    assert found.dropped <= 0.05 * found.said
    assert len(reasons) <= 0.2 * found.said  # what a host had in hand, not all of it
