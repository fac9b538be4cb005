"""What was truly said when, and how long its emotion took.

The end of speech is the annotated end in the published file, mapped to the wall clock by the publisher's own
send clock; the time of an event is the one that Redis gave its entry. Our VAD has no say in either. All
times here are milliseconds of the file that a participant published, unless named otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cmath_stream.events import Event
from cmath_stream.inputs import Source, owner_of
from cmath_stream.scoring import Interval, merge
from cmath_stream.watch import Entry
from realtime import captions, rttm
from realtime.errors import MediaError

_REACH_MS = 300  # an annotated end this long after an utterance is still taken for its own
_EARLY_MS = 100  # speech that goes on longer than this after its utterance was cut off
_INSIDE_MS = 200  # an utterance's pad (150 ms) may reach into a line that is not its own

Report = dict[str, Any]  # a publisher's


@dataclass(frozen=True, slots=True)
class Line:
    """One annotated line of a participant."""

    speaker: str
    start_ms: int
    end_ms: int


@dataclass(frozen=True, slots=True)
class Timed:
    """The first event of an utterance in which an annotated line ends."""

    event: Event
    end_ms: int  # of the last line in it
    latency_ms: float  # from that end to the event's entry in Redis


def captioned(people: Sequence[Source]) -> list[Line]:
    """Without annotation the captions' own times are the best that is known."""
    return [
        Line(person.participant_id, round(c.start_s * 1000), round(c.end_s * 1000))
        for person in people
        for c in person.captions
    ]


def read(paths: Sequence[Path], people: Sequence[Source]) -> list[Line]:
    """Annotated lines: turns of RTTM files, or captions of any format.

    Lines of one participant that overlap are one: in a mix, speech ends when the last one falls silent.
    Raises MediaError, also for a speaker who is none of the people.
    """
    files, names = [person.path for person in people], [person.participant_id for person in people]
    said: dict[str, list[Interval]] = {name: [] for name in names}
    for path in paths:
        for speaker, interval in _intervals(path, files):
            said[owner_of(path, speaker, files, names)].append(interval)
    return [
        Line(name, round(start_s * 1000), round(end_s * 1000))
        for name, intervals in said.items()
        for start_s, end_s in merge(intervals)
    ]


def timed(entries: Sequence[Entry], reports: Sequence[Report], lines: Sequence[Line]) -> list[Timed]:
    """First events beside the truth; an utterance that was cut inside a line has no annotated end."""
    sent = {report["participant"]: report for report in reports}
    first = [entry for entry in entries if _is_emotion(entry[1]) and entry[1]["revision"] == 0]
    ends_ms: dict[str, list[int]] = {}  # by utterance
    for line in lines:
        holding = [
            event
            for _, event in first
            if event["participant_id"] == line.speaker
            and _in_file(event, sent)[0] < line.end_ms <= _in_file(event, sent)[1] + _REACH_MS
        ]
        if holding:
            latest = max(holding, key=lambda event: int(event["start_ms"]))
            ends_ms.setdefault(latest["utterance_id"], []).append(line.end_ms)
    found = []
    for entry_id, event in first:
        if event["utterance_id"] in ends_ms:
            end_ms = max(ends_ms[event["utterance_id"]])
            said_unix_ms = sent[event["participant_id"]]["media_start_unix_s"] * 1000 + end_ms
            found.append(Timed(event, end_ms, int(entry_id.partition("-")[0]) - said_unix_ms))
    return found


def latencies_ms(entries: Sequence[Entry], reports: Sequence[Report], lines: Sequence[Line]) -> list[float]:
    """Real end of speech → first event, for every utterance that an annotated line ends in."""
    return [one.latency_ms for one in timed(entries, reports, lines)]


def cut_early(entries: Sequence[Entry], reports: Sequence[Report], lines: Sequence[Line]) -> list[str]:
    """Ids of the utterances that ended, by their last word on it, while their speaker was still talking.

    One that was cut at the maximum length and says so does not count.
    """
    sent = {report["participant"]: report for report in reports}
    last = {event["utterance_id"]: event for _, event in entries if _is_emotion(event)}
    early = []
    for utterance_id, event in last.items():
        _, end_ms = _in_file(event, sent)
        talking = any(
            line.speaker == event["participant_id"]
            and line.start_ms < end_ms - _INSIDE_MS
            and line.end_ms > end_ms + _EARLY_MS
            for line in lines
        )
        if talking and not event["continues"]:
            early.append(utterance_id)
    return early


def _intervals(path: Path, files: Sequence[Path]) -> list[tuple[str | None, Interval]]:
    if path.suffix.lower() == ".rttm":
        recording = files[0].stem if len(files) == 1 else path.stem
        return [(turn.speaker, (turn.start_s, turn.end_s)) for turn in rttm.read(path, recording)]
    if path.suffix.lower() not in captions.PARSERS:
        raise MediaError(f"{path}: an annotation must be one of .rttm, {', '.join(captions.PARSERS)}")
    read_captions = captions.read(path)
    return [(speaker, (c.start_s, c.end_s)) for speaker, said in read_captions.items() for c in said]


def _is_emotion(event: Event) -> bool:
    return bool(event["type"] == "emotion.utterance")


def _in_file(event: Event, sent: dict[str, Report]) -> tuple[int, int]:
    """Start and end of an utterance in its participant's file."""
    offset_ms: int = sent[event["participant_id"]]["session_offset_ms"]
    return event["start_ms"] - offset_ms, event["end_ms"] - offset_ms
