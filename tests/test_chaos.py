"""Processes die, stand still and lose Redis while eight people speak: nothing said is lost, nothing twice.

Real processes, real WebRTC, a real server. Roles are started again as any orchestrator does. What is promised
of the utterances whose segment was written: one end each, in order.
"""

from __future__ import annotations

import asyncio
import collections
import json
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import numpy as np
import pytest

from cmath_stream.events import Event
from cmath_stream.supervise import READY
from realtime.messages import SAMPLE_RATE_HZ
from realtime.recording import Recording
from realtime.redis_bus import RedisConfig, connect
from realtime.redis_events import EventLog
from realtime.redis_server import RedisServer
from tests.conftest import until
from tests.test_call import DEMO, _write_wav

pytestmark = [pytest.mark.chaos, pytest.mark.slow, pytest.mark.timeout(420)]

ROOMS, PEOPLE = 4, ("anna", "ben")
UTTERANCES = 25  # of each of the eight
SPACING_S, PIECE_S = 2.2, 0.9
WORKERS = ("text", "audio", "visual")


class Keeper:
    """A role in a process of its own, started again whenever it ends."""

    def __init__(self, role: tuple[str, ...], environ: dict[str, str]) -> None:
        self.role, self.starts = role, 0
        self._environ = environ
        self._process: asyncio.subprocess.Process | None = None
        self.ready = asyncio.Event()

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        os.kill(self._process.pid, number)

    async def run(self) -> None:
        try:
            while True:
                await self._once()
        finally:
            if self._process is not None and self._process.returncode is None:
                with suppress(ProcessLookupError):
                    self._process.send_signal(signal.SIGCONT)
                    self._process.kill()
                await self._process.wait()

    async def _once(self) -> None:
        self.ready.clear()
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "cmath_stream", "--die-with", str(os.getpid()), *self.role,
            env=self._environ, stdout=asyncio.subprocess.PIPE, process_group=0,
        )  # fmt: skip
        self.starts += 1
        assert self._process.stdout is not None
        if await self._process.stdout.readline() == READY:
            self.ready.set()
        await self._process.wait()


class Installation:
    """Redis, one ingest, three workers, two fusions."""

    def __init__(self, folder: Path) -> None:
        self.redis = RedisServer(folder / "redis")
        self.redis.start()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.http = f"http://127.0.0.1:{probe.getsockname()[1]}"
        environ = {
            **os.environ,
            "REDIS_URL": self.redis.url,
            "OMP_NUM_THREADS": "1",
            "CMATH_STREAM__INGEST__PORT": self.http.rpartition(":")[2],
            "CMATH_STREAM__INGEST__LOOPBACK_ONLY": "true",
            "CMATH_STREAM__SESSION__LINGER_S": "1",
            "CMATH_STREAM__TEXT__WHISPER": "none",
        }
        fusions = [("worker", "fuse", "--name", name) for name in ("fuse-1", "fuse-2")]
        roles = [("serve",), *[("worker", modality) for modality in WORKERS], *fusions]
        self.keepers = {" ".join(role): Keeper(role, environ) for role in roles}

    def of(self, *role: str) -> Keeper:
        return self.keepers[" ".join(role)]


@asynccontextmanager
async def installed(folder: Path) -> AsyncIterator[Installation]:
    made = Installation(folder)
    keeping = [asyncio.create_task(keeper.run()) for keeper in made.keepers.values()]
    try:
        async with asyncio.timeout(120):
            for keeper in made.keepers.values():
                await keeper.ready.wait()
        yield made
    finally:
        for task in keeping:
            task.cancel()
        await asyncio.gather(*keeping, return_exceptions=True)
        made.redis.close()


