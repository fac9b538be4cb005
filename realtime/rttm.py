"""RTTM: who speaks when, one `SPEAKER` line a turn (NIST Rich Transcription evaluation plan, 2009).

Parsing and writing are text in, text out; `read` is the only function that touches a file.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from realtime.errors import MediaError

_KINDS = frozenset(  # the other object types of the format, which say nothing about turns
    "SEGMENT NOSCORE NO_RT_METADATA LEXEME NON-LEX NON-SPEECH FILLER EDIT IP SU CB A/P SPKR-INFO".split()
)


@dataclass(frozen=True, slots=True)
class Turn:
    """One stretch of one speaker's talk."""

    speaker: str
    start_s: float
    end_s: float


def parse(text: str, source: str = "RTTM") -> dict[str, list[Turn]]:
    """Turns of every recording named in `text`, each list in order of time.

    Raises MediaError naming `source` and the line for anything that is not RTTM.
    """
    recordings: dict[str, list[Turn]] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        fields = line.split()
        if not fields or fields[0].startswith(";;") or fields[0] in _KINDS:
            continue
        if fields[0] != "SPEAKER" or len(fields) < 8:
            raise MediaError(f"{source}, line {number}: not an RTTM line: {line.strip()[:60]!r}")
        try:
            start_s, length_s = float(fields[3]), float(fields[4])
        except ValueError:
            start_s = length_s = math.nan
        if not (0 <= start_s < math.inf and 0 < length_s < math.inf):
            raise MediaError(f"{source}, line {number}: bad start or duration: {fields[3]} {fields[4]}")
        recordings.setdefault(fields[1], []).append(Turn(fields[7], start_s, start_s + length_s))
    for turns in recordings.values():
        turns.sort(key=lambda turn: (turn.start_s, turn.end_s, turn.speaker))
    return recordings


def render(recording: str, turns: Iterable[Turn]) -> str:
    """RTTM text, times in ms resolution. Blanks in names become `_`, as the format separates by blanks."""
    lines = [
        f"SPEAKER {_word(recording)} 1 {turn.start_s:.3f} {turn.end_s - turn.start_s:.3f}"
        f" <NA> <NA> {_word(turn.speaker)} <NA> <NA>\n"
        for turn in turns
    ]
    return "".join(lines)


def read(path: Path, recording: str) -> list[Turn]:
    """The turns of one recording; a file that names a single recording serves whatever its name.

    Raises MediaError if the file is missing, malformed or does not know the recording.
    """
    try:
        recordings = parse(path.read_text("utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise MediaError(f"cannot read {path}: {error}") from None
    if recording in recordings:
        return recordings[recording]
    if len(recordings) == 1:
        return next(iter(recordings.values()))
    known = ", ".join(sorted(recordings)) or "none"
    raise MediaError(f"{path} has no turns of recording {recording!r}; it knows: {known}")


def _word(name: str) -> str:
    return "_".join(name.split()) or "_"
