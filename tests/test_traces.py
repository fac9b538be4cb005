"""A session that changes hands goes on as if it had not."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cmath_stream import traces
from cmath_stream.assembler import AssemblerConfig
from cmath_stream.engine import Engine
from cmath_stream.events import Event
from cmath_stream.fusion import Outcome, Pending, SessionFusion
from cmath_stream.prediction import EngineConfig
from cmath_stream.traces import Average, Mean, Trace
from realtime.errors import WireError
from realtime.messages import (
    Answer,
    Features,
    FeaturesMissing,
    InboxMessage,
    SessionClosed,
    SessionStarted,
    UtteranceDropped,
    UtteranceEnded,
    UtteranceSettled,
    UtteranceStarted,
)
from tests.checkpoints import tiny

CONFIG = AssemblerConfig(deadline_s=1.5, final_s=4.0)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return Engine(tiny(tmp_path_factory.mktemp("tiny"), running=True), EngineConfig())


class Hands:
    """A session as the service runs it, that may pass from one process to the next between messages."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.left: list[tuple[bytes, bytes]] = []  # what Redis holds
        self.told: dict[str, Event] = {}  # by id, the first alone
        self.unsettled: list[tuple[str, InboxMessage]] = []
        self.fusion = SessionFusion("s", CONFIG, engine)

    def change(self) -> None:
        """The process dies; the next one reads what was not acknowledged again."""
        self.fusion = SessionFusion("s", CONFIG, self.engine)
        self.fusion.restore(traces.decode(*each) for each in self.left)
        again, self.unsettled = self.unsettled, []
        for _, message in again:
            self.push(message)

    def push(self, message: InboxMessage) -> None:
        if isinstance(message, Features | FeaturesMissing | UtteranceEnded | UtteranceSettled):
            self.unsettled.append((message.utterance_id, message))
        self.take(self.fusion.push(message, 0.0))
        self.unsettled = [(uid, each) for uid, each in self.unsettled if self.fusion.owes(uid)]

    def take(self, outcomes: list[Outcome]) -> None:
        for outcome in outcomes:
            prediction = self.engine.step([outcome.window])[0] if isinstance(outcome, Pending) else None
            events = self.fusion.tell(outcome, prediction)
            self.left += [traces.encode(trace) for trace in self.fusion.take_traces()]
            for event in events:
                self.told.setdefault(event["event_id"], event)

    def emotions(self) -> dict[str, Event]:
        """The final ones by utterance."""
        found = [e for e in self.told.values() if e["type"] == "emotion.utterance" and e["is_final"]]
        assert len({e["utterance_id"] for e in found}) == len(found)
        return {e["utterance_id"]: e for e in found}

    def last(self, kind: str) -> Event:
        return [event for event in self.told.values() if event["type"] == kind][-1]


def conversation(turns: int, *, open_end: bool = False) -> list[InboxMessage]:
    """Two people by turns; every fifth utterance is dropped, every third has no words."""
    rng = np.random.default_rng(0)
    out: list[InboxMessage] = [SessionStarted("s", "room", 1_790_000_000_000, "research", "arrival")]
    for n in range(turns):
        pid = "anna" if n % 2 else "ben"
        uid = f"{pid}.{n}"
        if n % 5 == 4:
            out.append(UtteranceDropped("s", pid, uid, "ingest_lost"))
            continue
        words: Answer = Features("s", uid, "text", "words/1", rng.normal(size=6).astype(np.float32), 1.0, 1)
        if n % 3 == 2:
            words = FeaturesMissing("s", uid, "text", "no_caption", 0)
        voice = Features("s", uid, "audio", "voice/1", rng.normal(size=5).astype(np.float32), 1.0, 1)
        ended = UtteranceEnded(
            "s", pid, uid, n, n * 900, n * 900 + 700, False, 0, 300, 0, may_resume=open_end
        )
        out += [words, ended, voice, FeaturesMissing("s", uid, "visual", "no_video", 0)]
        if open_end:
            out.append(UtteranceSettled("s", pid, uid))
    return [*out, SessionClosed("s", turns * 900, "empty", turns)]


@settings(deadline=None, max_examples=15)
@given(st.sets(st.integers(0, 70), min_size=1, max_size=6), st.booleans())
def test_changing_hands_changes_no_answer(engine: Engine, at: set[int], open_end: bool) -> None:
    messages = conversation(14, open_end=open_end)
    whole, changing = Hands(engine), Hands(engine)
    for place, message in enumerate(messages):
        whole.push(message)
        changing.push(message)
        if place in at:
            changing.change()
    expected, found = whole.emotions(), changing.emotions()
    assert list(found) == list(expected) and len(expected) > 8
    for uid, event in expected.items():
        assert found[uid]["context"] == event["context"]
        assert found[uid]["started_at"] == event["started_at"]
        for said, right in zip(found[uid]["emotions"], event["emotions"], strict=True):
            assert said["probability"] == pytest.approx(right["probability"], abs=1e-4)
    for kind in ("session.closed", "participant.state"):
        one, other = whole.last(kind), changing.last(kind)
        assert {**one, "emotions": 0} == {**other, "emotions": 0}
    assert whole.last("session.closed")["totals"] == {"started": 14, "emotions": 12, "dropped": 2}


