"""An installation of real processes that is disturbed, what is said in it, and what must hold afterwards."""

from __future__ import annotations

import asyncio
import collections
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cmath_stream.events import Event
from cmath_stream.supervise import READY
from realtime.messages import SAMPLE_RATE_HZ
from realtime.recording import Recording
from realtime.redis_bus import RedisConfig, connect
from realtime.redis_events import EventLog
from realtime.redis_server import RedisServer
from tests.test_call import DEMO, _write_wav

PEOPLE = ("anna", "ben")
WORKERS = ("text", "audio", "visual")
SPACING_S, PIECE_S = 2.2, 0.9


class Keeper:
    """A role in a process of its own, started again whenever it ends."""

    def __init__(self, role: tuple[str, ...], environ: dict[str, str], within: Sequence[str] = ()) -> None:
        """`within`: a command that runs it somewhere else."""
        self.role, self.starts = role, 0
        self._environ, self._within = environ, within
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
            *self._within, sys.executable, "-m", "cmath_stream", "--die-with", str(os.getpid()), *self.role,
            env=self._environ, stdout=asyncio.subprocess.PIPE, process_group=0,
        )  # fmt: skip
        self.starts += 1
        assert self._process.stdout is not None
        if await self._process.stdout.readline() == READY:
            self.ready.set()
        await self._process.wait()


class Installation:
    """Redis, one ingest, and what a test adds before they start."""

    def __init__(self, folder: Path) -> None:
        self.redis = RedisServer(folder / "redis")
        self.redis.start()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.http = f"http://127.0.0.1:{probe.getsockname()[1]}"
        self.environ = {
            **os.environ,
            "REDIS_URL": self.redis.url,
            "OMP_NUM_THREADS": "1",
            "CMATH_STREAM__INGEST__PORT": self.http.rpartition(":")[2],
            "CMATH_STREAM__INGEST__LOOPBACK_ONLY": "true",
            "CMATH_STREAM__SESSION__LINGER_S": "1",
            "CMATH_STREAM__TEXT__WHISPER": "none",
        }
        self.keepers: dict[str, Keeper] = {}
        self.add(("serve",))

    def add(self, role: tuple[str, ...], within: Sequence[str] = (), **environ: str) -> None:
        """One more process."""
        self.keepers[" ".join(role)] = Keeper(role, {**self.environ, **environ}, within)

    def of(self, *role: str) -> Keeper:
        return self.keepers[" ".join(role)]


@asynccontextmanager
async def running(made: Installation) -> AsyncIterator[None]:
    """Everything up, until the block is left."""
    keeping = [asyncio.create_task(keeper.run()) for keeper in made.keepers.values()]
    try:
        async with asyncio.timeout(120):
            for keeper in made.keepers.values():
                await keeper.ready.wait()
        yield
    finally:
        for task in keeping:
            task.cancel()
        await asyncio.gather(*keeping, return_exceptions=True)
        made.redis.close()


def record(folder: Path, name: str, first_s: float, utterances: int) -> None:
    """One person's part of a call: pieces of the demo at a steady pace, with a caption each."""
    spoken = np.concatenate([chunk.pcm for chunk in Recording.open(DEMO / f"{name}.opus").audio()])
    script = json.loads((DEMO / "script.json").read_text("utf-8"))
    piece = round(PIECE_S * SAMPLE_RATE_HZ)
    begins = [line["start_ms"] * 16 for line in script if line["speaker"] == name]
    track = np.zeros(round((first_s + utterances * SPACING_S + 1) * SAMPLE_RATE_HZ), np.float32)
    captions = ["WEBVTT", ""]
    for n in range(utterances):
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


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was told of all sessions, each whole."""

    sessions: int
    said: int  # emotions
    dropped: int
    used: dict[str, int]  # emotions by what they were read from


def checked(events: Sequence[Event]) -> Outcome:
    """One end of each utterance that began, in order, and totals that say so."""
    sessions = collections.defaultdict(list)
    for event in events:
        sessions[event["session_id"]].append(event)
    used: collections.Counter[str] = collections.Counter()
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
        used.update(map(_used, final))
    return Outcome(len(sessions), said, dropped, dict(used))


def _used(event: Event) -> str:
    return "+".join(name for name, modality in event["modalities"].items() if modality["used"]) or "nothing"
