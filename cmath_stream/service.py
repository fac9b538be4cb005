"""The live fusion: inbox in, public events out. The async shell around `SessionFusion` and `Engine`.

Every entry is acknowledged only after what it led to is published; event ids are deterministic, so an entry
that comes twice changes nothing. A session belongs to whoever has the lease of its shard; the next owner goes
on from the traces that the last one left in Redis.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from cmath_stream import events, traces
from cmath_stream.assembler import Assembled, AssemblerConfig
from cmath_stream.engine import Engine
from cmath_stream.fusion import Confirmed, Outcome, Pending, SessionFusion
from cmath_stream.programs import ProgramName
from cmath_stream.runtimes import Call
from cmath_stream.traces import Trace
from realtime import telemetry
from realtime.errors import WireError
from realtime.messages import (
    Features,
    FeaturesMissing,
    InboxMessage,
    Segment,
    SegmentWithdrawn,
    SessionClosed,
    Transcript,
    UtteranceEnded,
    UtteranceSettled,
)
from realtime.redis_events import EventLog, Fenced
from realtime.redis_lease import ShardLeases
from realtime.redis_reader import Delivery, GroupReader
from realtime.wall_clock import NowMs, local_ms

log = logging.getLogger(__name__)

_READ_AT_ONCE = 256
_BLOCK_MS = 100  # upper bound of the wait for new entries: deadlines are looked at this often
_SILENT_S = 3600.0  # a session of which nothing is heard for so long has lost its ingest
_LOOK_S = 1.0  # how often it is asked whether sessions have their ingest
_ORPHANED_S = 2.5  # silence of an ingest, after its time is over, that means its death
_DRAIN_S = 10.0  # after SIGTERM, for utterances whose features are still on the way


@dataclass(slots=True)
class _Session:
    fusion: SessionFusion
    shard: int
    fence: int
    held: list[tuple[str, Delivery]] = field(default_factory=list)  # (utterance id, entry) not done yet
    attempts: dict[str, int] = field(default_factory=dict)  # utterance id → whose media go at its end
    seen_s: float = 0.0  # monotonic
    was_held: bool = False  # an ingest has told that it holds it
    unheld_s: float | None = None  # monotonic, since when none does


class FusionService:
    """Runs the engine for every session of the inbox until told to stop."""

    def __init__(
        self,
        engine: Engine,
        config: AssemblerConfig,
        reader: GroupReader,
        events: EventLog,
        leases: ShardLeases,
        now_ms: NowMs = local_ms,
    ) -> None:
        """`reader`: of the inbox, without shards and under a name that all owners share."""
        self._engine = engine
        self._config = config
        self._reader = reader
        self._events = events
        self._leases = leases
        self._now_ms = now_ms
        self._owned: dict[int, int] = {}  # shard → fencing number under which it is read and written
        self._model_thread = ThreadPoolExecutor(1, thread_name_prefix="cmath")
        self._sessions: dict[str, _Session] = {}
        self._closed: deque[str] = deque(maxlen=1024)  # sessions that ended lately
        self._refused: set[str] = set()
        self._next_look_s = 0.0  # monotonic

    async def warm_up(self) -> None:
        """Run the model through its true path."""
        await asyncio.get_running_loop().run_in_executor(self._model_thread, self._engine.warm_up)
        info = self._engine.info
        device = self._engine.device.type
        telemetry.ENGINE_INFO.info({"engine": info.engine, "precision": info.precision, "device": device})

    async def use(self, calls: Mapping[ProgramName, Call], runtime: str) -> None:
        """Run compiled programs from now on; a call under way is finished first."""
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._model_thread, self._engine.use, calls, runtime)
        await self.warm_up()

    @property
    def sessions(self) -> int:
        """Sessions held now."""
        return len(self._sessions)

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop`, then finish what is owed, within 10 s."""
        drain_until_s: float | None = None
        while True:
            await self._leases.keep()
            self._own(self._leases.held)
            deliveries = await self._reader.read(_READ_AT_ONCE, _BLOCK_MS)
            try:
                await self._round(deliveries)
            except Fenced:
                log.warning("fusion: another process has taken over; what was under way here is void")
                self._leases.drop()
                self._own({})
                continue
            if stop.is_set():
                drain_until_s = drain_until_s or time.monotonic() + _DRAIN_S
                idle = not deliveries and all(session.fusion.idle for session in self._sessions.values())
                if idle or time.monotonic() > drain_until_s:
                    break
        await self._leases.close()
        self._model_thread.shutdown()

    def _own(self, held: dict[int, int]) -> None:
        """Read what is held, and let go of the sessions of what is not, or not under the same number."""
        if held == self._owned:
            return
        kept = {shard for shard, fence in held.items() if self._owned.get(shard) == fence}
        for session_id, session in list(self._sessions.items()):
            if session.shard not in kept:
                del self._sessions[session_id]
        log.info("fusion: owner of shards %s", sorted(held) or "none")
        self._reader.assign(kept)  # one that was lost in between is begun anew
        self._reader.assign(sorted(held))
        self._owned = held

    async def _round(self, deliveries: list[Delivery]) -> None:
        now_s = time.monotonic()
        outcomes: list[tuple[_Session, Outcome]] = []
        settled: list[Delivery] = []
        for delivery in deliveries:
            message = delivery.message
            if isinstance(message, (WireError, Segment, Transcript, SegmentWithdrawn)):
                reason = str(message) if isinstance(message, WireError) else "a job, not a notice"
                await self._reader.dead_letter(delivery, reason)
                continue
            if isinstance(message, Features):
                message = self._fitting(message)
            session = await self._session(message, now_s)
            if session is None:
                settled.append(delivery)  # it came after the end: nothing is owed any more
                continue
            outcomes += [(session, outcome) for outcome in session.fusion.push(message, now_s)]
            if isinstance(message, SessionClosed):
                session.held.append(("", delivery))
            elif isinstance(message, (UtteranceEnded, UtteranceSettled, Features, FeaturesMissing)):
                session.held.append((message.utterance_id, delivery))
                if isinstance(message, UtteranceEnded):
                    await self._attempt(session, message)
            else:
                settled.append(delivery)
        outcomes += await self._orphans(now_s)
        for session in self._sessions.values():
            outcomes += [(session, outcome) for outcome in session.fusion.expire(now_s)]
        await self._publish(outcomes)
        for session_id, session in list(self._sessions.items()):
            closed = session.fusion.closed
            owed = []
            for uid, entry in session.held:
                if not closed and (not uid or session.fusion.owes(uid)):
                    owed.append((uid, entry))
                else:
                    settled.append(entry)
            session.held = owed
            if closed:
                await self._events.close(session_id)
                self._closed.append(session_id)
            if closed or (not session.held and now_s - session.seen_s > _SILENT_S):
                del self._sessions[session_id]
        if settled:
            await self._reader.ack(settled)

    async def _orphans(self, now_s: float) -> list[tuple[_Session, Outcome]]:
        """Now and then: the ends of sessions whose ingest has died."""
        if now_s < self._next_look_s:
            return []
        self._next_look_s = now_s + _LOOK_S
        running = [(sid, each) for sid, each in self._sessions.items() if not each.fusion.is_closing]
        out: list[tuple[_Session, Outcome]] = []
        held = await self._events.held([sid for sid, _ in running])
        for (session_id, session), is_held in zip(running, held, strict=True):
            session.was_held |= is_held
            if is_held or not session.was_held:
                session.unheld_s = None
            elif session.unheld_s is None:
                session.unheld_s = now_s
            elif now_s - max(session.unheld_s, session.seen_s) >= _ORPHANED_S:
                log.warning("session %s: its ingest is gone", session_id[:8])
                out += [(session, outcome) for outcome in session.fusion.lose(now_s)]
        return out

    async def _session(self, message: InboxMessage, now_s: float) -> _Session | None:
        """The session of a message, taken over from whoever had it; None when it is closed. Raises Fenced."""
        session_id = message.session_id
        session = self._sessions.get(session_id)
        if session is None:
            if session_id in self._closed:
                return None
            shard = self._reader.shard_of(session_id)
            fence = self._owned[shard]
            left = await self._events.claim(session_id, fence)
            if left is None:
                self._closed.append(session_id)
                return None
            fusion = SessionFusion(session_id, self._config, self._engine)
            fusion.restore(_whole(session_id, left))
            session = self._sessions[session_id] = _Session(fusion, shard, fence)
        session.seen_s = now_s
        return session

    def _fitting(self, features: Features) -> Features | FeaturesMissing:
        """Features of another extractor than the model was trained on are refused, by name, once a log."""
        problem = self._engine.refuses(features)
        if problem is None:
            return features
        if problem not in self._refused:
            self._refused.add(problem)
            log.error("features refused: %s", problem)
        return FeaturesMissing(
            features.session_id, features.utterance_id, features.modality, "extractor_mismatch",
            features.took_ms, features.text, features.language, features.attempt,
        )  # fmt: skip

    async def _publish(self, outcomes: list[tuple[_Session, Outcome]]) -> None:
        """Run the model once for all that need it, then publish everything in order. Raises Fenced."""
        windows = [outcome.window for _, outcome in outcomes if isinstance(outcome, Pending)]
        fuse_s = 0.0
        if windows:
            began_s = time.monotonic()
            loop = asyncio.get_running_loop()
            predictions = iter(await loop.run_in_executor(self._model_thread, self._engine.step, windows))
            fuse_s = time.monotonic() - began_s
            telemetry.BATCH_SIZE.labels(stage="fuse").observe(len(windows))
            telemetry.STAGE_SECONDS.labels(stage="fuse").observe(fuse_s)
        for session, outcome in outcomes:
            prediction, latency_ms = None, None
            if isinstance(outcome, Pending):
                prediction, latency_ms = (
                    next(predictions),
                    _latency_ms(outcome.assembled, fuse_s, self._now_ms()),
                )
            if isinstance(outcome, Pending | Confirmed):
                _measure(outcome.assembled, latency_ms)
            told = session.fusion.tell(outcome, prediction, latency_ms)
            if told:
                left = [traces.encode(trace) for trace in session.fusion.take_traces()]
                await self._events.remember(told[0]["session_id"], session.fence, left)
            for event in told:
                await self._tell(session, event)

    async def _tell(self, session: _Session, event: events.Event) -> None:
        session_id, is_end = event["session_id"], _is_end(event)
        unless = ""
        if event["type"] == "emotion.utterance" and not is_end:
            unless = events.end_id(session_id, event["utterance_id"])  # told before this came again
        fresh = await self._events.publish(
            session_id, event["event_id"], events.to_json(event), fence=session.fence, unless=unless
        )
        if is_end:
            if fresh is not None:
                telemetry.UTTERANCES_TOTAL.labels(outcome=event["type"].partition(".")[2]).inc()
            attempt = session.attempts.pop(event["utterance_id"], 0)
            await self._events.drop_media(session_id, event["utterance_id"], attempt)

    async def _attempt(self, session: _Session, utterance: UtteranceEnded) -> None:
        """Note which segment an utterance was announced with; an earlier one is needed no longer."""
        earlier = session.attempts.get(utterance.utterance_id, utterance.attempt)
        session.attempts[utterance.utterance_id] = utterance.attempt
        if earlier != utterance.attempt:
            await self._events.drop_media(utterance.session_id, utterance.utterance_id, earlier)


