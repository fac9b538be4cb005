"""`replay`: loads what live runs in five processes into this one, and writes the events as JSON lines."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from cmath_stream.checkpoint_files import fingerprint, named
from cmath_stream.config import Settings, load_checkpoint, make_extractor
from cmath_stream.events import to_json
from cmath_stream.inputs import Source
from cmath_stream.replay import Models, Replay
from realtime.messages import MODALITIES
from realtime.recording import Recording
from realtime.vad import VadModel

log = logging.getLogger(__name__)


def build(settings: Settings) -> Replay:
    """A replay that loads its models once, in its first run, which hears meanwhile.

    Raises CheckpointError where there is no such checkpoint, and in that run where extractors do not fit it.
    """
    weights = fingerprint(named(settings.fusion.checkpoint))
    model_id = repr((weights, settings.fusion.engine, settings.text, settings.audio, settings.visual))
    return Replay(cache(partial(_load, settings)), model_id, VadModel(), settings.session.conversation)


def _load(settings: Settings) -> Models:
    from cmath_stream.engine import Engine  # brings torch: seconds that hearing does not wait for

    checkpoint = load_checkpoint(settings.fusion)
    extractors = [make_extractor(modality, settings) for modality in MODALITIES]
    for extractor in extractors:
        extractor.load()
    checkpoint.require({e.modality: e.spec for e in extractors if e.spec is not None})
    return Models(Engine(checkpoint, settings.fusion.engine), extractors)


def replay_to(sources: Sequence[Source], settings: Settings, out: Path | None) -> None:
    """Replay one conversation into `out` (JSONL; None = standard output), with a progress bar."""
    totals_s = [Recording.open(source.path).duration_s for source in sources]
    total_s = max((t for t in totals_s if t is not None), default=None)
    machine = build(settings)
    columns = TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars, _lines(out) as lines:
        bar = bars.add_task("replay", total=total_s)
        count = 0
        for event in machine.run(sources, lambda now_s: bars.update(bar, completed=now_s)):
            lines.write(to_json(event) + "\n")
            count += event["type"] == "emotion.utterance"
    where = f" in {out}" if out else ""
    print(f"{count} utterances{where}", file=sys.stderr)


@contextmanager
def _lines(out: Path | None) -> Iterator[TextIO]:
    """A file that is there whole or not at all."""
    if out is None:
        yield sys.stdout
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(out.name + ".partial")
    try:
        with partial.open("w", encoding="utf-8") as lines:
            yield lines
        os.replace(partial, out)
    finally:
        partial.unlink(missing_ok=True)
