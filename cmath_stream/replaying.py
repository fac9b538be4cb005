"""One feed into one file of events, and what there is to say of it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from cmath_stream.events import Event, to_json


@dataclass(slots=True)
class Told:
    """What came of an input, counted while its events go by."""

    sessions: int = 0
    utterances: int = 0
    dropped: int = 0
    seconds: float = 0.0  # of all its conversations

    def count(self, events: Iterable[Event]) -> Iterator[Event]:
        """The same events."""
        for event in events:
            self.utterances += event["type"] == "emotion.utterance"
            self.dropped += event["type"] == "utterance.dropped"
            if event["type"] == "session.closed":
                self.sessions += 1
                self.seconds += event["at_ms"] / 1000
            yield event


def write(events: Iterable[Event], lines: TextIO, *, at_once: bool = False) -> None:
    """One event a line; `at_once` = none waits for the next."""
    for event in events:
        lines.write(to_json(event) + "\n")
        if at_once:
            lines.flush()


@contextmanager
def whole_file(out: Path | None) -> Iterator[TextIO]:
    """A file that is there whole or not at all; None = standard output."""
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
