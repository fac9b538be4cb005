"""Everything about one session between the inbox and the model. Sans-I/O: notices and answers in, events out.

Some events need the model. They leave as `Pending`, which holds the window to run; `finish` makes the events
of the model's answer. So windows of many sessions can share one call, live, and replay runs the same code.
A provisional answer that turns out to be the last needs no model again: it leaves as `Confirmed`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cmath_stream import events
from cmath_stream.assembler import Assembled, Assembler, AssemblerConfig, present
from cmath_stream.events import Event
from cmath_stream.participant import RunningEmotion
from cmath_stream.prediction import Prediction
from cmath_stream.running import RunningMean
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


@dataclass(frozen=True, slots=True)
class Pending:
    """An utterance that waits for the model."""

    assembled: Assembled
    window: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Confirmed:
    """An utterance whose last answer stands: its speaker did not go on."""

    assembled: Assembled


@dataclass(frozen=True, slots=True)
class _Said:
    """The model's last provisional answer to an utterance."""

    prediction: Prediction
    context: tuple[int, int]  # utterances and speakers in its window
    latency_ms: Mapping[str, int] | None


Outcome = Event | Pending | Confirmed


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
        self._started: SessionStarted | None = None
        self._closing: SessionClosed | None = None
        self._emotions = 0
        self._dropped = 0
        self.closed = False

    def push(self, message: InboxMessage, now_s: float) -> list[Outcome]:
        """Next message of the inbox."""
        match message:
            case SessionStarted():
                self._started = message
                return [events.session_started(message)]
            case ParticipantJoined():
                return [events.participant_joined(message)]
            case ParticipantLeft():
                return [events.participant_left(message)]
            case UtteranceStarted():
                return [events.utterance_started(message)]
            case UtteranceSettled():
                return self._outcomes(self._assembler.settle(message.utterance_id, now_s))
            case UtteranceDropped():
                self._dropped += 1
                return [events.utterance_dropped(message)]
            case UtteranceEnded():
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

    @property
    def idle(self) -> bool:
        """True when no utterance waits for an answer."""
        return self._assembler.idle

    def owes(self, utterance_id: str) -> bool:
        """Whether this utterance still waits for its final event."""
        return self._assembler.owes(utterance_id)

    def finish(
        self, pending: Pending, prediction: Prediction, latency_ms: Mapping[str, int] | None
    ) -> list[Event]:
        """The events of a pending utterance, once the model has answered.

        Its emotion, and with the final one what that makes of the participant's average.
        """
        seen = pending.window[-self._engine.window :]  # without the halo
        context = (len(seen), len({row.speaker for row in seen}))
        return self._told(pending.assembled, _Said(prediction, context, latency_ms))

    def confirm(self, confirmed: Confirmed) -> list[Event]:
        """As `finish`, once all outcomes before it are finished. Its latency is that of the answer."""
        return self._told(confirmed.assembled, self._said[confirmed.assembled.utterance.utterance_id])

    def _told(self, assembled: Assembled, said: _Said) -> list[Event]:
        utterance = assembled.utterance
        emotion = events.emotion(
            assembled, said.prediction, self._engine.info,
            session=self._started, context=said.context, latency_ms=said.latency_ms,
        )  # fmt: skip
        if not assembled.is_final:
            self._said[utterance.utterance_id] = said
            return [emotion]
        self._said.pop(utterance.utterance_id, None)
        average = self._averages.setdefault(utterance.participant_id, RunningEmotion())
        average.add(utterance.start_ms, utterance.end_ms, said.prediction.probabilities)
        return [emotion, events.participant_state(utterance, average, self._engine.info.labels)]

    def _outcomes(self, assembled: list[Assembled]) -> list[Outcome]:
        out: list[Outcome] = []
        for one in assembled:
            out += self._outcome(one)
        if self._closing is not None and self._assembler.idle and not self.closed:
            self.closed = True
            totals = {"started": self._closing.started, "emotions": self._emotions, "dropped": self._dropped}
            out.append(
                events.session_closed(self._session_id, self._closing.at_ms, self._closing.reason, totals)
            )
        return out

    def _outcome(self, assembled: Assembled) -> list[Outcome]:
        utterance = assembled.utterance
        usable = [m for m in present(assembled.answers) if m in self._engine.modalities]
        if usable and assembled.confirms:
            self._emotions += assembled.is_final
            return [Confirmed(assembled)]
        vectors: dict[str, Vector] = {m: self._input(m, assembled) for m in usable}
        window = self._window.put(
            utterance.utterance_id, utterance.participant_id, vectors, assembled.revision
        )
        if usable:
            self._emotions += assembled.is_final
            return [Pending(assembled, window)]
        if not assembled.is_final:
            return []  # something may still come; an emotion from nothing would be an invention
        self._dropped += 1
        dropped = UtteranceDropped(
            utterance.session_id, utterance.participant_id, utterance.utterance_id, "no_modality"
        )
        return [events.utterance_dropped(dropped)]

    def _input(self, modality: Modality, assembled: Assembled) -> Vector:
        """What the model takes: the features, and their distance from the person's running mean if asked."""
        features, utterance = assembled.answers[modality], assembled.utterance
        assert isinstance(features, Features)
        everybody = self._engine.everybody.get(modality)
        if everybody is None:
            return features.vector
        person = (utterance.participant_id, modality)
        usual = self._usual.setdefault(person, RunningMean(everybody))
        return usual.beside(utterance.utterance_id, features.vector)
