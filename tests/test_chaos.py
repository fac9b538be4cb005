"""Processes die, stand still and lose Redis while eight people speak: nothing said is lost, nothing twice.

Real processes, real WebRTC, a real server. Roles are started again as any orchestrator does. What is promised
of the utterances whose segment was written: one end each, in order.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from cmath_stream.events import Event
from tests.chaos import (
    PEOPLE,
    SPACING_S,
    WORKERS,
    Installation,
    Keeper,
    checked,
    publish,
    record,
    running,
    told,
)
from tests.conftest import until

pytestmark = [pytest.mark.chaos, pytest.mark.alone, pytest.mark.slow, pytest.mark.timeout(420)]

ROOMS = 4
UTTERANCES = 25  # of each of the eight


async def freeze(keeper: Keeper, seconds: float) -> None:
    """Longer than its lease."""
    keeper.signal(signal.SIGSTOP)
    await asyncio.sleep(seconds)
    keeper.signal(signal.SIGCONT)


async def test_two_hundred_utterances_survive_every_kind_of_death(tmp_path: Path) -> None:
    for n, name in enumerate(PEOPLE):
        record(tmp_path, name, 1.0 + n * SPACING_S / 2, UTTERANCES)
    made = Installation(tmp_path)
    for role in (*WORKERS, "fuse --name fuse-1", "fuse --name fuse-2"):
        made.add(("worker", *role.split()))
    async with running(made):

        async def redis_restarts() -> None:
            await asyncio.to_thread(made.redis.stop)
            await asyncio.sleep(3)
            made.redis.start()

        async def kill(*role: str) -> None:
            made.of(*role).signal(signal.SIGKILL)

        one, two = (made.of("worker", "fuse", "--name", name) for name in ("fuse-1", "fuse-2"))

        async def kill_in_turn() -> None:
            one.signal(signal.SIGKILL)
            await asyncio.sleep(1)
            await one.ready.wait()
            two.signal(signal.SIGKILL)

        acts: list[tuple[float, Callable[[], Awaitable[None]]]] = [
            *[(4, lambda m=m: kill("worker", m)) for m in WORKERS],
            (4, kill_in_turn),
            (6, lambda: freeze(one, 6.0)),  # by now it owns everything
            (3, redis_restarts),
        ]
        calls = [asyncio.create_task(publish(made, tmp_path, room)) for room in range(ROOMS)]
        for after_s, act in acts:
            await asyncio.sleep(after_s)
            await act()
        assert await asyncio.gather(*calls) == [0] * ROOMS

        async def over() -> bool:
            closed = [event for event in await told(made) if event["type"] == "session.closed"]
            return len(closed) == ROOMS

        await until(over, timeout_s=90)
        events = await told(made)
        starts = {name: keeper.starts for name, keeper in made.keepers.items()}
        await an_ingest_dies(made, tmp_path)

    assert all(starts[f"worker {modality}"] == 2 for modality in WORKERS), starts
    found = checked(events)
    print(f"{found}; 0 lost, 0 twice; starts: {starts}")
    assert found.sessions == ROOMS and found.said + found.dropped == ROOMS * len(PEOPLE) * UTTERANCES
    assert found.dropped <= 0.05 * found.said  # those for which no worker was there until their deadline


async def an_ingest_dies(made: Installation, folder: Path) -> None:
    """What was open ends within ten seconds; the publisher sees its calls end."""
    before = {event["session_id"] for event in await told(made)}

    async def this(kind: str) -> list[Event]:
        return [e for e in await told(made) if e["session_id"] not in before and e["type"] == kind]

    call = asyncio.create_task(publish(made, folder, ROOMS))

    async def speaking() -> bool:
        started, ended = len(await this("utterance.started")), len(await this("utterance.ended"))
        return started > ended >= 4

    await until(speaking, timeout_s=60)
    made.of("serve").signal(signal.SIGKILL)
    died_s = time.monotonic()

    async def dropped() -> bool:
        return bool(await this("utterance.dropped"))

    await until(dropped, timeout_s=20)
    took_s = time.monotonic() - died_s
    (lost,) = {event["reason"] for event in await this("utterance.dropped")}
    print(f"an ingest died: what was open ended after {took_s:.1f} s as {lost}")
    assert lost == "ingest_lost" and took_s <= 10.0
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
