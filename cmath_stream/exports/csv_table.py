"""CSV (RFC 4180, UTF-8): a row an event; the columns are those of `columns`.

A text that a spreadsheet would take for a formula, or that begins with an apostrophe, gets an apostrophe
before it, which is taken off again by `read`. Every text is quoted, so that no other separator than the comma
cuts it into cells either.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from cmath_stream.events import Event
from cmath_stream.exports.about import About
from cmath_stream.exports.canon import checked, decoded
from cmath_stream.exports.columns import REST, as_kind, columns_for, columns_named
from realtime.errors import MediaError

_GUARD = "'"
_GUARDED = ("=", "+", "-", "@", "\t", "\r", "\n", _GUARD)
_BOOLS = {"true": True, "false": False}
_INTEGER = re.compile(r"[+-]?\d+")


def write(events: Iterable[Event], file: BinaryIO, _: About) -> None:
    """Write events one by one; they are walked through twice, first for the emotions they name."""
    columns = columns_for(events)
    file.write(_line(columns.kinds))
    for event in events:
        cells = columns.cells(event)
        file.write(_line(cells.get(name) for name in columns.kinds))


def read(path: Path) -> Iterator[Event]:
    """Events one by one. Raises MediaError, naming the row, where it has been damaged or is not ours."""
    with path.open(encoding="utf-8-sig", newline="") as lines:  # a spreadsheet may have put a mark before it
        rows = csv.reader(lines, strict=True)
        try:
            head = next(rows, [])
            columns = columns_named([_text(name) for name in head])
            if columns is None:
                raise MediaError(f"{path}: no table of events by cmath-stream: its columns are others")
            names = [_text(name) for name in head]
            for row in rows:
                where = f"{path}, line {rows.line_num}"
                if len(row) != len(head):
                    raise MediaError(f"{where}: {len(row)} cells, not {len(head)}")
                cells = {
                    name: _value(cell, columns.kinds[name], f"{where}, {name}")
                    for name, cell in zip(names, row, strict=True)
                    if cell and name in columns.kinds
                }
                left = decoded(cells.pop(REST, "{}"), f"{where}, {REST}")
                if not isinstance(left, dict):
                    raise MediaError(f"{where}, {REST}: not a JSON object")
                yield checked(columns.event(cells, left), where)
        except UnicodeDecodeError:
            raise MediaError(f"{path}: not UTF-8") from None
        except csv.Error as error:
            raise MediaError(f"{path}, line {rows.line_num}: not CSV: {error}") from None


def _line(values: Iterable[Any]) -> bytes:
    return (",".join(map(_cell, values)) + "\r\n").encode()


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str):
        return repr(value)
    guarded = _GUARD + value if value.startswith(_GUARDED) else value
    return '"' + guarded.replace('"', '""') + '"'


def _text(cell: str) -> str:
    return cell.removeprefix(_GUARD)


def _value(cell: str, kind: type, where: str) -> Any:
    try:
        if kind is str:
            return _text(cell)
        if kind is bool:
            return _BOOLS[cell.lower()]
        return int(cell) if kind is int and _INTEGER.fullmatch(cell) else as_kind(float(cell), kind)
    except (KeyError, ValueError):
        raise MediaError(f"{where}: {cell!r:.40} is no {kind.__name__}") from None
