"""Raw results: what an experiment writes, one JSON file a set and suite, and what `bench.results` reads.

The tree of frozen dataclasses below is the format: a key is a field, a missing optional key is its default,
and anything else is refused with one line that names the place. All figures are shares of 1.

Letters: n utterances, C classes.
"""

from __future__ import annotations

import json
import math
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from cmath_stream.training.evaluate import (
    BINS,
    Labels,
    Probabilities,
    calibration_interval,
    metrics,
    risk_coverage,
)

Set = Literal["mosi", "meld-words", "ravdess-voice", "ravdess-voice-face", "ferplus", "grafted"]
Group = Literal["main", "ablation", "window", "width", "modalities", "condition", "conflict"]
Lead = Literal["accuracy", "weighted_f1"]
Compared = Literal["accuracy", "weighted_f1", "macro_f1"]  # higher is better

POINTS = 101  # of a risk-coverage curve, at most
_DIGITS = 6  # of a written number


class RawResultError(ValueError):
    """A file is not in the format; the message is one line that says where and why."""


@dataclass(frozen=True, slots=True)
class Score:
    """One run of one seed."""

    accuracy: float
    weighted_f1: float
    macro_f1: float
    ece: float


@dataclass(frozen=True, slots=True)
class Row:
    """A line of a table."""

    group: Group
    name: str  # the names of window and width rows end in the value: "CMATH, 16", "full"
    scores: tuple[Score, ...]  # one a seed
    note: str = ""


@dataclass(frozen=True, slots=True)
class Contrast:
    """Two rows compared on the same utterances."""

    better: str  # as its author expects; the interval decides
    worse: str
    metric: Compared
    difference: float  # better - worse
    low: float  # 95 % interval
    high: float
    by: str  # what was drawn again and again: "video", "dialogue", "actor"


@dataclass(frozen=True, slots=True)
class Published:
    """A figure of others; at least one of the two is given."""

    name: str
    differs: str  # from ours: features, split, who chose the epoch
    accuracy: float | None = None
    weighted_f1: float | None = None


@dataclass(frozen=True, slots=True)
class Calibration:
    """A reliability diagram of one pattern of present modalities."""

    confidence: tuple[float | None, ...]  # [BINS] mean of the bin; None = nobody in it
    accuracy: tuple[float | None, ...]  # [BINS]
    count: tuple[int, ...]  # [BINS]
    ece: float
    low: float  # 95 % interval
    high: float
    floor: float  # what a perfectly calibrated model shows at this n


@dataclass(frozen=True, slots=True)
class Confusion:
    labels: tuple[str, ...]  # [C]
    counts: tuple[tuple[int, ...], ...]  # [C, C] true, said


@dataclass(frozen=True, slots=True)
class RawResults:
    """A file."""

    set: Set
    title: str
    made_by: str  # the command that makes this file
    protocol: str  # folds, seeds, who chose the epoch
    n: int
    metric: Lead  # the figure that tables lead with
    rows: tuple[Row, ...]
    contrasts: tuple[Contrast, ...] = ()
    published: tuple[Published, ...] = ()
    calibration: Mapping[str, Calibration] = field(default_factory=dict)  # by pattern
    risk_coverage: Mapping[str, tuple[tuple[float, float], ...]] = field(default_factory=dict)
    confusion: Confusion | None = None

    def group(self, name: Group) -> tuple[Row, ...]:
        return tuple(row for row in self.rows if row.group == name)


def read_raw(path: Path) -> RawResults:
    """Read and check a file; `RawResultError` in one line, with the place, if it is not in the format."""
    try:
        return parse_raw(json.loads(path.read_text(encoding="utf-8")))
    except ValueError as error:  # also of JSON and of UTF-8
        raise RawResultError(f"{path}: {error}") from None


def write_raw(path: Path, raw: Mapping[str, Any]) -> RawResults:
    """Check `raw`, which is in the format (numpy numbers are welcome), and write it, a line for each row.

    Raises `RawResultError` and writes nothing if it is not in the format.
    """
    parsed = parse_raw(plain := _plain(raw))
    members = [f"{json.dumps(key)}: {_block(value)}" for key, value in plain.items()]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{\n" + ",\n".join(members) + "\n}\n", encoding="utf-8")
    return parsed


def parse_raw(raw: object) -> RawResults:
    """What `json.loads` gave, checked."""
    result: RawResults = _read(RawResults, raw, "")
    for fault in _faults(result):
        raise RawResultError(fault)
    return result


def score(probabilities: Probabilities, label: Labels) -> dict[str, float]:
    """The figures of one seed: [n, C] against [n] -> an entry of a row's `scores`."""
    figures = metrics(probabilities, label)
    return {f.name: getattr(figures, f.name) for f in fields(Score)}


def calibration_curve(probabilities: Probabilities, label: Labels) -> dict[str, Any]:
    """[n, C] against [n] -> an entry of `calibration`: bins, ECE, its interval and its floor."""
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == label
    place = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)  # as in the ECE
    count = np.bincount(place, minlength=BINS)
    low, high, floor = calibration_interval(probabilities, label)

    def means(values: Probabilities) -> list[float | None]:
        sums = np.bincount(place, weights=values, minlength=BINS)
        return [float(total / many) if many else None for total, many in zip(sums, count, strict=True)]

    return {
        "confidence": means(confidence),
        "accuracy": means(right.astype(np.float64)),
        "count": count.tolist(),
        "ece": metrics(probabilities, label).ece,
        "low": low,
        "high": high,
        "floor": floor,
    }


def risk_curve(probabilities: Probabilities, label: Labels) -> list[list[float]]:
    """[n, C] against [n] -> an entry of `risk_coverage`: at most 101 pairs, the last one at full coverage."""
    curve = risk_coverage(probabilities, label)
    kept = np.unique(np.linspace(0, len(curve) - 1, POINTS).round().astype(np.int64))
    return [[float(coverage), float(risk)] for coverage, risk in curve[kept]]


