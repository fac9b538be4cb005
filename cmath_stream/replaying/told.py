"""One feed into one file of events, and what there is to say of it."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import TextIO

from cmath_stream.events import Event, to_json
from cmath_stream.whole_file import whole_file


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
def event_file(out: Path | None) -> Iterator[TextIO]:
    """For lines, whole or not there at all; None = standard output."""
    if out is None:
        yield sys.stdout
        return
    with whole_file(out) as file, TextIOWrapper(file, "utf-8", newline="\n") as lines:
        yield lines
