"""The demo: the whole line at work on one machine, two people in processes of their own."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.live import Live

from cmath_stream.annotation import Line, captioned, latencies_ms
from cmath_stream.call import Heard, call, installation
from cmath_stream.demo import dialogue
from cmath_stream.events import Event, to_json
from cmath_stream.inputs import Source, sources
from cmath_stream.live_table import LiveTable, line
from cmath_stream.plot import timeline
from realtime.errors import CmathStreamError


def demo(arguments: list[str], files: Sequence[Path], captions: Sequence[Path] | None, out: Path) -> None:
    """Run it; writes `demo.jsonl` and `demo.png` into `out`. Raises CmathStreamError if anything was lost."""
    people = sources(files, captions, None) if files else dialogue.people()
    console = Console()
    heard = asyncio.run(_call(arguments, people, console))
    events = [event for _, event in heard.entries]
    out.mkdir(parents=True, exist_ok=True)
    (out / "demo.jsonl").write_text("".join(to_json(e) + "\n" for e in events), "utf-8")
    timeline(events, out / "demo.png", "demo: what was heard in each utterance")
    _summarise(heard, captioned(people) if files else dialogue.script(), console)
    console.print(f"events   {out / 'demo.jsonl'}\npicture  {out / 'demo.png'}", highlight=False)
    _verify(events)


async def _call(arguments: list[str], people: Sequence[Source], console: Console) -> Heard:
    table, room = LiveTable(rows=30), f"demo-{secrets.token_hex(4)}"
    live = Live(table, console=console, refresh_per_second=8) if console.is_terminal else None

    def show(event: Event) -> None:
        if table.add(event) and live is None:
            console.print(line(event), highlight=False, soft_wrap=True)

    console.print("starting Redis, ingest, three feature workers and the fusion ...")
    async with installation(arguments) as up:
        console.print(f"{len(people)} participants join {up.http}/whip/{room} over WebRTC\n", highlight=False)
        with live or nullcontext():
            return await call(up, people, room, show)


def _summarise(heard: Heard, lines: Sequence[Line], console: Console) -> None:
    final = [e for _, e in heard.entries if e["type"] == "emotion.utterance" and e["is_final"]]
    labels = [e["label"] for e in final if e["label"]]
    counts = ", ".join(
        f"{label} {labels.count(label)}" for label in sorted(set(labels), key=labels.count, reverse=True)
    )
    console.print(
        f"\n{len(final)} utterances: {counts}; {len(final) - len(labels)} abstained", highlight=False
    )
    measured = latencies_ms(heard.entries, heard.reports, lines)
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
