"""What was said in one conversation: of each utterance the last word on it.

For formats with a time line. They show one session: two of them would lie over each other.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cmath_stream.events import Event
from realtime.errors import MediaError

Numbered = tuple[int, Event]  # place among all events, event


@dataclass(frozen=True, slots=True)
class Said:
    """All events of a conversation, in two parts."""

    utterances: list[Numbered]  # emotion.utterance, the highest revision of each, in the order of their start
    others: list[Numbered]  # everything else, in the order of the events


def last_words(events: Iterable[Event]) -> list[Event]:
    """Of each utterance the `emotion.utterance` of the highest revision, in order of time."""
    return [event for _, event in _last_words(enumerate(events))]


def labels_of(utterances: Iterable[Event]) -> list[str]:
    """Every emotion that is named in them, in the model's order; another model's own come after it."""
    names: dict[str, None] = {}
    for event in utterances:
        names |= dict.fromkeys(entry["name"] for entry in event["emotions"])
        if event["label"] is not None:
            names[event["label"]] = None
    return list(names)


def said(events: Iterable[Event]) -> Said:
    """Sort events into utterances and the rest. Raises MediaError for events of several sessions."""
    numbered = list(enumerate(one_session(events)))
    utterances = _last_words(numbered)
    shown = {number for number, _ in utterances}
    return Said(utterances, [each for each in numbered if each[0] not in shown])


def one_session(events: Iterable[Event]) -> list[Event]:
    """The events, all of one session. Raises MediaError for several."""
    all_of_them = list(events)
    sessions = list(dict.fromkeys(event["session_id"] for event in all_of_them))
    if len(sessions) > 1:
        raise MediaError(
            f"events of {len(sessions)} sessions, which this format cannot show on one time line: choose one "
            f"by --session, of {', '.join(sessions[:4])}{', …' if len(sessions) > 4 else ''}"
        )
    return all_of_them


def in_order(numbered: Iterable[Numbered]) -> list[Event]:
    """The events in the order that they had."""
    return [event for _, event in sorted(numbered, key=lambda each: each[0])]


def _last_words(numbered: Iterable[Numbered]) -> list[Numbered]:
    latest: dict[str, Numbered] = {}
    for number, event in numbered:
        if event["type"] == "emotion.utterance":
            known = latest.get(event["utterance_id"])
            if known is None or event["revision"] >= known[1]["revision"]:
                latest[event["utterance_id"]] = number, event
    return sorted(latest.values(), key=lambda each: (each[1]["start_ms"], each[1]["end_ms"], each[0]))
