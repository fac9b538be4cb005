"""One session from notices and answers to valid public events."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from cmath_stream import events
from cmath_stream.assembler import AssemblerConfig
from cmath_stream.engine import Engine
from cmath_stream.events import Event
from cmath_stream.fusion import Outcome, Pending, SessionFusion
from cmath_stream.prediction import EngineConfig
from cmath_stream.running import beside_running_mean
from cmath_stream.window import Row
from realtime.messages import (
    Answer,
    Features,
    FeaturesMissing,
    ParticipantJoined,
    ParticipantLeft,
    SessionClosed,
    SessionStarted,
    UtteranceDropped,
    UtteranceEnded,
    UtteranceSettled,
    UtteranceStarted,
)
from tests.checkpoints import LABELS, tiny

VALID = jsonschema.Draft202012Validator(events.schema(), format_checker=jsonschema.FormatChecker())
LATENCY = {"endpoint": 300, "queue": 1, "text": 2, "audio": 3, "visual": 0, "fuse": 1, "total": 307}


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return Engine(tiny(tmp_path), EngineConfig())


class Session:
    """Runs a SessionFusion as the service does."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.fusion = SessionFusion("s", AssemblerConfig(deadline_s=1.5, final_s=4.0), engine)
        self.events: list[Event] = []
        self.windows: list[tuple[Row, ...]] = []
        self.take(
            self.fusion.push(SessionStarted("s", "room", 1_790_000_000_000, "research", "arrival"), 0.0)
        )

    def take(self, outcomes: list[Outcome]) -> None:
        for outcome in outcomes:
            prediction = None
            if isinstance(outcome, Pending):
                self.windows.append(outcome.window)
                prediction = self.engine.step([outcome.window])[0]
            told = self.fusion.tell(outcome, prediction, LATENCY)
            for event in told:
                self.events.append({"schema": event["schema"], "seq": len(self.events) + 1, **event})
            VALID.validate(self.events[-1])

    def utterance(
        self, n: int, answers: list[Answer], pid: str = "anna", now_s: float = 0.0, *, open_end: bool = False
    ) -> None:
        uid = f"{pid}.{n}"
        self.take(self.fusion.push(UtteranceStarted("s", pid, uid, n * 1000), now_s))
        ended = UtteranceEnded(
            "s", pid, uid, n, n * 1000, n * 1000 + 600, False, 20, 300, 1, may_resume=open_end
        )
        self.take(self.fusion.push(ended, now_s))
        for answer in answers:
            self.take(self.fusion.push(answer, now_s))

    def of(self, kind: str) -> list[Event]:
        return [event for event in self.events if event["type"] == kind]


def text(uid: str) -> Features:
    return Features("s", uid, "text", "words/1", np.ones(6, np.float32), 0.9, 7, "hello", "en")


def audio(uid: str) -> Features:
    return Features("s", uid, "audio", "voice/1", np.ones(5, np.float32), 0.8, 3)


def no(uid: str, modality: str, reason: str) -> FeaturesMissing:
    return FeaturesMissing("s", uid, modality, reason, 0)  # type: ignore[arg-type]


def test_an_utterance_becomes_one_valid_event(engine: Engine) -> None:
    session = Session(engine)
    session.utterance(0, [text("anna.0"), audio("anna.0"), no("anna.0", "visual", "no_video")])
    (event,) = session.of("emotion.utterance")
    assert event["is_final"] and event["revision"] == 0 and event["text"] == "hello"
    assert [e["name"] for e in event["emotions"]] == list(LABELS)
    assert sum(e["probability"] for e in event["emotions"]) == pytest.approx(1.0)
    assert event["label"] == max(event["emotions"], key=lambda e: e["probability"])["name"]
    assert event["modalities"]["visual"] == {"used": False, "reason": "no_video"}
    assert event["modalities"]["audio"]["used"] and event["modalities"]["audio"]["lost_ms"] == 20
    assert event["started_at"].startswith("2026-") and event["clock"] == "arrival"
    assert event["context"] == {"window": 1, "speakers": 1}


def test_nothing_at_all_is_dropped_not_invented(engine: Engine) -> None:
    session = Session(engine)
    missing: list[Answer] = [no("anna.0", m, "too_short") for m in ("text", "audio", "visual")]
    session.utterance(0, missing)
    assert session.of("emotion.utterance") == []
    (dropped,) = session.of("utterance.dropped")
    assert dropped["reason"] == "no_modality"


def test_a_modality_the_model_does_not_know_is_said(engine: Engine) -> None:
    session = Session(engine)
    face = Features("s", "anna.0", "visual", "face/1", np.ones(3, np.float32), 1.0, 1)
    session.utterance(0, [text("anna.0"), audio("anna.0"), face])
    assert session.of("emotion.utterance")[0]["modalities"]["visual"] == {
        "used": False,
        "reason": "not_in_model",
    }


