"""The demo: the whole line at work on one machine, two people in processes of their own.

Latency truth: the end of speech is the annotated end in the published file, mapped to the wall clock by the
publisher's own send clock; the event's time is the one Redis gave its entry. Our VAD has no say in it.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import socket
import sys
import tempfile
from collections.abc import Sequence
from contextlib import aclosing, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.live import Live

from cmath_stream.events import Event, to_json
from cmath_stream.inputs import Source, sources
from cmath_stream.live_table import LiveTable, line
from cmath_stream.plot import timeline
from cmath_stream.supervise import Running, everything
from cmath_stream.watch import Entry, room_entries
from realtime.errors import CmathStreamError
from realtime.redis_bus import RedisConfig

_FOLDER = Path(__file__).parent
_AFTER_S = 30.0  # for the last events, once the publishers are done


@dataclass(frozen=True, slots=True)
class Line:
    """One annotated line of a participant, in file time."""

    speaker: str
    start_ms: int
    end_ms: int


def demo(arguments: list[str], files: Sequence[Path], captions: Sequence[Path] | None, out: Path) -> None:
    """Run it; writes `demo.jsonl` and `demo.png` into `out`. Raises CmathStreamError if anything was lost."""
    people = sources(files, captions, None) if files else _bundled()
    console = Console()
    with tempfile.TemporaryDirectory(prefix="cmath-stream-demo-") as folder:
        entries, reports = asyncio.run(_call(arguments, people, Path(folder), console))
    events = [event for _, event in entries]
    out.mkdir(parents=True, exist_ok=True)
    (out / "demo.jsonl").write_text("".join(to_json(e) + "\n" for e in events), "utf-8")
    timeline(events, out / "demo.png", "demo: what was heard in each utterance")
    _summarise(entries, reports, _captioned(people) if files else _script(), console)
    console.print(f"events   {out / 'demo.jsonl'}\npicture  {out / 'demo.png'}", highlight=False)
    _verify(events)


async def _call(
    arguments: list[str], people: Sequence[Source], folder: Path, console: Console
) -> tuple[list[Entry], list[dict[str, Any]]]:
    """Everything up, everybody in, everything down again."""
    port, room = _free_port(), f"demo-{secrets.token_hex(4)}"
    environ = {
        "CMATH_STREAM__INGEST__PORT": str(port),
        "CMATH_STREAM__INGEST__LOOPBACK_ONLY": "true",
        "CMATH_STREAM__SESSION__LINGER_S": "1",
    }
    console.print("starting Redis, ingest, three feature workers and the fusion ...")
    async with everything(arguments, None, environ) as running:
        whip = f"http://127.0.0.1:{port}/whip/{room}"
        console.print(f"{len(people)} participants join {whip} over WebRTC\n", highlight=False)
        return await _collect(running, people, whip, room, folder, console)


def latencies_ms(
    entries: Sequence[Entry], reports: Sequence[dict[str, Any]], lines: Sequence[Line]
) -> list[float]:
    """Real end of speech → first event, for every utterance that an annotated line ends in."""
    sent = {report["participant"]: report for report in reports}
    out = []
    for entry_id, event in entries:
        if event["type"] != "emotion.utterance" or event["revision"] != 0:
            continue
        report = sent[event["participant_id"]]
        start_ms, end_ms = (event[key] - report["session_offset_ms"] for key in ("start_ms", "end_ms"))
        ends = [
            said.end_ms
            for said in lines
            if said.speaker == event["participant_id"] and start_ms < said.end_ms <= end_ms + 300
        ]
        if ends:  # an utterance cut inside a line has no annotated end
            published_ms = int(entry_id.partition("-")[0])
            out.append(published_ms - (report["media_start_unix_s"] * 1000 + max(ends)))
    return out


async def _collect(
    running: Running, people: Sequence[Source], whip: str, room: str, folder: Path, console: Console
) -> tuple[list[Entry], list[dict[str, Any]]]:
    """Publish everybody and gather what the feed says of the room, until its session has closed."""
    entries: list[Entry] = []
    table = LiveTable(rows=30)

    async def listen(live: bool) -> None:
        async with aclosing(room_entries(RedisConfig(url=running.redis_url), room, "$")) as told:
            async for entry in told:
                entries.append(entry)
                if table.add(entry[1]) and not live:
                    console.print(line(entry[1]), highlight=False, soft_wrap=True)

    async def call() -> None:
        codes = await asyncio.gather(*(_publisher(person, whip, folder) for person in people))
        if any(codes):
            raise CmathStreamError("a publisher failed; its own message is above")
        async with asyncio.timeout(_AFTER_S):
            await listener

    with Live(table, console=console, refresh_per_second=8) if console.is_terminal else nullcontext() as live:
        listener = asyncio.create_task(listen(live is not None), name="listen")
        calling = asyncio.create_task(call(), name="call")
        try:
            await running.until_done(calling)
        except TimeoutError:
            raise CmathStreamError(f"the session did not close {_AFTER_S:.0f} s after the call") from None
        finally:
            for task in (calling, listener):
                task.cancel()
            await asyncio.gather(calling, listener, return_exceptions=True)
    paths = [folder / f"{person.participant_id}.report.json" for person in people]
    return entries, [json.loads(path.read_text("utf-8"))[0] for path in paths]


async def _publisher(person: Source, whip: str, folder: Path) -> int:
    """One participant in a process of its own."""
    words = folder / f"{person.participant_id}.json"
    words.write_text(json.dumps([asdict(caption) for caption in person.captions]), "utf-8")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "cmath_stream", "--die-with", str(os.getpid()), "publish", str(person.path),
        "--whip", whip, "--participant", person.participant_id, "--captions", str(words),
        "--report", str(folder / f"{person.participant_id}.report.json"),
        stdout=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    return await process.wait()


def _summarise(
    entries: Sequence[Entry],
    reports: Sequence[dict[str, Any]],
    lines: Sequence[Line],
    console: Console,
) -> None:
    final = [e for _, e in entries if e["type"] == "emotion.utterance" and e["is_final"]]
    labels = [e["label"] for e in final if e["label"]]
    counts = ", ".join(
        f"{label} {labels.count(label)}" for label in sorted(set(labels), key=labels.count, reverse=True)
    )
    console.print(
        f"\n{len(final)} utterances: {counts}; {len(final) - len(labels)} abstained", highlight=False
    )
    measured = latencies_ms(entries, reports, lines)
    if measured:
        p50, p95 = np.percentile(measured, [50, 95])
        console.print(
            f"latency  real end of speech to event: p50 {p50:.0f} ms, p95 {p95:.0f} ms (n = {len(measured)})",
            highlight=False,
        )


def _verify(events: Sequence[Event]) -> None:
    started = {e["utterance_id"] for e in events if e["type"] == "utterance.started"}
    ended = [e["utterance_id"] for e in events if e["type"] == "utterance.dropped" or e.get("is_final")]
    if sorted(started) != sorted(ended):
        raise CmathStreamError(f"{len(started)} utterances began and {len(ended)} ended: something was lost")


def _bundled() -> list[Source]:
    names = ("anna", "ben")
    return sources(
        [_FOLDER / f"{n}.opus" for n in names], [_FOLDER / f"{n}.captions.json" for n in names], None
    )


def _script() -> list[Line]:
    script = json.loads((_FOLDER / "script.json").read_text("utf-8"))
    return [Line(said["speaker"], said["start_ms"], said["end_ms"]) for said in script]


def _captioned(people: Sequence[Source]) -> list[Line]:
    """Without annotation the captions' own times are the best that is known."""
    return [
        Line(person.participant_id, round(c.start_s * 1000), round(c.end_s * 1000))
        for person in people
        for c in person.captions
    ]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
