"""Written conversations on disk: who said what, in order, and, where the file knows it, when and how.

JSON lines, one dialogue each (`{"dialogue", "utterances": [{"speaker", "text", "emotion"?, "start_s"?,
"end_s"?, "utterance"?}]}`), or the table of MELD (CSV with `Dialogue_ID`, `Utterance_ID`, `Speaker`,
`Utterance` and, where it has them, `Emotion`, `StartTime`, `EndTime`). Knows both layouts; not labels, clips
or models.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from realtime.errors import CmathStreamError
from realtime.plain_words import plain

SUFFIXES = (".jsonl", ".csv")
_CLOCK = re.compile(r"(\d+):([0-5]?\d):([0-5]?\d)[.,](\d{1,3})")
# MELD's published tables hold the punctuation of Windows-1252 as control characters.
_TYPOGRAPHIC = {code: bytes([code]).decode("cp1252", "replace") for code in range(0x80, 0xA0)}


class DialogueError(CmathStreamError):
    """A file that is no table of dialogues; says where."""


@dataclass(frozen=True, slots=True)
class Spoken:
    """One utterance as it is written."""

    speaker: str
    text: str
    number: int  # its own in the dialogue; the place in it where the file gives none
    emotion: str | None = None  # as the file calls it
    start_s: float | None = None
    end_s: float | None = None


@dataclass(frozen=True, slots=True)
class Written:
    """A conversation in order."""

    name: str
    utterances: tuple[Spoken, ...]


def read(path: Path) -> list[Written]:
    """All dialogues of a file, in its order. Raises DialogueError naming file and line."""
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DialogueError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    parse = parse_csv if path.suffix.lower() == ".csv" else parse_jsonl
    return parse(text, str(path))


def parse_jsonl(text: str, source: str = "JSONL") -> list[Written]:
    """One dialogue a line. Raises DialogueError."""
    dialogues = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            dialogues.append(_dialogue(json.loads(line)))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise DialogueError(f"{source}:{number}: not a dialogue: {_reason(error)}") from None
    if not dialogues:
        raise DialogueError(f"{source}: no dialogues")
    return dialogues


def parse_csv(text: str, source: str = "CSV") -> list[Written]:
    """MELD's table: rows of a dialogue in order of `Utterance_ID`. Raises DialogueError."""
    rows = csv.DictReader(io.StringIO(text.translate(_TYPOGRAPHIC), newline=""))
    missing = {"Dialogue_ID", "Utterance_ID", "Speaker", "Utterance"} - set(rows.fieldnames or ())
    if missing:
        raise DialogueError(f"{source}: no column {sorted(missing)[0]!r}")
    found: dict[str, list[Spoken]] = {}
    try:
        for row in rows:
            found.setdefault(plain(row["Dialogue_ID"]), []).append(_row(row))
    except (ValueError, TypeError, AttributeError, csv.Error) as error:
        raise DialogueError(f"{source}:{rows.line_num}: not an utterance: {_reason(error)}") from None
    if not found:
        raise DialogueError(f"{source}: no dialogues")
    return [Written(name, tuple(sorted(said, key=lambda each: each.number))) for name, said in found.items()]


def _dialogue(record: Mapping[str, Any]) -> Written:
    said = tuple(
        Spoken(
            plain(str(row["speaker"])),
            plain(str(row["text"])),
            int(row.get("utterance", place)),
            None if row.get("emotion") is None else plain(str(row["emotion"])),
            _seconds(row.get("start_s")),
            _seconds(row.get("end_s")),
        )
        for place, row in enumerate(record["utterances"])
    )
    if not said:
        raise ValueError("no utterances")
    return Written(plain(str(record["dialogue"])), said)


def _row(row: Mapping[str, str]) -> Spoken:
    return Spoken(
        plain(row["Speaker"]),
        plain(row["Utterance"]),
        int(row["Utterance_ID"]),
        plain(row["Emotion"]) if row.get("Emotion") else None,
        _clock_s(row.get("StartTime")),
        _clock_s(row.get("EndTime")),
    )


def _seconds(value: Any) -> float | None:
    if value is None:
        return None
    seconds = float(value)
    if not 0 <= seconds < math.inf:
        raise ValueError(f"{seconds} is no time in seconds")
    return seconds


def _clock_s(text: str | None) -> float | None:
    if not text or not text.strip():
        return None
    match = _CLOCK.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{plain(text)[:20]!r} is no time like 00:16:16,059")
    hours, minutes, seconds, fraction = match.groups()
    return int(hours) * 3600 + int(minutes) * 60 + int(seconds) + int(fraction.ljust(3, "0")) / 1000


def _reason(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"no {error.args[0]!r}"
    return plain(str(error))[:200] or type(error).__name__