def record(folder: Path, name: str, first_s: float) -> None:
    """One person's part of a call: pieces of the demo at a steady pace, with a caption each."""
    spoken = np.concatenate([chunk.pcm for chunk in Recording.open(DEMO / f"{name}.opus").audio()])
    script = json.loads((DEMO / "script.json").read_text("utf-8"))
    piece = round(PIECE_S * SAMPLE_RATE_HZ)
    begins = [line["start_ms"] * 16 for line in script if line["speaker"] == name]
    track = np.zeros(round((first_s + UTTERANCES * SPACING_S + 1) * SAMPLE_RATE_HZ), np.float32)
    captions = ["WEBVTT", ""]
    for n in range(UTTERANCES):
        at_s = first_s + n * SPACING_S
        at, begin = round(at_s * SAMPLE_RATE_HZ), begins[n % len(begins)]
        track[at : at + piece] = spoken[begin : begin + piece]
        captions += [f"{_clock(at_s)} --> {_clock(at_s + PIECE_S)}", f"<v {name}>This is number {n}.", ""]
    _write_wav(folder / f"{name}.wav", track)
    (folder / f"{name}.vtt").write_text("\n".join(captions))


def _clock(at_s: float) -> str:
    return f"00:{int(at_s // 60):02}:{at_s % 60:06.3f}"


async def publish(made: Installation, folder: Path, room: int) -> int:
    files = [str(folder / f"{name}.wav") for name in PEOPLE]
    captions = [part for name in PEOPLE for part in ("--captions", str(folder / f"{name}.vtt"))]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "cmath_stream", "publish", *files, *captions,
        "--whip", f"{made.http}/whip/room-{room}", stdout=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        return await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def told(made: Installation) -> list[Event]:
    """Everything that was published, of every session, each event once."""
    config = RedisConfig(url=made.redis.url)
    async with connect(config) as client:
        sessions = [key.decode() async for key in client.scan_iter(match="emo:{*}:events")]
        log = EventLog(client, config)
        found: list[Event] = []
        for key in sessions:
            entries = await log.read(key[key.index("{") + 1 : key.index("}")], "0", 0, 10_000)
            found += [event for _, event in entries]
        return found


async def freeze(keeper: Keeper, seconds: float) -> None:
    """Longer than its lease."""
    keeper.signal(signal.SIGSTOP)
    await asyncio.sleep(seconds)
    keeper.signal(signal.SIGCONT)


async def test_two_hundred_utterances_survive_every_kind_of_death(tmp_path: Path) -> None:
    for n, name in enumerate(PEOPLE):
        record(tmp_path, name, 1.0 + n * SPACING_S / 2)
    async with installed(tmp_path) as made:

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
    sessions = collections.defaultdict(list)
    for event in events:
        sessions[event["session_id"]].append(event)
    ends: collections.Counter[str] = collections.Counter()
    said = dropped = 0
    for each in sessions.values():
        assert [event["seq"] for event in each] == list(range(1, len(each) + 1))
        final = [event for event in each if event.get("is_final")]
        lost = [event for event in each if event["type"] == "utterance.dropped"]
        started = {event["utterance_id"] for event in each if event["type"] == "utterance.started"}
        ended = [event["utterance_id"] for event in final + lost]
        assert len(ended) == len(set(ended)) and set(ended) == started
        first = [event for event in each if event["type"] == "emotion.utterance"]
        order = list(dict.fromkeys(event["index"] for event in first))
        assert order == sorted(order)
        totals = each[-1]["totals"]
        assert totals == {"started": len(started), "emotions": len(final), "dropped": len(lost)}
        said, dropped = said + len(final), dropped + len(lost)
        ends.update(map(_used, final))
    print(f"{said} emotions, {dropped} dropped, 0 lost, 0 twice; used: {dict(ends)}; starts: {starts}")
    assert len(sessions) == ROOMS and said + dropped == ROOMS * len(PEOPLE) * UTTERANCES
    assert dropped <= 0.05 * said  # those for which no worker was there until their deadline


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


def _used(event: Event) -> str:
    return "+".join(name for name, modality in event["modalities"].items() if modality["used"]) or "nothing"
