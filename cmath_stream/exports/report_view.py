"""What the report shows, as plain values: every place, colour and word. The template only puts them in."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from itertools import pairwise
from statistics import median

from cmath_stream.events import Event
from cmath_stream.exports.said import labels_of, last_words
from cmath_stream.exports.shown_text import one_line
from cmath_stream.exports.turning import Step, courses, shares, strongest
from cmath_stream.exports.wording import SENSES, clock, hues, length, names, percent, reason

TURNS = 8  # turning points that are listed
_MOMENTS = {  # by type of event, until when it shows that the session went on
    "emotion.utterance": "end_ms", "utterance.ended": "end_ms", "participant.joined": "at_ms",
    "participant.left": "at_ms", "session.closed": "at_ms",
}  # fmt: skip
_TICKS, _TICKS_ON_PAPER = 720, 12  # marks on the time line at most, where it is wide and where it is not
_STEPS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600)
_TOP, _TALL = 14.0, 72.0  # of the bars in a lane, px
_MARK, _MARK_TALL = 90.0, 3.0  # of the three lines that tell what was used, px


@dataclass(frozen=True, slots=True)
class Box:
    """A coloured piece of a picture. Across in % of the whole, down in px."""

    x: float
    width: float
    y: float
    height: float
    hue: str


@dataclass(frozen=True, slots=True)
class View:
    """What one sense said of an utterance, or why it said nothing."""

    sense: str
    used: bool
    hue: str
    said: str


@dataclass(frozen=True, slots=True)
class Utterance:
    """One utterance, as a bar of the time line and as a row of the table."""

    id: str
    start_ms: int
    end_ms: int
    when: str
    person: str
    label: str | None  # None: the model was unsure
    best: str
    hue: str
    share: str
    words: str | None
    no_words: str
    notes: tuple[str, ...]
    views: tuple[View, ...]
    spoken: str  # the bar, for a screen reader
    x: float
    width: float
    stack: tuple[Box, ...]
    marks: tuple[Box, ...]

    @property
    def missing(self) -> bool:
        """Whether a sense was not used."""
        return any(not view.used for view in self.views)


@dataclass(frozen=True, slots=True)
class Person:
    """A participant."""

    name: str
    hue: str  # of the emotion with the greatest share
    facts: tuple[str, ...]
    ranking: tuple[tuple[str, str, float, str], ...]  # emotion, its colour, share in %, as words
    bar: tuple[Box, ...]  # all shares side by side
    ribbon: tuple[Box, ...]  # the running emotion
    turns: tuple[tuple[float, str], ...]  # place in %, id of the utterance
    utterances: tuple[Utterance, ...]


@dataclass(frozen=True, slots=True)
class Turn:
    """A turning point."""

    id: str
    when: str
    person: str
    before: tuple[str, str]  # emotion, colour
    after: tuple[str, str]
    moved: str
    words: str | None


@dataclass(frozen=True, slots=True)
class Report:
    """Everything."""

    facts: tuple[tuple[str, str], ...]
    models: tuple[tuple[str, tuple[str, ...]], ...]  # what it is, what it was trained on where that is known
    emotions: tuple[tuple[str, str], ...]  # name, colour
    people: tuple[Person, ...]
    rows: tuple[Utterance, ...]
    turns: tuple[Turn, ...]
    more_turns: int  # that are not listed
    ticks: tuple[tuple[float, int, str], ...]  # place in %, second, as words
    coarse_s: int  # seconds from one tick to the next where there is little room
    length_ms: int
    details: str  # JSON: all probabilities, for the details that open in the page


def view(events: Sequence[Event]) -> Report:
    """The report of one session's events."""
    said = last_words(events)
    emotions = labels_of(said)
    colours = hues(emotions)
    people = names(
        dict.fromkeys(event["participant_id"] for event in events if not event["type"].startswith("session."))
    )
    length_ms = max(
        [1, *(int(event[_MOMENTS[event["type"]]]) for event in events if event["type"] in _MOMENTS)]
    )
    ids = {event["utterance_id"]: f"u{number}" for number, event in enumerate(said, start=1)}
    rows = [_utterance(event, ids[event["utterance_id"]], people, colours, length_ms) for event in said]
    course = courses(said)
    steps = [step for own in course.values() for step in own]
    turns = strongest(steps, TURNS)
    shown = [
        _person(person, events, said, rows, course.get(person, []), people, colours, ids, length_ms)
        for person in people
    ]
    return Report(
        facts=_facts(events, said, people, length_ms),
        models=_models(said),
        emotions=tuple((name, colours[name]) for name in emotions),
        people=tuple(shown),
        rows=tuple(rows),
        turns=tuple(_turn(step, ids, people, colours) for step in turns),
        more_turns=sum(step.turns for step in steps) - len(turns),
        ticks=_ticks(length_ms),
        coarse_s=_step_s(length_ms, _TICKS_ON_PAPER),
        length_ms=length_ms,
        details=_details(said, ids, emotions),
    )


