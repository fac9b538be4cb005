"""An event as a row of a table, and a row as an event: what CSV and Parquet have in common.

A row an event, a column a field, a column an emotion; `rest` holds as JSON what no column says exactly.
`confidence` is the greatest probability, for people: it is not read back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cmath_stream.events import Event
from cmath_stream.exports.leftover import difference, merged, to_ascii

Path = tuple[str, ...]  # of keys, from the event inwards
Cells = dict[str, Any]  # by column; what is not there is empty

REST = "rest"
_CONFIDENCE = "confidence"
_SENSES = ("text", "audio", "visual")


def _sense(name: str, **more: type) -> dict[str, tuple[type, Path]]:
    keys = {"used": bool, "reason": str, "quality": float, **more}
    return {f"{name}_{key}": (kind, ("modalities", name, key)) for key, kind in keys.items()}


def _group(prefix: str, suffix: str, kind: type, keys: str, within: str) -> dict[str, tuple[type, Path]]:
    return {f"{prefix}_{key}{suffix}": (kind, (within, key)) for key in keys.split()}


def _own(kind: type, names: str) -> dict[str, tuple[type, Path]]:
    return {name: (kind, (name,)) for name in names.split()}


_FIELDS: dict[str, tuple[type, Path]] = {
    **_own(str, "type session_id participant_id utterance_id"),
    **_own(int, "seq revision index start_ms end_ms at_ms"),
    **_own(bool, "is_final"),
    **_own(str, "text language label"),
    **_own(bool, "abstained"),
    **_sense("text"),
    **_sense("audio", lost_ms=int),
    **_sense("visual", faces=int),
    **_group("latency", "_ms", int, "endpoint queue text audio visual fuse total", "latency_ms"),
    **_own(str, "reason room purpose clock started_at"),
    **_own(bool, "continues"),
    **_group("context", "", int, "window speakers", "context"),
    **_own(int, "utterances half_life_ms"),
    **_group("model", "", str, "name version labels engine precision", "model"),
    **_own(str, "event_id schema"),
}
_DISTRIBUTIONS: dict[str, tuple[str, Path]] = {  # prefix: (the column that they follow, path)
    "p_": ("abstained", ("emotions",)),
    **{f"{sense}_p_": (f"{sense}_quality", ("modalities", sense, "emotions")) for sense in _SENSES},
}


class Columns:
    """The columns of one table.

    `kinds` is each one's name and Python type, in order; `emotions` names what has a probability column.
    """

    def __init__(self, emotions: Sequence[str]) -> None:
        self.emotions = tuple(emotions)
        self.kinds: dict[str, type] = {}
        after = {column: prefix for prefix, (column, _) in _DISTRIBUTIONS.items()}
        for name, (kind, _) in _FIELDS.items():
            self.kinds[name] = kind
            if name == "abstained":
                self.kinds[_CONFIDENCE] = float
            if name in after:
                self.kinds |= {after[name] + emotion: float for emotion in self.emotions}
        self.kinds[REST] = str

    def cells(self, event: Event) -> Cells:
        """The row of an event."""
        cells: Cells = {}
        for name, (kind, path) in _FIELDS.items():
            value = _at(event, path)
            if type(value) is kind and not _is_beyond_a_cell(value):
                cells[name] = value
        for prefix, (_, path) in _DISTRIBUTIONS.items():
            for entry in _entries(event, path):
                if prefix + entry["name"] in self.kinds:
                    cells[prefix + entry["name"]] = float(entry["probability"])
        left = difference(event, self.event(cells, {}))
        said = _entries(event, ("emotions",))
        if said:
            cells[_CONFIDENCE] = float(max(entry["probability"] for entry in said))
        if left:
            cells[REST] = to_ascii(left)
        return cells

    def event(self, cells: Mapping[str, Any], left: Mapping[str, Any]) -> Event:
        """The event of a row; `left` is what its `rest` says."""
        shown: Event = {}
        for name, (_, path) in _FIELDS.items():
            if name in cells:
                _put(shown, path, cells[name])
        for prefix, (_, path) in _DISTRIBUTIONS.items():
            said = [(name, cells[prefix + name]) for name in self.emotions if prefix + name in cells]
            if said:
                _put(shown, path, [{"name": name, "probability": p} for name, p in said])
        return merged(shown, left)


def columns_for(events: Iterable[Event]) -> Columns:
    """The columns that these events need: an emotion gets its own where it is first named."""
    names: dict[str, None] = {}
    for event in events:
        for _, path in _DISTRIBUTIONS.values():
            for entry in _entries(event, path):
                if entry["name"].isprintable():
                    names[entry["name"]] = None
    return Columns(tuple(names))


def columns_named(head: Sequence[str]) -> Columns | None:
    """The columns of a table with this head, which may have more of them; None if it was not written here."""
    columns = Columns([name.removeprefix("p_") for name in head if name.startswith("p_")])
    return columns if columns.kinds.keys() <= set(head) and len(set(head)) == len(head) else None


def as_kind(value: Any, kind: type) -> Any:
    """A value as its column has it: a table that holds integers and gaps often comes back with fractions."""
    return int(value) if kind is int and isinstance(value, float) and value.is_integer() else value


def _is_beyond_a_cell(value: Any) -> bool:
    """An empty text is an empty cell, which means nothing; half a surrogate pair, and what needs 65 bits."""
    if isinstance(value, str):
        return not value or value.encode("utf-8", "replace").decode() != value
    return isinstance(value, int) and value.bit_length() > 63


def _entries(event: Event, path: Path) -> Sequence[Event]:
    """The probabilities that are kept there; () if something else is, which a field we do not know may be."""
    found = _at(event, path)
    fits = isinstance(found, list) and all(
        isinstance(entry, dict)
        and isinstance(entry.get("name"), str)
        and type(entry.get("probability")) in (int, float)
        for entry in found
    )
    return found if fits else ()


def _at(event: Mapping[str, Any], path: Path) -> Any:
    value: Any = event
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _put(event: Event, path: Path, value: Any) -> None:
    for key in path[:-1]:
        event = event.setdefault(key, {})
    event[path[-1]] = value
