"""RTTM: who spoke when, and nothing else; for the tools that judge diarisation.

Carries a projection: each utterance that was not dropped and has a length, in ms, with its speaker's name, in
which blanks become `_`. Read back it is one `utterance.ended` a turn, under ids of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from cmath_stream.events import SCHEMA, Event, event_id
from cmath_stream.exports.about import About
from cmath_stream.exports.canon import checked
from cmath_stream.exports.said import one_session
from cmath_stream.exports.shown_text import one_line
from realtime.errors import MediaError
from realtime.rttm import Turn, parse, render


def write(events: Iterable[Event], file: BinaryIO, about: About) -> None:
    """Write the turns of one session as of the recording `about.name`. Raises MediaError for several."""
    spans: dict[str, Event] = {}
    for event in one_session(events):
        if event["type"] in ("utterance.ended", "emotion.utterance"):
            spans[event["utterance_id"]] = event
        elif event["type"] == "utterance.dropped":
            spans.pop(event["utterance_id"], None)
    turns = sorted(
        (event["start_ms"] / 1000, event["end_ms"] / 1000, one_line(event["participant_id"]))
        for event in spans.values()
        if event["end_ms"] > event["start_ms"]
    )
    file.write(
        render(one_line(about.name), (Turn(who, start_s, end_s) for start_s, end_s, who in turns)).encode()
    )


def read(path: Path) -> Iterator[Event]:
    """An `utterance.ended` a turn of the one recording, which names the session. Raises MediaError."""
    try:
        recordings = parse(path.read_text("utf-8"), str(path))
    except UnicodeDecodeError:
        raise MediaError(f"{path}: not UTF-8") from None
    if len(recordings) != 1:
        raise MediaError(f"{path}: turns of {len(recordings)} recordings: a session is one")
    ((session_id, turns),) = recordings.items()
    counted: Counter[str] = Counter()
    for index, turn in enumerate(sorted(turns, key=lambda turn: (turn.end_s, turn.speaker))):
        utterance_id = f"{turn.speaker}.{counted[turn.speaker]}"
        counted[turn.speaker] += 1
        event = {
            "schema": SCHEMA, "type": "utterance.ended", "seq": index + 1, "session_id": session_id,
            "event_id": event_id(session_id, f"{utterance_id}|ended"), "participant_id": turn.speaker,
            "utterance_id": utterance_id, "index": index, "start_ms": round(turn.start_s * 1000),
            "end_ms": round(turn.end_s * 1000),
        }  # fmt: skip
        yield checked(event, str(path))
