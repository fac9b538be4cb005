"""Where the events to export come from: a file of any format that can be read, or JSON lines by another name.

A source can be walked through again and again, and never has all its events in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from cmath_stream.events import Event
from cmath_stream.exports import jsonl
from cmath_stream.exports.formats import FORMATS, by_suffix
from realtime.errors import MediaError


class Recorded:
    """Events that lie somewhere, from the first one whenever they are asked for."""

    def __init__(self, read: Callable[[], Iterator[Event]], session: str | None = None) -> None:
        """`session`: the beginning of the id of the one session to give; None gives all."""
        self._read = read
        self._session = session or ""

    def __iter__(self) -> Iterator[Event]:
        """Raises MediaError where they are damaged."""
        return (event for event in self._read() if event["session_id"].startswith(self._session))


def in_file(path: Path, session: str | None = None) -> Recorded:
    """Events of a file whose suffix tells its format, and which else are JSON lines. Raises MediaError."""
    name = by_suffix(path) or "jsonl"
    read = FORMATS[name].read
    if read is None:
        raise MediaError(f"{path}: {name} is for the eye alone, events cannot be read back from it")
    return Recorded(partial(read, path), session)


def in_lines(path: Path, name: str, session: str | None = None) -> Recorded:
    """Events of JSON lines that were kept for a moment in `path`; errors call them `name`."""
    return Recorded(partial(jsonl.read, path, name), session)
