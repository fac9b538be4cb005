"""Three times as many as there is room for: who is in is served as before, the others are told to wait."""

from __future__ import annotations

import asyncio
import itertools
import json
import signal
from pathlib import Path

import aiohttp
import numpy as np
import pytest

from cmath_stream.events import Event
from tests.chaos import PEOPLE, SPACING_S, WORKERS, Installation, publish, record, running, told
from tests.conftest import until
from tests.offers.record import OFFERS

pytestmark = [pytest.mark.alone, pytest.mark.slow, pytest.mark.timeout(240)]

ROOMS = 2
PLACES = ROOMS * len(PEOPLE)
UTTERANCES = 6
KNOCKERS = 2 * PLACES  # beside those who are in
KNOCK_S = 0.5  # more often than Retry-After asks for
SDP = {"Content-Type": "application/sdp"}


async def closed(made: Installation, count: int) -> list[Event]:
    """All events, once so many sessions are over."""

    async def over() -> bool:
        return [event["type"] for event in await told(made)].count("session.closed") == count

    await until(over, timeout_s=60, every_s=0.5)
    return await told(made)


async def served(made: Installation, folder: Path, before: int) -> list[int]:
    """One call in each room; milliseconds from the end of speech to the first answer of each utterance."""
    old = {event["event_id"] for event in await told(made)}
    calls = [publish(made, folder, before + room) for room in range(ROOMS)]
    assert await asyncio.gather(*calls) == [0] * ROOMS
    new = [event for event in await closed(made, before + ROOMS) if event["event_id"] not in old]
    first = [e for e in new if e["type"] == "emotion.utterance" and e["revision"] == 0]
    assert len(first) == PLACES * UTTERANCES
    return [event["latency_ms"]["total"] for event in first]


async def knock(url: str, offer: str, statuses: list[int]) -> None:
    """Ask to be let in, again and again."""
    async with aiohttp.ClientSession() as http:
        while True:
            async with http.post(url, data=offer, headers=SDP) as response:
                statuses.append(response.status)
                assert response.status != 503 or int(response.headers["Retry-After"]) > 0
            await asyncio.sleep(KNOCK_S)


async def test_who_is_in_is_served_as_before(tmp_path: Path) -> None:
    for n, name in enumerate(PEOPLE):
        record(tmp_path, name, 1.0 + n * SPACING_S / 2, UTTERANCES)
    made = Installation(tmp_path)
    made.environ |= {
        "CMATH_STREAM__INGEST__MAX_PARTICIPANTS": str(PLACES),
        "CMATH_STREAM__INGEST__REQUESTS_PER_S": "1000",  # the door itself is to say no
    }
    for role in ("serve", *(f"worker {role}" for role in WORKERS), "worker fuse"):
        made.add(tuple(role.split()))
    offer = (OFFERS / "chromium.sdp").read_text()
    async with running(made):
        alone = await served(made, tmp_path, 0)
        statuses: list[int] = []

        async def full() -> bool:
            joined = [event for event in await told(made) if event["type"] == "participant.joined"]
            return len(joined) == 2 * PLACES

        async def crowd() -> None:
            await until(full, timeout_s=20, every_s=0.5)
            urls = [f"{made.http}/whip/knock-{n}" for n in range(KNOCKERS)]
            await asyncio.gather(*(knock(url, offer, statuses) for url in urls))

        knocking = asyncio.create_task(crowd())
        crowded = await served(made, tmp_path, ROOMS)
        knocking.cancel()
        await asyncio.gather(knocking, return_exceptions=True)
    p = {name: np.percentile(each, (50, 95)) for name, each in (("alone", alone), ("crowded", crowded))}
    print(json.dumps({name: each.tolist() for name, each in p.items()}), len(statuses), "knocks")
    assert statuses.count(503) > 30
    assert (p["crowded"] <= 1.5 * p["alone"]).all()


async def test_while_the_workers_stand_still_no_session_begins(tmp_path: Path) -> None:
    for n, name in enumerate(PEOPLE):
        record(tmp_path, name, 1.0 + n * SPACING_S / 2, UTTERANCES)
    made = Installation(tmp_path)
    made.environ |= {"CMATH_STREAM__SESSION__FULL_BACKLOG": "2", "CMATH_STREAM__SESSION__EARLY_BACKLOG": "2"}
    for role in ("serve", *(f"worker {role}" for role in WORKERS), "worker fuse"):
        made.add(tuple(role.split()))
    offer = (OFFERS / "chromium.sdp").read_text()

    rooms = (f"{made.http}/whip/late-{n}" for n in itertools.count())  # one that is open lingers

    async def status() -> int:
        async with aiohttp.ClientSession() as http:
            async with http.post(next(rooms), data=offer, headers=SDP) as response:
                if response.status == 201:
                    await http.delete(made.http + response.headers["Location"])
                return response.status

    async def refused() -> bool:
        return await status() == 503

    async def let_in() -> bool:
        return await status() == 201

    async with running(made), asyncio.TaskGroup() as calls:
        call = calls.create_task(publish(made, tmp_path, 0))
        await until(let_in, timeout_s=10, every_s=0.5)
        made.of("worker", "audio").signal(signal.SIGSTOP)
        await until(refused, timeout_s=20, every_s=0.5)
        made.of("worker", "audio").signal(signal.SIGCONT)
        await until(let_in, timeout_s=20, every_s=0.5)
        assert await call == 0
