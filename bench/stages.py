"""`cmath-stream` with a stopwatch on each stage of a replay: seconds of the processor, not of the clock.

    python -m bench.stages STAGES.json replay FILE...

What is timed runs as it is, in its own thread; the seconds of a stage are those of that thread inside it.
"""

from __future__ import annotations

import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from cmath_stream import cli, replay
from cmath_stream.engine import Engine
from realtime.recording import Recording
from workers.audio import VoiceExtractor
from workers.face import FaceExtractor
from workers.text import TextExtractor

CALLS: tuple[tuple[str, Any, str], ...] = (
    ("hear", replay, "hear"),
    ("text", TextExtractor, "extract"),
    ("audio", VoiceExtractor, "extract"),
    ("visual", FaceExtractor, "extract"),
    ("fuse", Engine, "step"),
)


def watch(seconds: dict[str, float]) -> None:
    """Let every stage count its seconds, and `load` what was spent before the first event was asked for."""

    def timed(stage: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def inside(*arguments: Any) -> Any:
            began_s = time.thread_time()
            try:
                return call(*arguments)
            finally:
                seconds[stage] += time.thread_time() - began_s

        return inside

    tracks, run = Recording.tracks, replay.Replay.run

    def read(*arguments: Any) -> list[Iterator[Any]]:
        def watched(blocks: Iterator[Any]) -> Iterator[Any]:
            return iter(timed("read", lambda: next(blocks, None)), None)

        return list(map(watched, tracks(*arguments)))

    def loaded(*arguments: Any) -> Any:
        seconds["load"] = time.process_time()
        return run(*arguments)

    for stage, owner, name in CALLS:
        setattr(owner, name, timed(stage, getattr(owner, name)))
    for changed, owner, name in ((read, Recording, "tracks"), (loaded, replay.Replay, "run")):
        setattr(owner, name, changed)


def main() -> None:
    path, sys.argv[1:] = Path(sys.argv[1]), sys.argv[2:]
    seconds: dict[str, float] = defaultdict(float)
    watch(seconds)
    try:
        cli.main()
    finally:
        seconds["rest"] = time.process_time() - sum(seconds.values())
        path.write_text(json.dumps({stage: round(s, 1) for stage, s in seconds.items()}), "utf-8")


if __name__ == "__main__":
    main()