def test_late_words_make_a_final_revision_that_later_turns_see(engine: Engine) -> None:
    session = Session(engine)
    session.utterance(0, [audio("anna.0"), no("anna.0", "visual", "no_video")])
    session.take(session.fusion.expire(1.6))
    session.take(session.fusion.push(text("anna.0"), 2.0))
    first, second = session.of("emotion.utterance")
    (state,) = session.of("participant.state")  # with the final revision, and of it alone
    assert session.events.index(state) == session.events.index(second) + 1
    assert state["utterances"] == 1
    for average, said in zip(state["emotions"], second["emotions"], strict=True):
        assert average == {"name": said["name"], "probability": pytest.approx(said["probability"])}
    assert (first["revision"], first["is_final"]) == (0, False)
    assert first["modalities"]["text"] == {"used": False, "reason": "pending"}
    assert (second["revision"], second["is_final"], second["text"]) == (1, True, "hello")
    assert first["event_id"] != second["event_id"]


def test_a_speaker_who_goes_on_revises_the_utterance_in_its_place(engine: Engine) -> None:
    session = Session(engine)
    session.utterance(0, [text("anna.0"), audio("anna.0"), no("anna.0", "visual", "no_video")], open_end=True)
    session.utterance(1, [text("ben.1"), audio("ben.1"), no("ben.1", "visual", "no_video")], "ben")
    runs = len(session.windows)
    louder = replace(audio("anna.0"), vector=np.full(5, 3.0, np.float32))
    new = [replace(a, attempt=1) for a in (text("anna.0"), louder, no("anna.0", "visual", "no_video"))]
    ended = UtteranceEnded("s", "anna", "anna.0", 0, 0, 2400, False, 20, 300, 1, 1, True)
    session.take(session.fusion.push(ended, 1.0))
    for answer in new:
        session.take(session.fusion.push(answer, 1.0))
    assert [row.utterance_id for row in session.windows[-1]] == ["anna.0"]
    session.take(session.fusion.push(UtteranceSettled("s", "anna", "anna.0"), 2.0))
    assert len(session.windows) == runs + 1  # to confirm takes no model
    said = [e for e in session.of("emotion.utterance") if e["utterance_id"] == "anna.0"]
    assert [(e["revision"], e["is_final"], e["end_ms"]) for e in said] == [
        (0, False, 600), (1, False, 2400), (2, True, 2400),
    ]  # fmt: skip
    assert said[1]["emotions"] == said[2]["emotions"] != said[0]["emotions"]
    assert [e["end_ms"] for e in session.of("utterance.ended") if e["utterance_id"] == "anna.0"] == [
        600,
        2400,
    ]
    assert len({e["event_id"] for e in session.events}) == len(session.events)


def test_the_session_closes_after_its_last_utterance_with_totals(engine: Engine) -> None:
    session = Session(engine)
    session.take(session.fusion.push(ParticipantJoined("s", "anna", 0), 0.0))
    session.utterance(0, [audio("anna.0")])
    session.utterance(1, [audio("anna.1"), text("anna.1"), no("anna.1", "visual", "no_face")])
    session.take(session.fusion.push(UtteranceDropped("s", "anna", "anna.2", "ingest_lost"), 0.0))
    session.take(session.fusion.push(ParticipantLeft("s", "anna", 9000, "bye"), 0.1))
    session.take(session.fusion.push(SessionClosed("s", 9000, "empty", 3), 0.1))
    assert session.events[-1]["type"] != "session.closed"
    session.take(session.fusion.expire(1.6))
    session.take(session.fusion.expire(4.1))
    assert session.fusion.closed
    assert session.events[-1]["type"] == "session.closed"
    assert session.events[-1]["totals"] == {"started": 3, "emotions": 2, "dropped": 1}
    assert session.fusion.expire(9.0) == []  # and it is said once


def test_the_same_fact_has_the_same_id(engine: Engine) -> None:
    one, two = Session(engine), Session(engine)
    for session in (one, two):
        session.utterance(0, [text("anna.0"), audio("anna.0"), no("anna.0", "visual", "no_video")])
    assert [e["event_id"] for e in one.events] == [e["event_id"] for e in two.events]
    assert len({e["event_id"] for e in one.events}) == len(one.events)


def test_a_window_never_counts_its_halo(engine: Engine) -> None:
    session = Session(engine)
    for n in range(12):
        pid = "anna" if n % 2 else "ben"
        uid = f"{pid}.{n}"
        session.utterance(n, [text(uid), audio(uid), no(uid, "visual", "no_video")], pid)
    assert [e["context"]["window"] for e in session.of("emotion.utterance")] == [1, 2, 3] + [4] * 9


def test_a_voice_is_set_beside_the_running_mean_of_its_own_speaker(tmp_path: Path) -> None:
    engine = Engine(tiny(tmp_path, running=True), EngineConfig())
    rng = np.random.default_rng(0)
    spoken = {pid: rng.normal(size=(3, 5)).astype(np.float32) for pid in ("anna", "ben")}
    session, rows = Session(engine), {}
    for n in range(3):
        for pid, vectors in spoken.items():
            uid = f"{pid}.{n}"
            heard = Features("s", uid, "audio", "voice/1", vectors[n], 0.8, 3)
            session.utterance(n, [text(uid), heard, no(uid, "visual", "no_video")], pid)
            rows[uid] = session.windows[-1][-1].vectors["audio"]
    for pid, vectors in spoken.items():
        expected = beside_running_mean(vectors, engine.everybody["audio"])
        np.testing.assert_allclose([rows[f"{pid}.{n}"] for n in range(3)], expected, rtol=1e-5, atol=1e-6)
