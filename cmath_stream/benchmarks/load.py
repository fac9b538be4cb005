"""How many participants one ingest process bears on one core, without a frame lost.

The participants are real WebRTC publishers in a few processes on the other cores, which send packets that
were encoded before. A frame is dropped when it was sent and the ingest did not read it from the track, or
threw it away later; the ingest's own counters tell both.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.status import Status
from rich.table import Table

from cmath_stream.benchmarks.crowd import Member, Plan, Played, write_plan
from cmath_stream.benchmarks.figures import Figures, machine, shown, summary
from cmath_stream.benchmarks.packets import write_pictures
from cmath_stream.benchmarks.watching import (
    Snapshot,
    core_kept_free,
    pin,
    quantile_between,
    require_proc,
    snapshot,
)
from cmath_stream.call import Installation, installation
from cmath_stream.demo import dialogue
from cmath_stream.events import Event
from cmath_stream.supervise import ROLES
from cmath_stream.watch import following
from realtime.errors import CmathStreamError
from realtime.playing import PACKET_SAMPLES, RATE_HZ
from realtime.redis_bus import RedisConfig

_PER_PROCESS = 20  # participants with sound alone that one process can play
_PICTURES_COST = 4  # so many of them cost as much as one with pictures
_ROOM = 2  # people in a conversation
_APART_S = 7.3  # between where in the dialogue one room begins and the next
# aiortc gives out a picture when the next begins; the one it still holds at the end of a track it never gives
# out. So many more are sent than are expected.
_HELD = {"audio": 0, "video": 1}
# A frame that was only trimmed, where it overlapped the one before while the clock of its track settled, is
# counted apart: that belongs to the start of a track and not to the load.
_REASONS = {"audio": ("late", "queue_full", "error"), "video": ("busy", "error")}
_JOIN_S = 5.0  # a participant, at most
_STARTS_S = 1.0  # they begin one after the other within this time: no crowd speaks on one beat
_SETTLE_S = 1.5  # after the start, before the core is watched
_CLOSE_S = 30.0  # for the end of the players and for the last events
_LATE_MS = 100.0  # players that are later than this did not play what was asked for
_OTHERS = 0.1  # of the ingest's core; a loss beside others that take more says nothing


@dataclass(frozen=True, slots=True)
class Asked:
    """The load."""

    audio: int = 40  # participants with sound alone
    video: int = 0  # participants with sound and pictures
    seconds: float = 20.0
    fps: int = 30
    line: bool = False  # workers and fusion run too

    @property
    def participants(self) -> int:
        """In all."""
        return self.audio + self.video

    @property
    def audio_frames(self) -> int:
        """Expected of each participant."""
        return round(self.seconds * RATE_HZ / PACKET_SAMPLES)

    @property
    def video_frames(self) -> int:
        """Expected of each participant with pictures."""
        return round(self.seconds * self.fps)


@dataclass(frozen=True, slots=True)
class Seen:
    """What was found out while it lasted."""

    join_s: float  # until everybody was connected
    before: Snapshot  # with `after`: everybody plays between them
    after: Snapshot
    end: Snapshot  # when everybody is gone
    played: tuple[Played, ...]
    events: tuple[Event, ...]  # none without the line


async def measure(arguments: list[str], asked: Asked) -> Figures:
    """Run the load once. Raises SettingsError where it cannot be measured, CmathStreamError."""
    require_proc()
    measured_on = machine()
    roles = ROLES if asked.line else ROLES[:1]
    environ = {
        "CMATH_STREAM__INGEST__MAX_PARTICIPANTS": str(asked.participants),
        "CMATH_STREAM__TEXT__WHISPER": "none",  # the words are given
    }
    with (
        core_kept_free() as core,
        tempfile.TemporaryDirectory(prefix="cmath-stream-load-") as folder,
        Console(stderr=True).status("starting " + ", ".join(" ".join(role) for role in roles)) as status,
    ):
        async with installation(arguments, environ, roles) as up:
            if core is not None:
                pin(up.running.pids["serve"], core)
            plans = plan(asked, f"{up.http}/whip", Path(folder))
            watching = asyncio.create_task(_watch(up, asked, plans, core, status), name="load")
            seen = await up.running.until_done(watching)
    return {"bench": "load", **figures(asked, seen), "ingest_core": core, "machine": measured_on}


def plan(asked: Asked, whip: str, folder: Path) -> list[Path]:
    """Write what each process plays. Conversations of two, each somewhere else in the demo dialogue."""
    people = dialogue.people()
    video = None
    if asked.video:
        video = folder / "pictures.ivf"
        write_pictures(video, asked.fps)
    count = asked.participants
    members = [
        Member(
            name=f"p{n}",
            room=f"load-{n // _ROOM}",
            sound=str(people[n % _ROOM].path),
            captions=people[n % _ROOM].captions,
            pictures=n < asked.video,
            offset_s=n // _ROOM * _APART_S,
            phase_s=n / count * (_STARTS_S + PACKET_SAMPLES / RATE_HZ),
        )
        for n in range(count)
    ]
    processes = -(-(asked.audio + _PICTURES_COST * asked.video) // _PER_PROCESS)
    paths = []
    for number in range(processes):
        paths.append(folder / f"crowd-{number}.json")
        part = Plan(
            whip=whip,
            audio_frames=asked.audio_frames + _HELD["audio"],
            video_frames=asked.video_frames + _HELD["video"],
            video=str(video) if video else None,
            fps=asked.fps,
            members=tuple(members[number::processes]),
        )
        write_plan(part, paths[-1])
    return paths


async def _watch(
    up: Installation, asked: Asked, plans: Sequence[Path], core: int | None, status: Status
) -> Seen:
    pid = up.running.pids["serve"]
    rooms = -(-asked.participants // _ROOM)
    began_s = time.monotonic()
    status.update(f"{asked.participants} participants join")
    async with _listening(up, rooms if asked.line else 0) as listener, _crowds(plans) as crowds:
        async with asyncio.timeout(_JOIN_S * asked.participants + _CLOSE_S):
            for crowd in crowds:
                await _said(crowd)
        join_s = time.monotonic() - began_s
        status.update(f"{asked.participants} participants play for {asked.seconds:g} s")
        for crowd in crowds:
            assert crowd.stdin is not None
            crowd.stdin.write(b"play\n")
        await asyncio.sleep(_SETTLE_S)
        before = await snapshot(up.http, pid, core)
        await asyncio.sleep(asked.seconds - _SETTLE_S)
        after = await snapshot(up.http, pid, core)
        status.update("the last ones leave")
        try:
            async with asyncio.timeout(_CLOSE_S):
                played = [Played(**json.loads(await _said(crowd))) for crowd in crowds]
                events = await listener
        except TimeoutError:
            raise CmathStreamError(f"not all was over {_CLOSE_S:.0f} s after the end of the load") from None
        return Seen(join_s, before, after, await snapshot(up.http, pid, core), tuple(played), tuple(events))


@asynccontextmanager
async def _listening(up: Installation, rooms: int) -> AsyncIterator[asyncio.Task[list[Event]]]:
    """A task that gathers all events until so many sessions have closed."""

    async def listen() -> list[Event]:
        events: list[Event] = []
        closed = 0
        async with following(RedisConfig(url=up.running.redis_url), None, "0") as entries:
            while closed < rooms:
                _, event = await anext(entries)
                events.append(event)
                closed += event["type"] == "session.closed"
        return events

    task = asyncio.create_task(listen(), name="listen")
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def _crowds(plans: Sequence[Path]) -> AsyncIterator[list[asyncio.subprocess.Process]]:
    """A process a plan; none is left at the end."""
    crowds: list[asyncio.subprocess.Process] = []
    try:
        for path in plans:
            crowds.append(
                await asyncio.create_subprocess_exec(
                    sys.executable, "-m", "cmath_stream", "--die-with", str(os.getpid()),
                    "bench", "crowd", str(path),
                    stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, process_group=0,
                )
            )  # fmt: skip
        yield crowds
    finally:
        for crowd in crowds:
            if crowd.returncode is None:
                crowd.kill()
            await crowd.wait()


async def _said(crowd: asyncio.subprocess.Process) -> bytes:
    assert crowd.stdout is not None
    if not (line := await crowd.stdout.readline()):
        raise CmathStreamError("a process of players failed; its own message is above")
    return line


# ---- figures ---------------------------------------------------------------------------------------


def figures(asked: Asked, seen: Seen) -> Figures:
    """What was asked, what came of it, and whether it is good."""
    before, after, end = seen.before, seen.after, seen.end
    window_s, own_s = after.at_s - before.at_s, after.cpu_s - before.cpu_s
    received = {kind: round(end.total("frames_received_total", kind=kind)) for kind in ("audio", "video")}
    thrown = {
        kind: {r: round(end.total("frames_dropped_total", kind=kind, reason=r)) for r in reasons}
        for kind, reasons in _REASONS.items()
    }
    expected = {
        "audio": asked.participants * asked.audio_frames,
        "video": asked.video * asked.video_frames,
    }
    lags_s = [quantile_between(before, after, "event_loop_lag_seconds", q) for q in (0.5, 0.99)]
    p50_ms, p99_ms = (None if lag_s is None else round(lag_s * 1000, 1) for lag_s in lags_s)
    segmented = after.total("utterances_total", outcome="segmented") - before.total(
        "utterances_total", outcome="segmented"
    )
    result = {
        "audio": asked.audio,
        "video": asked.video,
        "participants": asked.participants,
        "seconds": asked.seconds,
        "fps": asked.fps if asked.video else None,
        "line": asked.line,
        "join_s": round(seen.join_s, 1),
        "participants_lost": sum(played.lost for played in seen.played),
        "frames_expected": expected["audio"],
        "frames_received": received["audio"],
        "frames_dropped": expected["audio"] - received["audio"] + sum(thrown["audio"].values()),
        "audio_missing_s": round(end.total("audio_missing_seconds_total"), 2),
        "dropped_for": thrown["audio"],
        "frames_trimmed": round(end.total("frames_dropped_total", kind="audio", reason="trimmed")),
        "video_expected": expected["video"],
        "video_received": received["video"],
        "pictures_kept": round(end.total("pictures_kept_total")),
        "pictures_dropped": sum(thrown["video"].values()),
        "loop_lag_p50_ms": p50_ms,
        "loop_lag_p99_ms": p99_ms,
        "cpu_share": round(own_s / window_s, 3),
        "others_share": round(max(after.core_s - before.core_s - own_s, 0.0) / window_s, 3),
        "rss_mb": round(after.rss_mb, 1),
        "utterances_per_s": round(segmented / window_s, 2),
        **_line_figures(seen.events, asked.seconds),
        "players_late_p99_ms": max(played.late_p99_ms for played in seen.played),
    }
    return result | {"verdict": verdict(result)}


def _line_figures(events: Sequence[Event], seconds: float) -> Figures:
    """Of the whole line: what was begun, what became an emotion and how soon; None without the line."""
    if not events:
        return {"utterances_begun": None, "emotions": None, "emotions_per_s": None, "latency_ms": None}
    first = [e for e in events if e["type"] == "emotion.utterance" and e["revision"] == 0]
    return {
        "utterances_begun": sum(event["type"] == "utterance.started" for event in events),
        "emotions": len(first),
        "emotions_per_s": round(len(first) / seconds, 2),
        "latency_ms": summary([e["latency_ms"]["total"] for e in first if "latency_ms" in e]),
    }


def verdict(result: Figures) -> str:
    """In one line: met, missed and by how much, or that this run says nothing."""
    late_ms, others = result["players_late_p99_ms"], result["others_share"]
    if late_ms > _LATE_MS:
        return f"void: the players themselves were {late_ms:g} ms late (p99); this machine is too busy"
    pictures = result["video_expected"] - result["video_received"] + result["pictures_dropped"]
    if not (result["frames_dropped"] or pictures or result["participants_lost"]):
        return "met: no frame was dropped"
    missed = (
        f"{result['frames_dropped']} of {result['frames_expected']} audio frames and "
        f"{pictures} of {result['video_expected']} video frames were dropped, "
        f"{result['participants_lost']} participants lost"
    )
    if others > _OTHERS:
        return f"void: {missed}, but others took {others:.0%} of the ingest's core"
    return f"missed: {missed}"


def show(result: Figures, console: Console) -> None:
    """As a short table."""
    table = Table("participants", str(result["participants"]))
    video = f"{result['video_received']} of {result['video_expected']}, {result['pictures_kept']} kept"
    rows = {
        "audio frames": f"{result['frames_received']} of {result['frames_expected']}",
        "video frames": video if result["video"] else "-",
        "audio dropped": f"{result['frames_dropped']}; trimmed at the start {result['frames_trimmed']}",
        "loop lag p50, p99": f"{shown(result['loop_lag_p50_ms'])}, {shown(result['loop_lag_p99_ms'], ' ms')}",
        "share of the core": f"{result['cpu_share']:.0%}; of others {result['others_share']:.0%}",
        "memory": f"{result['rss_mb']:.0f} MB",
        "utterances": f"{result['utterances_per_s']:g} a second",
        "emotions": shown(result["emotions_per_s"], " a second"),
        "players late p99": shown(result["players_late_p99_ms"], " ms"),
        "load average": str(result["machine"]["load_average"][0]),
    }
    for name, value in rows.items():
        table.add_row(name, value)
    console.print(table)
    console.print(result["verdict"], highlight=False)
