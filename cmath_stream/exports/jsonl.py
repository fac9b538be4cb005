"""JSON lines, the canonical form: an event a line, as `replay` and `tail --json` write them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from cmath_stream.events import Event, to_json
from cmath_stream.exports.about import About
from cmath_stream.exports.canon import checked, decoded


def write(events: Iterable[Event], file: BinaryIO, _: About) -> None:
    """Write events one by one."""
    for event in events:
        # Half of a surrogate pair, which JSON allows and UTF-8 does not, becomes its escape again.
        file.write(to_json(event).encode("utf-8", "backslashreplace") + b"\n")


def read(path: Path, name: str | None = None) -> Iterator[Event]:
    """Events one by one; `name` is what an error calls the file. Raises MediaError."""
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                where = f"{name or path}, line {number}"
                yield checked(decoded(line, where), where)
