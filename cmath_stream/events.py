"""The public events (emotion-event/1) as plain JSON-ready dicts, built by pure functions.

`seq` is not here: it is given by the log that publishes the event. The schema file lies beside this module.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.resources import files
from typing import Any

from cmath_stream.assembler import Assembled
from cmath_stream.participant import HALF_LIFE_S, RunningEmotion
from cmath_stream.prediction import EngineInfo, Prediction
from realtime.messages import (
    Answer,
    Features,
    ParticipantJoined,
    ParticipantLeft,
    SessionStarted,
    UtteranceDropped,
    UtteranceEnded,
    UtteranceStarted,
)

SCHEMA = "emotion-event/1"
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "https://schemas.cmath-stream.org/emotion-event/1")

Event = dict[str, Any]


def schema() -> dict[str, Any]:
    """The JSON Schema of every public event."""
    text = files("cmath_stream").joinpath("emotion-event-1.schema.json").read_text("utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded


def to_json(event: Event) -> str:
    """One line, as it is published and stored."""
    return json.dumps(event, ensure_ascii=False, separators=(",", ":"))


def event_id(session_id: str, subject: str, revision: int = 0) -> str:
    """Deterministic: the same fact always has the same id, so a repeat can be recognised."""
    return str(uuid.uuid5(_NAMESPACE, f"{session_id}|{subject}|{revision}"))


def end_id(session_id: str, utterance_id: str) -> str:
    """Of an utterance's one end, its final emotion or its being dropped: it cannot be published twice."""
    return event_id(session_id, f"{utterance_id}|end")


def emotion(
    assembled: Assembled,
    prediction: Prediction,
    info: EngineInfo,
    *,
    session: SessionStarted | None,
    context: tuple[int, int],
    latency_ms: Mapping[str, int] | None,
) -> Event:
    """emotion.utterance. `context` = (utterances seen, speakers among them)."""
    utterance = assembled.utterance
    words = assembled.answers["text"]
    ranked = prediction.probabilities
    best = max(range(len(ranked)), key=ranked.__getitem__)
    event = _base("emotion.utterance", utterance.session_id, utterance.utterance_id, assembled.revision)
    if assembled.is_final:
        event["event_id"] = end_id(utterance.session_id, utterance.utterance_id)
    event |= {
        "participant_id": utterance.participant_id,
        "utterance_id": utterance.utterance_id,
        "revision": assembled.revision,
        "is_final": assembled.is_final,
        "index": utterance.index,
        "start_ms": utterance.start_ms,
        "end_ms": utterance.end_ms,
        "continues": utterance.continues,
        "clock": session.clock if session else "arrival",
    }
    if session and session.at_unix_ms:
        event["started_at"] = _iso(session.at_unix_ms + utterance.start_ms)
    if words.text is not None:
        event["text"] = words.text
    if words.language is not None:
        event["language"] = words.language
    event |= {
        "label": None if prediction.abstained else info.labels[best],
        "emotions": _distribution(info.labels, ranked),
        "abstained": prediction.abstained,
        "modalities": {m: _modality(a, prediction, info, utterance) for m, a in assembled.answers.items()},
        "context": {"window": context[0], "speakers": context[1]},
        "model": {
            "name": "cmath", "version": info.version, "labels": info.label_set,
            "engine": info.engine, "precision": info.precision,
        },
    }  # fmt: skip
    if latency_ms is not None:
        event["latency_ms"] = dict(latency_ms)
    return event


def participant_state(utterance: UtteranceEnded, average: RunningEmotion, labels: tuple[str, ...]) -> Event:
    """participant.state: the participant's running average, with this utterance in it."""
    event = _base("participant.state", utterance.session_id, f"{utterance.utterance_id}|state")
    return event | {
        "participant_id": utterance.participant_id,
        "at_ms": average.at_ms,
        "label": labels[average.leading],
        "emotions": _distribution(labels, average.probabilities),
        "utterances": average.utterances,
        "half_life_ms": round(HALF_LIFE_S * 1000),
    }


