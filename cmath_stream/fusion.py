"""Everything about one session between the inbox and the model. Sans-I/O: notices and answers in, events out.

Some events need the model. They leave as `Pending`, which holds the window to run; `tell` makes the events of
the model's answer. So windows of many sessions can share one call, live, and replay runs the same code. A
provisional answer that turns out to be the last needs no model again: it leaves as `Confirmed`.

Of every answer a trace is left (`take_traces`), and a new object goes on from the traces of an old one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cmath_stream import events
from cmath_stream.assembler import Assembled, Assembler, AssemblerConfig, present
from cmath_stream.events import Event
from cmath_stream.participant import RunningEmotion
from cmath_stream.prediction import Prediction
from cmath_stream.running import RunningMean
from cmath_stream.traces import Mean, Trace
from cmath_stream.window import Row, Window
from realtime.messages import (
    Features,
    InboxMessage,
    Modality,
    ParticipantJoined,
    ParticipantLeft,
    SessionClosed,
    SessionStarted,
    UtteranceDropped,
    UtteranceEnded,
    UtteranceSettled,
    UtteranceStarted,
    Vector,
)

if TYPE_CHECKING:
    from cmath_stream.engine import Engine


_ENDED = 256  # utterances whose end is remembered, so that one that comes again is not counted again


@dataclass(frozen=True, slots=True)
class Pending:
    """An utterance that waits for the model."""

    assembled: Assembled
    window: tuple[Row, ...]
    means: Mapping[str, Mean]  # of its speaker, with it


@dataclass(frozen=True, slots=True)
class Confirmed:
    """An utterance whose last answer stands: its speaker did not go on."""

    assembled: Assembled


@dataclass(frozen=True, slots=True)
class _Said:
    """The model's last provisional answer to an utterance."""

    pending: Pending
    prediction: Prediction
    latency_ms: Mapping[str, int] | None


Outcome = Event | Pending | Confirmed | SessionStarted | UtteranceStarted | UtteranceDropped | SessionClosed


