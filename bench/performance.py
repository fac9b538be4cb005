"""The performance page, written from the raw files of `cmath-stream bench` and from nothing else.

    python -m bench.performance [--results docs/results/performance] [--out docs]

Reads `model-*.json`, `latency.json`, `load-*.json`, `replay.json` and `network.json`; the same files give the
same page.
"""

from __future__ import annotations

import argparse
import json
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.result_tables import table

PAGE = "PERFORMANCE.md"
Raw = dict[str, Any]

INTRODUCTION = """# Performance

*`python -m bench.performance` writes this page from [`results/performance/`](results/performance/); a change
by hand is lost.*

Figures are **ratios of one run**, everything compared taking turns, on the machine named at each table.
Absolute times are those of that machine on that day. What costs grow with:

| what | grows with | does not grow with |
|---|---|---|
| a step of the model | d^2 for the new utterance, W d for what it asks | turns so far, sessions held |
| memory of the fusion | `fusion.engine.remembered` pages; a page is an utterance | length of conversations |
| the ingest | participants, pictures a second | length of conversations |
| time of a replay | length of the recordings, utterances in them | |
| memory of a replay | utterances of one batch | length of the recordings |
"""


def page(folder: Path) -> str:
    """The page of a folder of raw files."""
    parts = [INTRODUCTION]
    parts += [_model(raw) for raw in _read(folder, "model-*.json")]
    parts += [_latency(raw) for raw in _read(folder, "latency.json")]
    loads = _read(folder, "load-*.json")
    if loads:
        parts.append(_load(loads))
    parts += [_replay(raw) for raw in _read(folder, "replay.json")]
    parts += [_network(raw) for raw in _read(folder, "network.json")]
    return "\n".join(parts)


def _read(folder: Path, pattern: str) -> list[Raw]:
    return [json.loads(path.read_text("utf-8")) for path in sorted(folder.glob(pattern))]


def _wrapped(*sentences: str) -> str:
    return textwrap.fill(" ".join(sentences), 120, break_long_words=False, break_on_hyphens=False)


def _machine(raw: Raw) -> str:
    it = raw["machine"]
    return (
        f"{it['cpu']}, {it['cores']} cores, Python {it['python']}, load average at the start "
        f"{it['load_average'][0]:g}"
    )


