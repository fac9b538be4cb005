"""How soon a participant is heard after it asks to join, and that 500 who came and went left nothing."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from realtime import telemetry
from realtime.messages import Message
from realtime.server import IngestConfig, make_app
from realtime.session import Rooms, SessionConfig
from realtime.vad import VadModel
from tests.calls import SDP, GreyTrack, ToneTrack, calling, offer_of, quiet, serving, until
from tests.fake_rooms import FakeRooms


@pytest.fixture
def dead_stun() -> Iterator[str]:
    """A STUN server that is there and never answers."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as deaf:
        deaf.bind(("127.0.0.1", 0))
        yield f"stun:127.0.0.1:{deaf.getsockname()[1]}"


async def join_s(config: IngestConfig) -> float:
    """From the wish to join (no offer made yet) to the first sound at the seat, best of three."""
    clock = asyncio.get_running_loop().time
    took: list[float] = []
    for _ in range(3):
        rooms = FakeRooms()
        async with serving(rooms, config) as url:
            begun_s = clock()
            async with calling(f"{url}/whip/room", ToneTrack()):
                await rooms.until(lambda: rooms.seats and rooms.seats[0].audio)  # noqa: B023 - awaited here
                took.append(clock() - begun_s)
    print(f"join to first frame: {' '.join(f'{s:.2f}' for s in took)} s")
    return min(took)


async def test_a_join_takes_less_than_a_second() -> None:
    assert await join_s(IngestConfig(loopback_only=True)) < 1.0


async def test_a_dead_stun_server_costs_half_a_second_more_at_most(dead_stun: str) -> None:
    assert await join_s(IngestConfig(loopback_only=True, ice_servers=(dead_stun,))) < 1.5


# ---- churn -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Census:
    """What this process holds: server and clients are both in it."""

    rss_mb: float
    objects: int  # Python's
    tasks: int
    threads: tuple[str, ...]
    files: int
    sockets: int

    @classmethod
    def take(cls) -> Census:
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)  # what is free is not held, whatever the allocator keeps
        targets = []
        for entry in os.scandir("/proc/self/fd"):
            try:
                targets.append(os.readlink(entry.path))
            except FileNotFoundError:  # the descriptor of this very listing
                continue
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return cls(
            rss_mb=pages * os.sysconf("SC_PAGE_SIZE") / 1e6,
            objects=len(gc.get_objects()),
            tasks=len(asyncio.all_tasks()),
            threads=tuple(sorted(thread.name for thread in threading.enumerate())),
            files=len(targets),
            sockets=sum(target.startswith("socket:") for target in targets),
        )


async def come_and_go(http: aiohttp.ClientSession, url: str, n: int) -> None:
    """One participant in a room of its own; how it leaves goes round."""
    target = f"{url}/whip/room-{n}"
    if n % 10 == 9:  # it asks and is never seen again, but for its DELETE
        async with http.post(target, data=await offer_of(ToneTrack()), headers=SDP) as response:
            location = response.headers["Location"]
        async with http.delete(url + location):
            return
    tracks = [ToneTrack(), GreyTrack()] if n % 5 == 0 else [ToneTrack()]
    received = telemetry.FRAMES_RECEIVED_TOTAL.labels(kind="audio")._value
    before = received.get()
    async with calling(target, *tracks) as call:
        await call.ready()
        call.say(start_ms=0, end_ms=100, text="passing by")
        await until(lambda: received.get() > before, "sound")
        if n % 2:  # else it says goodbye by DTLS alone
            async with call.http.delete(call.resource):
                pass


@pytest.mark.alone
@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")
async def test_five_hundred_joins_and_leaves_leave_nothing() -> None:
    closed: Counter[str] = Counter()

    def emit(message: Message) -> None:
        closed[type(message).__name__] += 1

    rooms = Rooms(SessionConfig(linger_s=0.1, tick_s=0.05), VadModel(), emit)
    runner = web.AppRunner(make_app(rooms, IngestConfig(loopback_only=True)))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    async with aiohttp.ClientSession() as http:

        async def settle(joins: int) -> Census:
            await until(lambda: closed["SessionClosed"] == joins, "every session closed", timeout_s=20)
            await quiet()
            census = Census.take()
            print(f"after {joins} joins: {census}")
            return census

        for n in range(100):
            await come_and_go(http, url, n)
        early = await settle(100)
        for n in range(100, 500):
            await come_and_go(http, url, n)
        late = await settle(500)
    await rooms.close()
    await runner.cleanup()
    assert closed["ParticipantLeft"] == closed["ParticipantJoined"] == 500
    assert late.tasks <= early.tasks + 1
    assert len(late.threads) <= len(early.threads) + 3  # pools fill as they are used, up to their bound
    assert not any("decoder" in name for name in late.threads)
    assert late.files <= early.files + 2 and late.sockets <= early.sockets + 1  # connections kept alive
    assert late.objects <= early.objects + 1000  # a peer that is kept holds hundreds
    assert late.rss_mb <= early.rss_mb + 12  # 0 to 6 are seen, in no order; 30 kB a join would be a leak