def session_started(message: SessionStarted) -> Event:
    """session.started."""
    event = _base("session.started", message.session_id, "session")
    event |= {"room": message.room, "purpose": message.purpose, "clock": message.clock}
    if message.at_unix_ms:
        event["started_at"] = _iso(message.at_unix_ms)
    return event


def session_closed(session_id: str, at_ms: int, reason: str, totals: Mapping[str, int]) -> Event:
    """session.closed; the totals let a reader verify that nothing was lost: started = emotions + dropped."""
    event = _base("session.closed", session_id, "closed")
    return event | {"at_ms": at_ms, "reason": reason, "totals": dict(totals)}


def participant_joined(message: ParticipantJoined) -> Event:
    """participant.joined; whoever declared no consent has none on record, which is said as null."""
    event = _base(
        "participant.joined", message.session_id, f"{message.participant_id}|joined|{message.at_ms}"
    )
    consent = None if message.consent is None else {"notice": message.consent, "at_ms": message.at_ms}
    return event | {"participant_id": message.participant_id, "at_ms": message.at_ms, "consent": consent}


def participant_left(message: ParticipantLeft) -> Event:
    """participant.left."""
    event = _base("participant.left", message.session_id, f"{message.participant_id}|left|{message.at_ms}")
    return event | {
        "participant_id": message.participant_id,
        "at_ms": message.at_ms,
        "reason": message.reason,
    }


def utterance_started(message: UtteranceStarted) -> Event:
    """utterance.started."""
    event = _base("utterance.started", message.session_id, f"{message.utterance_id}|started")
    return event | {
        "participant_id": message.participant_id,
        "utterance_id": message.utterance_id,
        "start_ms": message.start_ms,
    }


def utterance_ended(message: UtteranceEnded) -> Event:
    """utterance.ended: its place in the conversation is fixed, its emotion is on the way.

    Once more, with a later end, where its speaker went on.
    """
    event = _base("utterance.ended", message.session_id, f"{message.utterance_id}|ended", message.attempt)
    return event | {
        "participant_id": message.participant_id,
        "utterance_id": message.utterance_id,
        "index": message.index,
        "start_ms": message.start_ms,
        "end_ms": message.end_ms,
    }


def utterance_dropped(message: UtteranceDropped) -> Event:
    """utterance.dropped: the other way an utterance can end."""
    event = _base("utterance.dropped", message.session_id, f"{message.utterance_id}|end")
    return event | {
        "participant_id": message.participant_id,
        "utterance_id": message.utterance_id,
        "reason": message.reason,
    }


def _base(type_: str, session_id: str, subject: str, revision: int = 0) -> Event:
    return {
        "schema": SCHEMA,
        "type": type_,
        "event_id": event_id(session_id, subject, revision),
        "session_id": session_id,
    }


def _modality(answer: Answer, prediction: Prediction, info: EngineInfo, utterance: UtteranceEnded) -> Event:
    said: Event
    if not isinstance(answer, Features):
        said = {"used": False, "reason": answer.reason}
    elif answer.modality not in prediction.alone:
        said = {"used": False, "reason": "not_in_model"}
    else:
        alone = _distribution(info.labels, prediction.alone[answer.modality])
        said = {"used": True, "quality": round(answer.quality, 3), "emotions": alone}
        if answer.faces is not None:
            said["faces"] = answer.faces
    if answer.modality == "audio":
        said["lost_ms"] = utterance.lost_ms
    return said


def _distribution(labels: tuple[str, ...], probabilities: tuple[float, ...]) -> list[Event]:
    return [{"name": name, "probability": p} for name, p in zip(labels, probabilities, strict=True)]


def _iso(unix_ms: int) -> str:
    moment = datetime.fromtimestamp(unix_ms / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
