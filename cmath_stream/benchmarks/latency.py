"""How long an emotion takes from the true end of speech, over real WebRTC and through every process.

The endpoint delay lasts from the annotated end of speech to the decision that it had ended, the share after
the endpoint from there to the entry in Redis. The decision is dated by the event's own `latency_ms`, whose
clock stops just before the entry is written: that last step, about a millisecond, counts for the endpoint.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from cmath_stream import annotation
from cmath_stream.annotation import Line, Timed
from cmath_stream.benchmarks.figures import Figures, histogram, machine, shown, summary
from cmath_stream.call import Heard, call, installation
from cmath_stream.demo import dialogue
from cmath_stream.events import Event
from cmath_stream.inputs import Source, sources
from realtime.errors import SettingsError

_EDGES_MS = tuple(range(0, 1600, 100))


@dataclass(frozen=True, slots=True)
class Speech:
    """Who is published, and what is known of the truth about it."""

    people: tuple[Source, ...]
    lines: tuple[Line, ...]
    truth: str  # where the lines come from


def speech(files: Sequence[Path], captions: Sequence[Path] | None, truth: Sequence[Path] | None) -> Speech:
    """The user's recordings, or the bundled dialogue. Raises MediaError; SettingsError without any truth."""
    if not files:
        if captions or truth:
            raise SettingsError("captions or an annotation of which recording? Name the files")
        return Speech(tuple(dialogue.people()), tuple(dialogue.script()), "script of the demo")
    people = tuple(sources(files, captions, None))
    lines = annotation.read(truth, people) if truth else annotation.captioned(people)
    if not lines:
        raise SettingsError("when does speech end in these recordings? Give --truth or --captions")
    names = ", ".join(path.name for path in truth or ())
    return Speech(people, tuple(lines), names or "times of the captions")


async def measure(arguments: list[str], said: Speech, calls: int) -> Figures:
    """Play the same call so often, one after the other, on one installation."""
    measured_on = machine()
    captioned = all(person.captions for person in said.people)
    # Where the words are given nobody has to recognise them, and no recogniser has to load.
    environ = {"CMATH_STREAM__TEXT__WHISPER": "none"} if captioned else {}
    heard: list[Heard] = []
    count = 0
    with Console(stderr=True).status(
        "starting Redis, ingest, three feature workers and the fusion"
    ) as status:

        def tell(event: Event) -> None:
            nonlocal count
            count += event["type"] == "emotion.utterance" and event["revision"] == 0
            status.update(f"call {len(heard) + 1} of {calls}: {count} utterances heard")

        async with installation(arguments, environ) as up:
            while len(heard) < calls:
                heard.append(await call(up, said.people, f"latency-{secrets.token_hex(4)}", tell))
    about = {"truth": said.truth, "participants": len(said.people), "captions": captioned, "calls": calls}
    return {"bench": "latency", **about, **figures(heard, said.lines), "machine": measured_on}


def figures(heard: Sequence[Heard], lines: Sequence[Line]) -> Figures:
    """All calls pooled."""
    timed = [one for h in heard for one in annotation.timed(h.entries, h.reports, lines)]
    final = [event for h in heard for _, event in h.entries if event.get("is_final")]
    early = sum(len(annotation.cut_early(h.entries, h.reports, lines)) for h in heard)
    dated = [one for one in timed if "latency_ms" in one.event]
    endpoint_ms = [one.latency_ms - _after_endpoint_ms(one) for one in dated]
    spent = [one.event["latency_ms"] for one in dated]
    return {
        "utterances": len(final),
        "lines": len(lines) * len(heard),
        "end_to_event_ms": summary([one.latency_ms for one in timed]),
        "endpoint_delay_ms": summary(endpoint_ms) | {"histogram": histogram(endpoint_ms, _EDGES_MS)},
        "after_endpoint_ms": summary([_after_endpoint_ms(one) for one in dated]),
        "stages_ms": {
            stage: summary([stages[stage] for stages in spent if stage in stages])
            for stage in dict.fromkeys(stage for stages in spent for stage in stages)
        },
        "cut_early": early,
        "cut_early_pct": round(100 * early / len(final), 1) if final else None,
    }


def show(result: Figures, console: Console) -> None:
    """As a short table."""
    table = Table("ms", "n", "p50", "p95", "max")
    rows = {
        "end of speech to event": result["end_to_event_ms"],
        "endpoint delay": result["endpoint_delay_ms"],
        "after the endpoint": result["after_endpoint_ms"],
        **{f"  stage {stage}": row for stage, row in result["stages_ms"].items()},
    }
    for name, row in rows.items():
        table.add_row(name, *(shown(row[key]) for key in ("n", "p50", "p95", "max")))
    console.print(table)
    console.print(
        f"{result['utterances']} utterances of {result['lines']} annotated lines ({result['truth']}), "
        f"cut early {shown(result['cut_early_pct'], ' %')}; "
        f"load average {result['machine']['load_average'][0]}",
        highlight=False,
    )


def _after_endpoint_ms(one: Timed) -> float:
    spent = one.event["latency_ms"]
    return float(spent["total"] - spent["endpoint"])