def _model(raw: Raw) -> str:
    ms = {(row["way"], row["runtime"], row["batch"]): row["ms"] for row in raw["step_ms"]}
    batches = list(dict.fromkeys(row["batch"] for row in raw["step_ms"]))
    base = {batch: ms["every row", "eager", batch] for batch in batches}
    said = {
        "every row": "every row of the full window",
        "window": "newest row of the full window",
        "remember": "compress the new utterance",
        "ask": "ask what is remembered",
        "step": "**step: both**",
    }
    rows = [
        [said[way], runtime]
        + [f"{ms[way, runtime, b]:.2f} ms, {base[b] / ms[way, runtime, b]:.1f}x" for b in batches]
        for way, runtime in dict.fromkeys((way, runtime) for way, runtime, _ in ms)
    ]
    floors, fusion = raw["floors"], raw["fusion"]
    floors_said = _wrapped(
        f"Floors: this core multiplies at {floors['gflops']:g} GFLOP/s at best and reads",
        f"{floors['read_gb_s']:g} GB/s of a matrix that no cache holds.",
    )
    floor = {(row["way"], row["batch"]): row for row in floors["rows"]}
    best = fusion["runtime"]
    marks = {
        "newest row of the full window: compiled against eager": [
            f"{ms['window', 'eager', b] / ms['window', best, b]:.2f}x" for b in batches
        ],
        "step against that compiled full window": [
            f"1/{ms['window', best, b] / ms['step', best, b]:.1f}" for b in batches
        ],
        "step against every row, neither compiled": [
            f"1/{base[b] / ms['step', 'eager', b]:.1f}" for b in batches
        ],
        "full window against its floor of operations": [
            f"{ms['window', best, b] / floor['window', b]['flop_ms']:.1f}x" for b in batches
        ],
        "step against its floor: operations, or reading the weights": [
            f"{ms['step', best, b] / _step_floor(floor, b):.1f}x" for b in batches
        ],
    }
    card = raw.get("card")
    if card:  # floors are those of a core
        marks = {name: cells for name, cells in marks.items() if "floor" not in name}
    lines = [
        f"## The model: d {raw['width']}, W {raw['window']}, {len(raw['modalities'])} modalities, one thread"
        + (f", one {card}" if card else ""),
        "",
        _wrapped(
            f"`cmath-stream bench model --width {raw['width']} --window {raw['window']}`; {_machine(raw)}.",
            "The factor: how many times faster than eager on every row, in inference mode, without decoder.",
        ),
        "",
        table(["what", "runtime", *(f"batch {b}" for b in batches)], rows),
        "",
        table(["mark", *(f"batch {b}" for b in batches)], [[name, *cells] for name, cells in marks.items()]),
        "",
        *([] if card else [floors_said, ""]),
        _wrapped(
            f"The fusion's engine ({best}) answers {fusion['utterances_per_second']:,} utterances a second",
            f"for {fusion['concurrent_calls']} calls on one core, **{fusion['ratio']:g} times** what calling",
            f"the model eagerly for every full window gives. A step at turn {fusion['turns']['at'][1]:,}",
            f"costs **{fusion['turns']['ratio']:g}** of one at turn {fusion['turns']['at'][0]}.",
            f"A session's window takes {fusion['session_kilobytes']:g} kB, all pages",
            f"{fusion['memory_megabytes']:g} MB, and no more comes, however many sessions there are.",
        ),
    ]
    lacking = ", ".join(f"{name} ({what})" for name, what in raw["runtimes_not_here"].items())
    return "\n".join([*lines, f"\nNot on this machine: {lacking}.\n" if lacking else ""])


def _step_floor(floor: dict[tuple[str, int], Raw], batch: int) -> float:
    parts = (floor[way, batch] for way in ("remember", "ask"))
    return float(sum(max(part["flop_ms"], part["weight_ms"]) for part in parts))


def _latency(raw: Raw) -> str:
    names = {
        "end of speech to event": raw["end_to_event_ms"],
        "endpoint delay, of it": raw["endpoint_delay_ms"],
        "after the endpoint decision": raw["after_endpoint_ms"],
        **{f"stage {name}": row for name, row in raw["stages_ms"].items()},
    }
    rows = [
        [name, str(row["n"]), f"{row['p50']:g}", f"{row['p95']:g}"] for name, row in names.items() if row["n"]
    ]
    histogram = raw["endpoint_delay_ms"]["histogram"]
    spread = ", ".join(
        f"{low}-{high} ms: {count}"
        for low, high, count in zip(
            histogram["edges"], histogram["edges"][1:], histogram["counts"], strict=False
        )
        if count
    )
    return "\n".join([
        "## From the end of speech to the event",
        "",
        _wrapped(
            f"`cmath-stream bench latency --calls {raw['calls']}`; {_machine(raw)}. Real WebRTC, captions",
            f"given; the end of speech is the {raw['truth']}, by the publisher's clock; the event is there",
            "when Redis has it.",
        ),
        "",
        table(["milliseconds", "n", "p50", "p95"], rows),
        "",
        f"Endpoint delays: {spread}. Utterances cut early: {raw['cut_early_pct']:g} %.",
        "",
    ])  # fmt: skip