def _whole(session_id: str, left: Iterable[tuple[bytes, bytes]]) -> Iterator[Trace]:
    """The traces that can be read; a session goes on without the others."""
    for each in left:
        try:
            yield traces.decode(*each)
        except WireError as error:
            log.error("session %s: a part of its window is left out: %s", session_id[:8], error)


def _is_end(event: events.Event) -> bool:
    """Whether an utterance is done with this event."""
    return event["type"] == "utterance.dropped" or bool(event.get("is_final"))


def _latency_ms(assembled: Assembled, fuse_s: float, now_ms: int) -> dict[str, int] | None:
    """Where the time went since the end of speech; None where the wall-clock time is unknown."""
    utterance = assembled.utterance
    if not utterance.decided_unix_ms:
        return None
    spent: dict[str, int] = {modality: answer.took_ms for modality, answer in assembled.answers.items()}
    fuse_ms = round(fuse_s * 1000)
    total_ms = now_ms - utterance.decided_unix_ms + utterance.endpoint_ms
    queue_ms = max(0, total_ms - utterance.endpoint_ms - max(spent.values()) - fuse_ms)
    return {"endpoint": utterance.endpoint_ms, "queue": queue_ms, **spent, "fuse": fuse_ms, "total": total_ms}


def _measure(assembled: Assembled, latency_ms: dict[str, int] | None) -> None:
    if assembled.revision == 0 and latency_ms is not None:
        telemetry.UTTERANCE_TO_EMOTION_SECONDS.observe(latency_ms["total"] / 1000)
    if assembled.is_final:
        for modality, answer in assembled.answers.items():
            if isinstance(answer, FeaturesMissing):
                telemetry.MODALITY_MISSING_TOTAL.labels(modality=modality, reason=answer.reason).inc()
