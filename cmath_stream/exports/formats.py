"""Every format there is, by its name. To add one: a module with `write`, perhaps `read`, and a line here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from cmath_stream.events import Event
from cmath_stream.exports import csv_table, eaf, emotionml, jsonl, parquet, png, report, rttm, vtt
from cmath_stream.exports.about import About


@dataclass(frozen=True, slots=True)
class Format:
    """How events are written in a format, and read from it; `write` may walk through the events twice."""

    write: Callable[[Iterable[Event], BinaryIO, About], None]
    read: Callable[[Path], Iterator[Event]] | None = None  # None: for the eye alone
    takes_media: bool = False  # it can point to the recordings


FORMATS = {
    "jsonl": Format(jsonl.write, jsonl.read),
    "csv": Format(csv_table.write, csv_table.read),
    "parquet": Format(parquet.write, parquet.read),
    "vtt": Format(vtt.write, vtt.read),
    "eaf": Format(eaf.write, eaf.read, takes_media=True),
    "rttm": Format(rttm.write, rttm.read),
    "emotionml": Format(emotionml.write, emotionml.read),
    "html": Format(report.write, takes_media=True),
    "png": Format(png.write),
}


def by_suffix(path: Path) -> str | None:
    """The format that a file's name says it has; None if it says none."""
    name = path.suffix.lower().removeprefix(".")
    return name if name in FORMATS else None
