"""A short call as events: two people, five utterances, among them what is easily forgotten."""

from __future__ import annotations

import json
from typing import Any

from cmath_stream.events import SCHEMA, event_id, to_json
from realtime.redis_bus import RedisConfig, connect
from realtime.redis_events import EventLog

Event = dict[str, Any]

SESSION = "5e551011000000000000000000000000"
EMOTIONS = ("neutral", "surprise", "fear", "sadness", "joy", "disgust", "anger")


def distribution(label: str, share: float = 0.76) -> list[Event]:
    """`share` for one emotion, the rest in equal parts."""
    rest = round((1 - share) / 6, 6)
    return [{"name": name, "probability": share if name == label else rest} for name in EMOTIONS]


def utterance(
    person: str, number: int, start_ms: int, end_ms: int, label: str, text: str | None, **changes: Any
) -> Event:
    """A final emotion; the words and the voice say the same, there is no picture."""
    utterance_id = f"{person}.{number}"
    heard = {"used": True, "quality": 1.0, "emotions": distribution(label, 0.64), "lost_ms": 0}
    words: Event = {"used": False, "reason": "no_caption"}
    if text is not None:
        words = {"used": True, "quality": 0.9, "emotions": distribution(label, 0.7)}
    event = {
        "schema": SCHEMA, "seq": 1, "type": "emotion.utterance", "event_id": event_id(SESSION, utterance_id),
        "session_id": SESSION, "participant_id": person, "utterance_id": utterance_id, "revision": 0,
        "is_final": True, "index": 0, "start_ms": start_ms, "end_ms": end_ms, "continues": False,
        "clock": "media", "text": text, "language": "en", "label": label,
        "emotions": distribution(label), "abstained": False,
        "modalities": {"text": words, "audio": heard, "visual": {"used": False, "reason": "no_video"}},
        "context": {"window": 1, "speakers": 1},
        "model": {
            "name": "cmath", "version": "live-small-2", "labels": "meld7", "engine": "eager",
            "precision": "fp32",
        },
        **changes,
    }  # fmt: skip
    return {key: value for key, value in event.items() if key != "text" or value is not None}


def short_call() -> list[Event]:
    """Every kind of event; keys in the order in which they are published."""
    unsure = {"label": None, "abstained": True, "emotions": distribution("fear", 0.2)}
    final = [
        utterance("anna", 0, 490, 2838, "neutral", "Hi Ben. The mail came this morning."),
        utterance("ben", 0, 3018, 5494, "joy", "Okay! Put the letters on the table."),
        utterance("anna", 1, 5738, 9302, "anger", "Wait, what? This one is from the university!"),
        utterance("ben", 1, 9482, 10100, "fear", None) | unsure,
    ]
    events: list[Event] = [
        _event("session.started", "session", room="demo", purpose="demonstration", clock="media"),
        _event("participant.joined", "anna|joined", participant_id="anna", at_ms=0, consent=None),
        _event("participant.joined", "ben|joined", participant_id="ben", at_ms=0,
               consent={"notice": "1", "at_ms": 0}),
    ]  # fmt: skip
    for index, event in enumerate(final):
        of = {"participant_id": event["participant_id"], "utterance_id": event["utterance_id"]}
        times = {"start_ms": event["start_ms"], "end_ms": event["end_ms"]}
        id_ = event["utterance_id"]
        events += [
            _event("utterance.started", f"{id_}|started", **of, start_ms=event["start_ms"]),
            _event("utterance.ended", f"{id_}|ended", **of, index=index, **times),
            {**event, "index": index},
        ]
    cough = {"participant_id": "anna", "utterance_id": "anna.2"}
    events += [
        _event("utterance.started", "anna.2|started", **cough, start_ms=10500),
        _event("utterance.dropped", "anna.2|end", **cough, reason="too_short"),
        _event("session.closed", "closed", at_ms=11000, reason="end_of_file",
               totals={"started": 5, "emotions": 4, "dropped": 1}),
    ]  # fmt: skip
    return [{**event, "seq": seq} for seq, event in enumerate(events, start=1)]


def lines(events: list[Event]) -> str:
    """JSON lines."""
    return "".join(to_json(event) + "\n" for event in events)


async def publish(redis_url: str) -> None:
    """The short call as a session of Redis."""
    async with connect(RedisConfig(url=redis_url)) as client:
        log = EventLog(client, RedisConfig())
        for event in short_call():
            body = to_json({key: value for key, value in event.items() if key != "seq"})
            await log.publish(SESSION, event["event_id"], body)


def copied(events: list[Event]) -> list[Event]:
    """The same events, to change."""
    loaded: list[Event] = json.loads(json.dumps(events))
    return loaded


def _event(kind: str, subject: str, **fields: Any) -> Event:
    head = {"schema": SCHEMA, "seq": 1, "type": kind, "event_id": event_id(SESSION, subject)}
    return {**head, "session_id": SESSION, **fields}