class SessionFusion:
    """One session's assembler, window and totals. `now_s` is any monotonic clock, seconds."""

    def __init__(self, session_id: str, config: AssemblerConfig, engine: Engine) -> None:
        self._session_id = session_id
        self._engine = engine
        self._assembler = Assembler(config)
        self._window = Window(engine.rows)
        self._usual: dict[tuple[str, str], RunningMean] = {}  # by participant and modality
        self._averages: dict[str, RunningEmotion] = {}  # by participant
        self._said: dict[str, _Said] = {}  # of the utterances whose answer is provisional
        self._ended: deque[str] = deque(maxlen=_ENDED)
        self._traces: list[Trace] = []
        self._started: SessionStarted | None = None
        self._closing: SessionClosed | None = None
        self._open: dict[str, str] = {}  # utterance → participant, of those that have begun and not ended
        self._at_ms = 0  # end of what was said last
        self._begun = 0
        self._emotions = 0
        self._dropped = 0
        self.closed = False

    def push(self, message: InboxMessage, now_s: float) -> list[Outcome]:
        """Next message of the inbox."""
        match message:
            case SessionStarted():
                self._started = message
                return [message]
            case ParticipantJoined():
                return [events.participant_joined(message)]
            case ParticipantLeft():
                return [events.participant_left(message)]
            case UtteranceStarted():
                return [message]
            case UtteranceSettled():
                return self._outcomes(self._assembler.settle(message.utterance_id, now_s))
            case UtteranceDropped():
                return [message]
            case UtteranceEnded():
                self._open.pop(message.utterance_id, None)
                self._at_ms = max(self._at_ms, message.end_ms)
                ended = events.utterance_ended(message)
                return [ended, *self._outcomes(self._assembler.announce(message, now_s))]
            case SessionClosed():
                self._closing = message
                return self._outcomes([])
            case _:
                return self._outcomes(self._assembler.answer(message, now_s))

    def expire(self, now_s: float) -> list[Outcome]:
        """What the clock makes due."""
        return self._outcomes(self._assembler.expire(now_s))

    def lose(self, now_s: float) -> list[Outcome]:
        """The ingest is gone: what is open is dropped, what can still be answered is, and then it is over.

        Of what was said and never written nobody knows.
        """
        out: list[Outcome] = [
            UtteranceDropped(self._session_id, pid, uid, "ingest_lost") for uid, pid in self._open.items()
        ]
        self._open.clear()
        assembled = self._assembler.settle_all(now_s)
        self._closing = SessionClosed(self._session_id, self._at_ms, "ingest_lost", self._begun)
        return out + self._outcomes(assembled)

    @property
    def is_closing(self) -> bool:
        """Whether nothing more will be said."""
        return self._closing is not None

    @property
    def idle(self) -> bool:
        """True when no utterance waits for an answer."""
        return self._assembler.idle

    def owes(self, utterance_id: str) -> bool:
        """Whether this utterance still waits for its final event."""
        return self._assembler.owes(utterance_id)

    def restore(self, traces: Iterable[Trace]) -> None:
        """Go on where another process left off; before the first `push`.

        Of another model's traces what this one cannot take is left out.
        """
        known: set[str] = set()
        for trace in traces:
            uid, pid = trace.utterance_id, trace.participant_id
            self._window.know(trace.speakers)
            vectors = trace.vectors if self._engine.takes(trace.vectors) else {}
            if vectors:
                self._window.put(uid, pid, vectors, revision=int(uid in known))
                known.add(uid)
            for modality, mean in trace.means.items():
                if modality in vectors and self._runs(modality):
                    self._mean(pid, modality).restore(uid, vectors[modality], mean)
            if trace.average is not None and len(trace.average.sums) == len(self._engine.info.labels):
                self._averages[pid] = RunningEmotion.of(trace.average)
            self._started = trace.started or self._started
            self._emotions, self._dropped = trace.emotions, trace.dropped
            self._open, self._begun = dict(trace.open), trace.begun
            if uid:
                self._assembler.resume(uid, trace.revision + 1)
            if trace.is_end:
                self._ended.append(uid)

    def take_traces(self) -> list[Trace]:
        """What `tell` has left since the last call; to be kept before its events are told."""
        traces, self._traces = self._traces, []
        return traces

    def tell(
        self,
        outcome: Outcome,
        prediction: Prediction | None = None,
        latency_ms: Mapping[str, int] | None = None,
    ) -> list[Event]:
        """The events of an outcome, in the order of outcomes; `prediction` is the model's for a `Pending`."""
        match outcome:
            case Pending():
                assert prediction is not None
                return self._emotion(outcome.assembled, _Said(outcome, prediction, latency_ms))
            case Confirmed():  # its latency is that of the answer
                return self._emotion(outcome.assembled, self._said[outcome.assembled.utterance.utterance_id])
            case SessionStarted():
                self._trace("", "", 0, is_end=False)  # of no utterance yet: that there is a session
                return [events.session_started(outcome)]
            case UtteranceStarted():
                if outcome.utterance_id not in self._open and outcome.utterance_id not in self._ended:
                    self._open[outcome.utterance_id] = outcome.participant_id
                    self._begun += 1
                self._trace("", "", 0, is_end=False)
                return [events.utterance_started(outcome)]
            case UtteranceDropped():
                self._open.pop(outcome.utterance_id, None)
                if self._ends(outcome.utterance_id):
                    self._dropped += 1
                self._trace(outcome.utterance_id, outcome.participant_id, 0, is_end=True)
                return [events.utterance_dropped(outcome)]
            case SessionClosed():
                totals = {"started": outcome.started, "emotions": self._emotions, "dropped": self._dropped}
                return [events.session_closed(self._session_id, outcome.at_ms, outcome.reason, totals)]
            case _:
                return [outcome]

    def _emotion(self, assembled: Assembled, said: _Said) -> list[Event]:
        """The utterance's emotion, and with the final one what that makes of its speaker's average."""
        utterance, prediction, info = assembled.utterance, said.prediction, self._engine.info
        seen = said.pending.window[-self._engine.window :]  # without the halo
        context = (len(seen), len({row.speaker for row in seen}))
        emotion = events.emotion(
            assembled, prediction, info,
            session=self._started, context=context, latency_ms=said.latency_ms,
        )  # fmt: skip
        told = [emotion]
        if assembled.is_final:
            self._said.pop(utterance.utterance_id, None)
            average = self._averages.setdefault(utterance.participant_id, RunningEmotion())
            if self._ends(utterance.utterance_id):
                self._emotions += 1
                average.add(utterance.start_ms, utterance.end_ms, prediction.probabilities)
            told.append(events.participant_state(utterance, average, info.labels))
        else:
            self._said[utterance.utterance_id] = said
        self._trace(
            utterance.utterance_id, utterance.participant_id, assembled.revision, is_end=assembled.is_final,
            vectors=said.pending.window[-1].vectors, means=said.pending.means,
        )  # fmt: skip
        return told

    def _ends(self, utterance_id: str) -> bool:
        """Whether this is the first end of an utterance."""
        first = utterance_id not in self._ended
        if first:
            self._ended.append(utterance_id)
        return first

    def _trace(
        self, uid: str, pid: str, revision: int, *, is_end: bool,
        vectors: Mapping[str, Vector] | None = None, means: Mapping[str, Mean] | None = None,
    ) -> None:  # fmt: skip
        average = self._averages.get(pid)
        self._traces.append(Trace(
            uid, pid, revision, is_end, vectors or {}, means or {}, average.state() if average else None,
            self._window.speakers, dict(self._open), self._begun, self._emotions, self._dropped,
            self._started,
        ))  # fmt: skip

    def _outcomes(self, assembled: list[Assembled]) -> list[Outcome]:
        out: list[Outcome] = []
        for one in assembled:
            out += self._outcome(one)
        if self._closing is not None and self._assembler.idle and not self.closed:
            self.closed = True
            out.append(self._closing)
        return out

    def _outcome(self, assembled: Assembled) -> list[Outcome]:
        utterance = assembled.utterance
        usable = [m for m in present(assembled.answers) if m in self._engine.modalities]
        if usable and assembled.confirms:
            return [Confirmed(assembled)]
        vectors: dict[str, Vector] = {m: self._input(m, assembled) for m in usable}
        window = self._window.put(
            utterance.utterance_id, utterance.participant_id, vectors, assembled.revision
        )
        if usable:
            pid = utterance.participant_id
            means: dict[str, Mean] = {m: self._mean(pid, m).state() for m in usable if self._runs(m)}
            return [Pending(assembled, window, means)]
        if not assembled.is_final:
            return []  # something may still come; an emotion from nothing would be an invention
        ids = utterance.session_id, utterance.participant_id, utterance.utterance_id
        return [UtteranceDropped(*ids, "no_modality")]

    def _input(self, modality: Modality, assembled: Assembled) -> Vector:
        """What the model takes: the features, and their distance from the person's running mean if asked."""
        features, utterance = assembled.answers[modality], assembled.utterance
        assert isinstance(features, Features)
        if not self._runs(modality):
            return features.vector
        return self._mean(utterance.participant_id, modality).beside(utterance.utterance_id, features.vector)

    def _runs(self, modality: str) -> bool:
        """Whether the model takes this modality beside its running mean."""
        return modality in self._engine.everybody

    def _mean(self, participant_id: str, modality: str) -> RunningMean:
        person = (participant_id, modality)
        return self._usual.setdefault(person, RunningMean(self._engine.everybody[modality]))