def confusion(probabilities: Probabilities, label: Labels, labels: Sequence[str]) -> dict[str, Any]:
    """[n, C] against [n], and the C names -> `confusion`."""
    counts = np.zeros((len(labels), len(labels)), dtype=np.int64)
    np.add.at(counts, (label, probabilities.argmax(axis=1)), 1)
    return {"labels": list(labels), "counts": counts.tolist()}


def _read(kind: Any, value: Any, where: str) -> Any:
    """`value` as the type `kind`; `where` is its place in the file, for the message."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if is_dataclass(kind):
        return _read_fields(kind, value, where)
    if origin is types.UnionType:  # T | None
        return None if value is None else _read(inner[0], value, where)
    if origin is Literal:
        return value if value in inner else _refuse(where, " or ".join(map(json.dumps, inner)), value)
    if origin is tuple and isinstance(value, list):
        if inner[-1] is not Ellipsis and len(value) != len(inner):
            _refuse(where, f"{len(inner)} entries", value)
        return tuple(_read(inner[0], entry, f"{where}[{place}]") for place, entry in enumerate(value))
    if origin is Mapping and isinstance(value, dict):
        return {key: _read(inner[1], entry, f"{where}[{json.dumps(key)}]") for key, entry in value.items()}
    if kind is float and type(value) in (int, float) and math.isfinite(value):
        return float(value)
    if kind in (int, str) and type(value) is kind:
        return value
    names = {tuple: "a list", Mapping: "an object", float: "a number", int: "a whole number", str: "a text"}
    return _refuse(where, names[origin or kind], value)


def _read_fields(kind: Any, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        _refuse(where, "an object", value)
    hints = typing.get_type_hints(kind)
    dot = f"{where}." if where else ""
    for key in (key for key in value if key not in hints):
        raise RawResultError(f"{dot}{key}: unknown key")
    for f in fields(kind):
        if f.default is MISSING and f.default_factory is MISSING and f.name not in value:
            raise RawResultError(f"{dot}{f.name}: missing")
    return kind(**{key: _read(hints[key], entry, dot + key) for key, entry in value.items()})


def _refuse(where: str, expected: str, value: object) -> typing.NoReturn:
    found = json.dumps(value)
    found = found if len(found) <= 40 else found[:37] + "..."
    raise RawResultError(f"{where or 'file'}: expected {expected}, found {found}")


def _faults(raw: RawResults) -> Iterator[str]:
    """What types cannot say."""
    if raw.n < 1 or not raw.rows:
        yield "n and rows: expected at least one utterance and one row"
    seen: set[tuple[str, str]] = set()
    for place, row in enumerate(raw.rows):
        if not row.scores:
            yield f"rows[{place}].scores: empty"
        if (row.group, row.name) in seen:
            yield f"rows[{place}].name: {json.dumps(row.name)} twice in group {row.group}"
        seen.add((row.group, row.name))
        for seed, one in enumerate(row.scores):
            for f in fields(Score):
                yield from _share(f"rows[{place}].scores[{seed}].{f.name}", getattr(one, f.name))
    for place, contrast in enumerate(raw.contrasts):
        if not contrast.low <= contrast.difference <= contrast.high:
            yield f"contrasts[{place}]: the difference lies outside low and high"
    for place, other in enumerate(raw.published):
        if other.accuracy is None and other.weighted_f1 is None:
            yield f"published[{place}]: neither accuracy nor weighted_f1"
        for share in (other.accuracy, other.weighted_f1):
            yield from _share(f"published[{place}]", share)
    for name, curve in raw.calibration.items():
        where = f"calibration[{json.dumps(name)}]"
        if not len(curve.confidence) == len(curve.accuracy) == len(curve.count) == BINS:
            yield f"{where}: expected {BINS} bins"
        if sum(curve.count) < 1:
            yield f"{where}: nobody in any bin"
        for many, *means in zip(curve.count, curve.confidence, curve.accuracy, strict=True):
            if any((mean is None) != (many == 0) for mean in means):
                yield f"{where}: a bin is null where, and only where, its count is 0"
        for share in (*curve.confidence, *curve.accuracy, curve.ece, curve.low, curve.high, curve.floor):
            yield from _share(where, share)
    for name, points in raw.risk_coverage.items():
        where = f"risk_coverage[{json.dumps(name)}]"
        if not 1 <= len(points) <= POINTS:
            yield f"{where}: expected 1 to {POINTS} points, found {len(points)}"
        for share in (share for point in points for share in point):
            yield from _share(where, share)
    classes = len(raw.confusion.labels) if raw.confusion else 0
    if raw.confusion and [len(line) for line in raw.confusion.counts] != [classes] * classes:
        yield f"confusion.counts: expected {classes} x {classes} numbers"


def _share(where: str, value: float | None) -> Iterator[str]:
    if value is not None and not 0 <= value <= 1:
        yield f"{where}: expected a share between 0 and 1, found {value:g}"


def _plain(value: Any) -> Any:
    """Numbers and lists that JSON knows, rounded so that a file stays small."""
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, float):
        return round(value, _DIGITS)
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    return [_plain(entry) for entry in value] if isinstance(value, list | tuple) else value


def _block(value: Any) -> str:
    """JSON with a line for each entry of the outer list or object, so that a change shows as a line."""
    if isinstance(value, dict) and value:
        return "{\n " + ",\n ".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in value.items()) + "\n}"
    if isinstance(value, list) and value:
        return "[\n " + ",\n ".join(json.dumps(entry) for entry in value) + "\n]"
    return json.dumps(value)
