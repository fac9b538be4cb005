"""What recorded events say of every utterance, for those who compare: the final answers, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cmath_stream.events import SCHEMA, Event
from realtime.errors import CmathStreamError
from realtime.plain_words import plain


class EventsError(CmathStreamError):
    """A file that holds no events; says where."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The last answer to one utterance."""

    room: str  # of its session
    participant_id: str
    utterance_id: str
    index: int  # place in the conversation
    start_ms: int
    end_ms: int
    text: str
    labels: tuple[str, ...]  # [C], the model's
    probabilities: tuple[float, ...]  # [C]
    abstained: bool
    model: str  # "name-version"

    @property
    def label(self) -> str:
        """The most probable emotion, abstained or not."""
        return self.labels[self.best]

    @property
    def best(self) -> int:
        """Its place among the labels."""
        return max(range(len(self.labels)), key=self.probabilities.__getitem__)


def answers(events: Iterable[Event]) -> list[Answer]:
    """The answer to every utterance, sessions in order of appearance, each in the order of its events."""
    rooms: dict[str, str] = {}
    found: dict[tuple[str, str], tuple[int, Answer]] = {}
    for event in events:
        session_id: str = event["session_id"]
        if event["type"] == "session.started":
            rooms[session_id] = event["room"]
        if event["type"] != "emotion.utterance":
            continue
        key = session_id, event["utterance_id"]
        if key not in found or found[key][0] <= event["revision"]:
            found[key] = event["revision"], _answer(event, rooms.get(session_id, session_id))
    return [answer for _, answer in found.values()]


def read(path: Path) -> list[Answer]:
    """Of a file of events, one JSON object a line. Raises EventsError."""
    try:
        return answers(_lines(path))
    except OSError as error:
        raise EventsError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise EventsError(f"{path}: no text: {error.reason}") from None
    except (KeyError, TypeError, ValueError) as error:
        raise EventsError(f"{path}: an event that is not as {SCHEMA} has it: {error}") from None


def _lines(path: Path) -> Iterator[Event]:
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                event = json.loads(line)
                foreign = event["schema"] != SCHEMA
            except (ValueError, KeyError, TypeError, RecursionError):
                foreign = True
            if foreign:
                raise EventsError(f"{path}:{number}: not an event of schema {SCHEMA}")
            yield event


def _answer(event: Event, room: str) -> Answer:
    emotions = event["emotions"]
    return Answer(
        room,
        event["participant_id"],
        event["utterance_id"],
        event["index"],
        event["start_ms"],
        event["end_ms"],
        plain(event.get("text", "")),
        tuple(entry["name"] for entry in emotions),
        tuple(float(entry["probability"]) for entry in emotions),
        event["abstained"],
        event["model"]["version"],
    )
