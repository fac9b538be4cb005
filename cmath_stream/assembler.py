"""Answers of three extractors → whole utterances, in conversation order. Sans-I/O, one per session.

An utterance leaves when every modality has answered, or provisionally at `deadline_s` without the ones
that are late; those get until `final_s` to make a revision, and are then missing for good. A slow utterance
holds the later ones of its session, never longer than its own deadline.

Extractors may work on an utterance before its end is decided. Their answers wait here for the announcement,
which names the attempt that holds; answers to any other attempt are void and never part of anything.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from realtime.messages import MODALITIES, Answer, Features, FeaturesMissing, Modality, UtteranceEnded

_KEPT = 256  # utterances remembered before their turn and after their end, bounded against strays
_STRAY_S = 60.0  # an answer whose utterance is not announced by then belongs to none


@dataclass(frozen=True, slots=True)
class AssemblerConfig:
    """How long an utterance waits for its extractors, seconds since its announcement."""

    modalities: tuple[Modality, ...] = MODALITIES  # the extractors that run
    deadline_s: float = 1.5
    final_s: float = 6.0

    def __post_init__(self) -> None:
        if not 0 < self.deadline_s <= self.final_s:
            raise ValueError("0 < deadline_s <= final_s must hold")
        if not set(self.modalities) <= set(MODALITIES):
            raise ValueError(f"modalities must be among {', '.join(MODALITIES)}")


@dataclass(frozen=True, slots=True)
class Assembled:
    """One revision of one utterance. `answers` has an entry for every modality."""

    utterance: UtteranceEnded
    answers: Mapping[Modality, Answer]
    revision: int
    is_final: bool


@dataclass(slots=True)
class _Early:
    """Answers to the latest attempt that was heard of."""

    since_s: float
    attempt: int
    answers: dict[Modality, Answer] = field(default_factory=dict)


@dataclass(slots=True)
class _Waiting:
    utterance: UtteranceEnded
    since_s: float
    answers: dict[Modality, Answer] = field(default_factory=dict)
    revision: int = 0


class Assembler:
    """Joins the features of one session's utterances."""

    def __init__(self, config: AssemblerConfig) -> None:
        self._config = config
        self._queue: deque[_Waiting] = deque()  # not yet answered at all, in conversation order
        self._provisional: dict[str, _Waiting] = {}  # answered once, still incomplete
        self._early: OrderedDict[str, _Early] = OrderedDict()  # answered before their turn
        self._done: deque[str] = deque(maxlen=_KEPT)  # corrections that come after the end change nothing

    @property
    def idle(self) -> bool:
        """True when nothing is owed."""
        return not self._queue and not self._provisional

    def owes(self, utterance_id: str) -> bool:
        """Whether something known of this utterance has not yet led to its final answer."""
        queued = any(w.utterance.utterance_id == utterance_id for w in self._queue)
        return queued or utterance_id in self._provisional or utterance_id in self._early

    def announce(self, utterance: UtteranceEnded, now_s: float) -> list[Assembled]:
        """An utterance took its place; utterances come in order of `index`."""
        early = self._early.pop(utterance.utterance_id, None)
        valid = early is not None and early.attempt == utterance.attempt
        self._queue.append(_Waiting(utterance, now_s, early.answers if early and valid else {}))
        return self.expire(now_s)

    def answer(self, answer: Answer, now_s: float) -> list[Assembled]:
        """An extractor spoke: before its utterance's turn, in time, or as a correction before the end."""
        uid = answer.utterance_id
        late = self._provisional.get(uid)
        waiting = late or next((w for w in self._queue if w.utterance.utterance_id == uid), None)
        if waiting is None:
            if uid not in self._done:
                self._keep(answer, now_s)
        elif answer.attempt == waiting.utterance.attempt:
            waiting.answers[answer.modality] = answer
            if late is not None:
                return self._revise(late, now_s)
        return self.expire(now_s)

    def expire(self, now_s: float) -> list[Assembled]:
        """What is complete or out of time, in order."""
        out: list[Assembled] = []
        while self._queue and (
            self._complete(self._queue[0]) or now_s - self._queue[0].since_s >= self._config.deadline_s
        ):
            head = self._queue.popleft()
            out += self._emit(head, now_s)
        while self._early and now_s - next(iter(self._early.values())).since_s >= _STRAY_S:
            self._early.popitem(last=False)
        for late in list(self._provisional.values()):
            if now_s - late.since_s >= self._config.final_s:
                out += self._revise(late, now_s)
        return out

    def deadline(self) -> float | None:
        """Next time at which `expire` has something to say."""
        times = [late.since_s + self._config.final_s for late in self._provisional.values()]
        if self._queue:
            times.append(self._queue[0].since_s + self._config.deadline_s)
        return min(times, default=None)

    def _keep(self, answer: Answer, now_s: float) -> None:
        """An answer that came before its utterance's turn."""
        uid = answer.utterance_id
        early = self._early.get(uid)
        if early is None or early.attempt < answer.attempt:
            self._early.pop(uid, None)  # so that they stay in order of time
            early = self._early[uid] = _Early(now_s, answer.attempt)
        if early.attempt == answer.attempt:
            early.answers[answer.modality] = answer
        while len(self._early) > _KEPT:
            self._early.popitem(last=False)

    def _complete(self, waiting: _Waiting) -> bool:
        return all(modality in waiting.answers for modality in self._config.modalities)

    def _revise(self, late: _Waiting, now_s: float) -> list[Assembled]:
        late.revision += 1
        return self._emit(late, now_s)

    def _emit(self, waiting: _Waiting, now_s: float) -> list[Assembled]:
        uid = waiting.utterance.utterance_id
        out_of_time = now_s - waiting.since_s >= self._config.final_s
        is_final = self._complete(waiting) or out_of_time
        if is_final:
            self._provisional.pop(uid, None)
            self._done.append(uid)
        else:
            self._provisional[uid] = waiting
        answers = {m: waiting.answers.get(m) or self._absent(waiting, m, is_final) for m in MODALITIES}
        return [Assembled(waiting.utterance, answers, waiting.revision, is_final)]

    def _absent(self, waiting: _Waiting, modality: Modality, is_final: bool) -> FeaturesMissing:
        if modality not in self._config.modalities:
            reason = "no_worker"
        else:
            reason = "deadline" if is_final else "pending"
        utterance = waiting.utterance
        return FeaturesMissing(utterance.session_id, utterance.utterance_id, modality, reason, took_ms=0)


def present(answers: Mapping[Modality, Answer]) -> tuple[Modality, ...]:
    """The modalities that have features."""
    return tuple(m for m in MODALITIES if isinstance(answers.get(m), Features))