def _utterance(
    event: Event, id_: str, people: Mapping[str, str], colours: Mapping[str, str], length_ms: int
) -> Utterance:
    best = max(event["emotions"], key=lambda entry: entry["probability"])
    label = None if event["abstained"] else event["label"]
    named, share = label or best["name"], percent(best["probability"])
    start_ms, end_ms = int(event["start_ms"]), int(event["end_ms"])
    when = f"{clock(start_ms)} – {clock(end_ms)}"
    person = people[event["participant_id"]]
    x, width = 100 * start_ms / length_ms, 100 * max(0, end_ms - start_ms) / length_ms
    words, text = one_line(event.get("text", "")), event["modalities"]["text"]
    notes = [
        "goes on in the next" if event.get("continues") else "",
        "" if event["is_final"] else "may be revised",
        f"answered after {event['latency_ms']['total']} ms" if "latency_ms" in event else "",
    ]
    return Utterance(
        id=id_,
        start_ms=start_ms,
        end_ms=end_ms,
        when=when,
        person=person,
        label=label,
        best=named,
        hue=colours[named],
        share=share,
        words=words or None,
        no_words="" if text["used"] else reason(text["reason"]),
        notes=tuple(note for note in notes if note),
        views=tuple(_view(event["modalities"][key], sense, colours) for key, sense in SENSES.items()),
        spoken=f"{person}, {when}, {label or f'unsure, perhaps {named}'}, {share}",
        x=x,
        width=width,
        stack=_stack(event, x, width, colours),
        marks=tuple(
            Box(x, width, _MARK + row * (_MARK_TALL + 1), _MARK_TALL, "used" if one["used"] else "unused")
            for row, one in enumerate(event["modalities"][key] for key in SENSES)
        ),
    )


def _view(modality: Event, sense: str, colours: Mapping[str, str]) -> View:
    if not modality["used"]:
        return View(sense, False, "", reason(modality["reason"]))
    best = max(modality["emotions"], key=lambda entry: entry["probability"])
    lost = f", {modality['lost_ms']} ms lost" if modality.get("lost_ms") else ""
    faces = f", {modality['faces']} faces" if modality.get("faces", 1) > 1 else ""
    hue = colours.get(best["name"], "")
    return View(sense, True, hue, f"{best['name']} {percent(best['probability'])}{lost}{faces}")


def _stack(event: Event, x: float, width: float, colours: Mapping[str, str]) -> tuple[Box, ...]:
    """The probabilities on each other, the first at the bottom."""
    boxes, bottom = [], _TOP + _TALL
    for entry in event["emotions"]:
        height = _TALL * entry["probability"]
        bottom -= height
        if height >= 0.25:  # what is thinner would only blur its neighbours
            boxes.append(Box(x, width, bottom, height, colours[entry["name"]]))
    return tuple(boxes)


def _person(
    person: str,
    events: Sequence[Event],
    said: Sequence[Event],
    rows: Sequence[Utterance],
    course: Sequence[Step],
    people: Mapping[str, str],
    colours: Mapping[str, str],
    ids: Mapping[str, str],
    length_ms: int,
) -> Person:
    own = [(event, row) for event, row in zip(said, rows, strict=True) if event["participant_id"] == person]
    share = shares([event for event, _ in own])
    ranked = sorted(share.items(), key=lambda each: -each[1])
    spoken_ms = sum(max(0, event["end_ms"] - event["start_ms"]) for event, _ in own)
    edges, at = [], 0.0
    for name, value in share.items():
        edges.append(Box(100 * at, 100 * value, 0, 14, colours[name]))
        at += value
    joined = [e for e in events if e["type"] == "participant.joined" and e["participant_id"] == person]
    consent = next((e["consent"] for e in joined if e.get("consent")), None)
    facts = [f"{len(own)} utterance{'s' * (len(own) != 1)}", f"{length(spoken_ms)} of speech"]
    if joined:
        facts.append(f"agreed to notice {consent['notice']}" if consent else "no consent on record")
    return Person(
        name=people[person],
        hue=colours[ranked[0][0]] if ranked else "",
        facts=tuple(facts),
        ranking=tuple((name, colours[name], 100 * value, percent(value)) for name, value in ranked[:4]),
        bar=tuple(edges),
        ribbon=_ribbon(course, colours, length_ms),
        turns=tuple(
            (100 * step.utterance["end_ms"] / length_ms, ids[step.utterance["utterance_id"]])
            for step in course
            if step.turns
        ),
        utterances=tuple(row for _, row in own),
    )