def test_a_final_answer_that_was_told_is_not_told_again(engine: Engine) -> None:
    hands = Hands(engine)
    messages = conversation(1)
    for message in messages[:-2]:
        hands.push(message)
    owed = list(hands.unsettled)
    hands.push(messages[-2])
    before = list(hands.told)
    hands.unsettled = [*owed, ("ben.0", messages[-2])]  # it died between publishing and acknowledging
    hands.change()
    assert list(hands.told) == before
    hands.push(messages[-1])
    assert hands.last("session.closed")["totals"] == {"started": 1, "emotions": 1, "dropped": 0}
    assert hands.last("participant.state")["utterances"] == 1


def test_a_provisional_answer_told_before_is_followed_by_a_higher_revision(engine: Engine) -> None:
    hands = Hands(engine)
    *messages, settled, _ = conversation(1, open_end=True)
    for message in messages:
        hands.push(message)
    hands.change()
    hands.push(settled)
    said = [e for e in hands.told.values() if e["type"] == "emotion.utterance"]
    revisions = [e["revision"] for e in said]
    assert revisions == sorted(set(revisions))
    assert [e["is_final"] for e in said] == [False] * (len(said) - 1) + [True]


def test_a_trace_is_the_same_after_the_wire() -> None:
    vectors = {"text": np.arange(3, dtype=np.float32), "audio": np.ones(4, np.float32)}
    mean = Mean(7, np.full(2, 0.5, np.float32))
    started = SessionStarted("s", "r", 1, None, "arrival")
    average = Average(3, 900, 1, 0.25, (0.1, 0.2))
    trace = Trace(
        "a.0", "a", 2, True, vectors, {"audio": mean}, average, {"a": 0}, {"a.1": "a"}, 4, 5, 1, started
    )
    again = traces.decode(*traces.encode(trace))
    assert again.vectors.keys() == vectors.keys()
    assert all(np.array_equal(again.vectors[name], vectors[name]) for name in vectors)
    assert again.means["audio"].count == 7 and np.array_equal(again.means["audio"].total, mean.total)
    rest = [name for name in Trace.__slots__ if name not in ("vectors", "means")]
    assert [getattr(again, name) for name in rest] == [getattr(trace, name) for name in rest]


@settings(max_examples=300)
@given(st.data())
def test_a_damaged_trace_is_refused_or_read_and_nothing_else(data: st.DataObject) -> None:
    vectors = {"text": np.ones(3, np.float32)}
    means = {"audio": Mean(7, np.ones(2, np.float32))}
    average = Average(3, 900, 1, 0.25, (0.1, 0.2))
    head, blob = traces.encode(Trace("a.0", "a", 0, False, vectors, means, average, {}, {}, 0, 0, 0, None))
    assert "text" in json.loads(head)["vectors"][0]
    at = data.draw(st.integers(0, len(head) - 1))
    put = data.draw(st.binary(max_size=4) | st.sampled_from([b"null", b"[]", b"-1", b'""', b"{"]))
    cut = data.draw(st.integers(0, len(blob)))
    with suppress(WireError):
        traces.decode(head[:at] + put + head[at + len(put) :], blob[:cut])
    with pytest.raises(WireError):
        traces.decode(head, blob[: min(cut, len(blob) - 1)])


def test_traces_of_another_model_leave_what_can_be_used(engine: Engine) -> None:
    hands = Hands(engine)
    messages = conversation(6)
    for message in messages[:-5]:
        hands.push(message)
    kept = [traces.decode(*each) for each in hands.left]
    other = {"text": np.ones(99, np.float32), "odour": np.ones(3, np.float32)}
    average = Average(3, 900, 1, 0.25, (0.1, 0.2))
    hands.left = [traces.encode(replace(each, vectors=other, average=average)) for each in kept]
    hands.change()
    for message in messages[-5:]:
        hands.push(message)
    assert hands.last("session.closed")["totals"]["emotions"] == 5
    assert hands.last("emotion.utterance")["context"]["window"] == 1


def test_a_trace_holds_no_words(engine: Engine, tmp_path: Path) -> None:
    hands = Hands(engine)
    for message in conversation(3):
        if isinstance(message, Features) and message.modality == "text":
            message = replace(message, text="a secret")
        hands.push(message)
    assert hands.left and all(b"secret" not in head + blob for head, blob in hands.left)


def test_when_the_ingest_dies_every_utterance_still_has_its_end(engine: Engine) -> None:
    hands = Hands(engine)
    for message in conversation(1, open_end=True)[:-2]:
        hands.push(message)  # ben.0 is answered, and might go on
    for uid in ("anna.1", "anna.2"):
        hands.push(UtteranceStarted("s", "anna", uid, 900))
    hands.push(UtteranceEnded("s", "anna", "anna.1", 1, 900, 1500, False, 0, 300, 0))
    hands.change()  # and the fusion with it: the next one knows what was open
    hands.take(hands.fusion.lose(0.0))
    dropped = [e for e in hands.told.values() if e["type"] == "utterance.dropped"]
    assert [(e["utterance_id"], e["reason"]) for e in dropped] == [("anna.2", "ingest_lost")]
    assert list(hands.emotions()) == ["ben.0"]
    hands.take(hands.fusion.expire(99.0))  # nobody answered anna.1
    closed = hands.last("session.closed")
    assert closed["reason"] == "ingest_lost" and closed["at_ms"] == 1500
    assert closed["totals"] == {"started": 2, "emotions": 1, "dropped": 2}