def _load(raws: Sequence[Raw]) -> str:
    rows = [
        [
            f"{raw['audio']} audio, {raw['video']} with video",
            f"{raw['frames_received'] + raw['video_received']:,} of "
            f"{raw['frames_expected'] + raw['video_expected']:,}",
            f"{raw['loop_lag_p50_ms']:g} / {raw['loop_lag_p99_ms']:g}",
            f"{100 * raw['cpu_share']:.0f} %",
            f"{raw['rss_mb']:g}",
            raw["verdict"],
        ]
        for raw in raws
    ]
    return "\n".join([
        "## One ingest process on one core",
        "",
        _wrapped(
            f"`cmath-stream bench load --audio N --video M`, {raws[0]['seconds']:g} s; {_machine(raws[0])}.",
            "Real WebRTC publishers on the other core send packets that were encoded before.",
        ),
        "",
        table(["participants", "frames", "loop lag p50 / p99, ms", "core", "MB", "verdict"], rows),
        "",
    ])  # fmt: skip


def _replay(raw: Raw) -> str:
    names = {
        "load": "load programs, models, engine",
        "read": "read and resample",
        "hear": "hear voice in it",
        "text": "text encoder",
        "audio": "voice encoder",
        "visual": "face encoder",
        "fuse": "fusion",
        "rest": "all else",
    }
    hours, spent = raw["audio_s"] / 3600, raw["stages_cpu_s"]
    whole = sum(spent.values())
    rows = [
        [name, f"{spent[stage]:.1f}", f"{100 * spent[stage] / whole:.0f} %"] for stage, name in names.items()
    ]
    peak, same = raw["peak_mb"], "the same" if raw["same_bytes"] else "other"
    mark = "met" if raw["real_time_factor"] <= 1 / 60 else "missed"
    if raw["machine"]["load_average"][0] > raw["machine"]["cores"]:
        mark += ", on cores that other work had for most of the time"
    return "\n".join([
        f"## Offline replay of {hours:.2g} h",
        "",
        _wrapped(
            f"`python -m bench.hour`; {_machine(raw)}. One WAV file, a channel for each of",
            f"{raw['participants']} participants, with captions: {raw['utterances']:,} utterances,",
            f"speech on {100 * raw['speech_share']:.0f} % of a channel. `cmath-stream replay` took",
            f"**{raw['wall_s']:g} s** from start to exit, **1/{raw['faster_than_speech']:.0f}** of the call,",
            f"and {raw['cpu_s']:g} s of the processor; the mark, 1/60, is {mark}.",
            f"Run twice it gave {same} bytes.",
            f"Peak memory: {peak['quarter']:.0f} MB after a quarter, {peak['end']:.0f} MB at the end.",
            "Seconds of the processor by stage, of the second run:",
        ),
        "",
        table(["stage", "seconds", "share"], rows),
        "",
    ])  # fmt: skip


def _network(raw: Raw) -> str:
    rows = [
        [
            name if whose == "ours" else "",
            whose,
            *(f"{found['delay_ms'][q]:.0f}" for q in ("p50", "p95", "p100")),
            str(found["thrown"]),
            f"{found['recall']:.1%}",
            f"{found['timing_ms']['p95']:.0f} / {found['timing_ms']['max']:.0f}",
        ]
        for name, buffers in raw["networks"].items()
        for whose, found in buffers.items()
    ]
    return "\n".join([
        "## Bad networks",
        "",
        _wrapped(
            f"`python -m bench.network`: {raw['packets']:,} packets of speech, {raw['utterances']}",
            "utterances, our jitter buffer beside aiortc's on the same packets. Delay in ms beyond an",
            "undisturbed network; thrown: packets that came and were not used; timing: by how much start or",
            "end of the utterances found is off, in ms.",
        ),
        "",
        table(["network", "buffer", "p50", "p95", "max", "thrown", "recall", "timing p95 / max"], rows),
        "",
    ])  # fmt: skip


def write(results: Path, out: Path) -> Path:
    """Write the page; returns its path."""
    path = out / PAGE
    path.write_text(page(results), "utf-8")
    return path


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", type=Path, default=Path("docs/results/performance"))
    parser.add_argument("--out", type=Path, default=Path("docs"))
    given = parser.parse_args(arguments)
    print(write(given.results, given.out))


if __name__ == "__main__":
    main()