def _ribbon(course: Sequence[Step], colours: Mapping[str, str], length_ms: int) -> tuple[Box, ...]:
    """The label of the running emotion, from the end of each utterance to the end of the next."""
    boxes: list[Box] = []
    ends = [int(step.utterance["end_ms"]) for step in course] + [length_ms]
    for step, (begin, end) in zip(course, pairwise(ends), strict=True):
        width, hue = 100 * max(0, end - begin) / length_ms, colours[step.after]
        if boxes and boxes[-1].hue == hue:
            boxes[-1] = replace(boxes[-1], width=boxes[-1].width + width)
        else:
            boxes.append(Box(100 * begin / length_ms, width, 0, 5, hue))
    return tuple(boxes)


def _turn(step: Step, ids: Mapping[str, str], people: Mapping[str, str], colours: Mapping[str, str]) -> Turn:
    event, before = step.utterance, step.before or ""
    return Turn(
        id=ids[event["utterance_id"]],
        when=clock(event["end_ms"]),
        person=people[event["participant_id"]],
        before=(before, colours[before]),
        after=(step.after, colours[step.after]),
        moved=percent(step.moved),
        words=one_line(event.get("text", "")) or None,
    )


def _facts(
    events: Sequence[Event], said: Sequence[Event], people: Mapping[str, str], length_ms: int
) -> tuple[tuple[str, str], ...]:
    started = next((event for event in events if event["type"] == "session.started"), {})
    closed = next((event for event in events if event["type"] == "session.closed"), {})
    dropped = Counter(event["reason"] for event in events if event["type"] == "utterance.dropped")
    unsure, changing = sum(e["abstained"] for e in said), sum(not e["is_final"] for e in said)
    counts = [
        str(len(said)),
        f"{unsure} unsure" if unsure else "",
        f"{changing} may be revised" if changing else "",
        *(f"{count} dropped: {reason(code)}" for code, count in dropped.items()),
    ]
    waits = [event["latency_ms"]["total"] for event in said if "latency_ms" in event]
    facts = [
        ("Room", started.get("room", "")),
        ("Started", started.get("started_at", "")[:19].replace("T", " ")),
        ("Length", length(length_ms) + ("" if closed else ", not ended")),
        ("People", ", ".join(people.values())),
        ("Utterances", ", ".join(count for count in counts if count)),
        ("Purpose", started.get("purpose") or ""),
        ("Answered after", f"{median(waits):.0f} ms (median)" if waits else ""),
        ("Session", events[0]["session_id"] if events else ""),
    ]
    return tuple((name, value) for name, value in facts if value)


def _models(said: Iterable[Event]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    found = {tuple(event["model"][key] for key in ("name", "version", "labels")) for event in said}
    return tuple(
        (f"{name} {version}, labels {labels}", _trained_on(version))
        for name, version, labels in sorted(found)
    )


def _trained_on(version: str) -> tuple[str, ...]:
    """What the events do not say and the card of a shipped checkpoint does; () for any other."""
    for card in files("cmath_stream").joinpath("weights").iterdir():
        if card.name.endswith(".json"):
            record = json.loads(card.read_text("utf-8"))
            if f"{record['name']}-{record['version']}" == version:
                return tuple(record["data_sources"])
    return ()


def _step_s(length_ms: int, at_most: int) -> int:
    """A round number of seconds that divides the length in at most so many parts."""
    length_s = length_ms / 1000
    return next((step for step in _STEPS_S if length_s / step <= at_most), math.ceil(length_s / at_most))


def _ticks(length_ms: int) -> tuple[tuple[float, int, str], ...]:
    places = range(0, length_ms // 1000 + 1, _step_s(length_ms, _TICKS))
    return tuple((100_000 * second / length_ms, second, clock(1000 * second)) for second in places)


def _details(said: Sequence[Event], ids: Mapping[str, str], emotions: Sequence[str]) -> str:
    """All probabilities in the order of `emotions`: fused, and of each sense that was used."""
    utterances = {}
    for event in said:
        fused = {"Fused": event["emotions"]}
        senses = {
            sense: event["modalities"][key]["emotions"]
            for key, sense in SENSES.items()
            if event["modalities"][key]["used"]
        }
        utterances[ids[event["utterance_id"]]] = {
            name: [
                round({entry["name"]: entry["probability"] for entry in entries}.get(emotion, 0.0), 4)
                for emotion in emotions
            ]
            for name, entries in {**fused, **senses}.items()
        }
    shown = {"emotions": list(emotions), "utterances": utterances}
    return json.dumps(shown, separators=(",", ":")).replace("<", "\\u003c")
