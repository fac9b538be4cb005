"""Answers of three extractors → whole utterances, in conversation order. Sans-I/O, one per session.

An utterance leaves when every modality has answered, or provisionally at `deadline_s` without the ones
that are late; those get until `final_s` to make a revision, and are then missing for good. A slow utterance
holds the later ones of its session, never longer than its own deadline; final answers wait alike.

Extractors may work on an utterance before its end is decided. Their answers wait here for the announcement,
which names the attempt that holds; answers to any other attempt are void and never part of anything.

While its speaker may still go on, an utterance is answered provisionally however complete it is. If it is
taken up again it is announced anew, and answered anew in its old place; once it is settled the last answer is
confirmed.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import takewhile

from realtime.messages import MODALITIES, Answer, Features, FeaturesMissing, Modality, UtteranceEnded

_KEPT = 256  # utterances remembered before their turn and after their end, bounded against strays
_STRAY_S = 60.0  # an answer whose utterance is not announced by then belongs to none


@dataclass(frozen=True, slots=True)
class AssemblerConfig:
    """How long an utterance waits for its extractors, seconds since its announcement."""

    modalities: tuple[Modality, ...] = MODALITIES  # the extractors that run
    deadline_s: float = 1.5
    final_s: float = 12.0  # longer than a job's deadline: a worker that comes back still answers

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
    confirms: bool = False  # nothing but `is_final` differs from the revision before


@dataclass(slots=True)
class _Early:
    """Answers to the latest attempt that was heard of."""

    since_s: float
    attempt: int
    answers: dict[Modality, Answer] = field(default_factory=dict)


@dataclass(slots=True)
class _Waiting:
    utterance: UtteranceEnded
    since_s: float  # last announced
    due_s: float  # not held longer for what is missing
    answers: dict[Modality, Answer] = field(default_factory=dict)
    revision: int = 0
    said: bool = False  # emitted, and no answer has come since


class Assembler:
    """Joins the features of one session's utterances."""

    def __init__(self, config: AssemblerConfig) -> None:
        self._config = config
        self._queue: deque[_Waiting] = deque()  # not yet answered at all, in conversation order
        self._provisional: dict[str, _Waiting] = {}  # answered once, still incomplete
        self._early: OrderedDict[str, _Early] = OrderedDict()  # answered before their turn
        self._resumed: dict[str, int] = {}  # first revision of those that another process had answered
        self._done: deque[str] = deque(maxlen=_KEPT)  # corrections that come after the end change nothing

    @property
    def idle(self) -> bool:
        """True when nothing is owed."""
        return not self._queue and not self._provisional

    def owes(self, utterance_id: str) -> bool:
        """Whether something known of this utterance has not yet led to its final answer."""
        return self._known(utterance_id) is not None or utterance_id in self._early

    def resume(self, utterance_id: str, revision: int) -> None:
        """Another process had answered this utterance; announced here, it begins with this revision."""
        self._resumed[utterance_id] = revision

    def announce(self, utterance: UtteranceEnded, now_s: float) -> list[Assembled]:
        """An utterance took its place, or keeps it and ended anew; new ones come in order of `index`."""
        uid = utterance.utterance_id
        early = self._early.pop(uid, None)
        valid = early is not None and early.attempt == utterance.attempt
        answers = early.answers if early and valid else {}
        due_s = now_s + self._config.deadline_s
        known = self._known(uid)
        if known is None:
            if uid not in self._done:
                revision = self._resumed.pop(uid, 0)
                self._queue.append(_Waiting(utterance, now_s, due_s, answers, revision))
            return self.expire(now_s)
        known.utterance, known.since_s, known.answers, known.said = utterance, now_s, answers, False
        if uid in self._provisional:  # in the queue it may not hold the others any longer than before
            known.due_s = due_s
        return self.expire(now_s)

    def settle(self, utterance_id: str, now_s: float) -> list[Assembled]:
        """Its speaker will not go on."""
        known = self._known(utterance_id)
        if known is not None:
            known.utterance = replace(known.utterance, may_resume=False)
        return self.expire(now_s)

    def settle_all(self, now_s: float) -> list[Assembled]:
        """Nobody will go on any more."""
        waiting = [*self._queue, *self._provisional.values()]
        return [out for each in waiting for out in self.settle(each.utterance.utterance_id, now_s)]

    def answer(self, answer: Answer, now_s: float) -> list[Assembled]:
        """An extractor spoke: before its utterance's turn, in time, or as a correction before the end."""
        known = self._known(answer.utterance_id)
        if known is None:
            if answer.utterance_id not in self._done:
                self._keep(answer, now_s)
        elif answer.attempt > known.utterance.attempt:
            self._keep(answer, now_s)  # of what it will be, if it is taken up again
        elif answer.attempt == known.utterance.attempt:
            known.answers[answer.modality], known.said = answer, False
        return self.expire(now_s)

    def expire(self, now_s: float) -> list[Assembled]:
        """What is complete or out of time, in order."""
        out: list[Assembled] = []
        for late in list(self._provisional.values()):
            changed = not late.said and bool(late.answers) and self._ready(late, now_s)
            if changed or self._final(late, now_s):
                late.revision += 1
                out.append(self._emit(late, now_s))
        while self._queue and self._ready(self._queue[0], now_s):
            head = self._queue.popleft()
            self._provisional[head.utterance.utterance_id] = head
            out.append(self._emit(head, now_s))
        while self._early and now_s - next(iter(self._early.values())).since_s >= _STRAY_S:
            self._early.popitem(last=False)
        return out

    def _known(self, utterance_id: str) -> _Waiting | None:
        queued = (w for w in self._queue if w.utterance.utterance_id == utterance_id)
        return self._provisional.get(utterance_id) or next(queued, None)

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

    def _ready(self, waiting: _Waiting, now_s: float) -> bool:
        return self._complete(waiting) or now_s >= waiting.due_s

    def _final(self, waiting: _Waiting, now_s: float) -> bool:
        out_of_time = now_s - waiting.since_s >= self._config.final_s
        over = not waiting.utterance.may_resume and (self._complete(waiting) or out_of_time)
        earlier = takewhile(lambda other: other is not waiting, self._provisional.values())
        return over and all(now_s >= other.due_s for other in earlier)

    def _emit(self, waiting: _Waiting, now_s: float) -> Assembled:
        uid = waiting.utterance.utterance_id
        is_final = self._final(waiting, now_s)
        confirms = waiting.said and self._complete(waiting)
        waiting.said = True
        if is_final:
            del self._provisional[uid]
            self._done.append(uid)
        answers = {m: waiting.answers.get(m) or self._absent(waiting, m, is_final) for m in MODALITIES}
        return Assembled(waiting.utterance, answers, waiting.revision, is_final, confirms)

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
