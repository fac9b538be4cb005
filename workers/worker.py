"""The one loop that runs an extractor: read jobs, answer each of them, publish, then acknowledge.

It knows streams and deadlines, not what a feature is. Its promise: every job that concerns its extractor
gets one answer, Features or FeaturesMissing, whatever happens to the job, to the model or to Redis. Answers
are written at least once; (session, utterance, attempt, modality) is an answer's identity, so a repeat is
harmless. Extractors know nothing of attempts: the loop copies a job's into its answer.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial

from realtime.errors import WireError
from realtime.messages import (
    SAMPLE_RATE_HZ,
    Answer,
    FeaturesMissing,
    Job,
    Message,
    Modality,
    Pcm,
    Segment,
    Transcript,
)
from realtime.redis_outbox import Writer
from realtime.redis_reader import Delivery, GroupReader
from realtime.wall_clock import NowMs, local_ms
from workers.extractor import Extractor

log = logging.getLogger(__name__)

IDLE_BLOCK_MS = 250  # longest wait of a read, and so the slowest answer to `stop`


@dataclass(frozen=True, slots=True)
class WorkerConfig:
    """How much is taken at once and how long is waited."""

    batch: int = 8  # jobs of one model call
    wait_ms: int = 10  # how long the first job of a batch waits for company
    max_deliveries: int = 3  # attempts before a job goes to the dead letters
    renew_s: float = 10.0  # work longer than this renews its claim; must stay below claim_idle_s
    drain_s: float = 10.0  # after `stop`, time to finish the batch in hand


async def run_worker(
    extractor: Extractor,
    reader: GroupReader,
    writer: Writer,
    config: WorkerConfig,
    stop: asyncio.Event,
    ready: Callable[[], None] = lambda: None,
    now_ms: NowMs = local_ms,
) -> None:
    """Load, warm up, call `ready`, then work until `stop` is set and the batch in hand is done.

    The reader is told which media to fetch once the extractor is loaded and knows. What is not done
    `drain_s` after `stop` stays pending and is claimed by another worker. Raises ModelUnavailable.
    """
    executor = ThreadPoolExecutor(1, thread_name_prefix=f"{extractor.modality}-model")
    try:
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(executor, extractor.load)
        await loop.run_in_executor(executor, extractor.warm_up)
        reader.pcm, reader.pictures = extractor.needs_pcm, extractor.needs_pictures
        worker = _Worker(extractor, reader, writer, config, executor, now_ms)
        log.info("worker %s: ready", extractor.modality)
        ready()
        async with asyncio.TaskGroup() as tasks:
            work = tasks.create_task(worker.run(stop), name=f"worker-{extractor.modality}")
            tasks.create_task(_limit(work, stop, config.drain_s), name=f"drain-{extractor.modality}")
        log.info("worker %s: stopped", extractor.modality)
    finally:
        executor.shutdown(wait=False, cancel_futures=True)  # a model call cannot be interrupted


async def _limit(work: asyncio.Task[None], stop: asyncio.Event, drain_s: float) -> None:
    """Cancel `work` when it outlives `stop` by `drain_s`."""
    await stop.wait()
    done, _ = await asyncio.wait({work}, timeout=drain_s)
    if not done:
        log.warning("%s: not done %s s after the stop, its jobs stay pending", work.get_name(), drain_s)
        work.cancel()


@dataclass(slots=True)
class _Batch:
    """Where the deliveries of one batch have got to."""

    deliveries: list[Delivery]
    live: list[tuple[Delivery, Job]] = field(default_factory=list)  # for the extractor
    answers: list[Answer] = field(default_factory=list)
    dead: list[tuple[Delivery, str]] = field(default_factory=list)  # with the reason

    def answer(self, results: Sequence[Answer | None]) -> None:
        """Take what the extractor said; None is nothing to say."""
        self.answers += [result for result in results if result is not None]


class _Worker:
    def __init__(
        self,
        extractor: Extractor,
        reader: GroupReader,
        writer: Writer,
        config: WorkerConfig,
        executor: ThreadPoolExecutor,
        now_ms: NowMs,
    ) -> None:
        self._extractor = extractor
        self._modality = extractor.modality
        self._reader = reader
        self._writer = writer
        self._config = config
        self._executor = executor
        self._now_ms = now_ms

    async def run(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            batch = await self._gather()
            if batch:
                await self._work(batch)

    async def _gather(self) -> list[Delivery]:
        """A batch: as many jobs as there are up to `batch`, the first waiting at most `wait_ms`."""
        batch = await self._reader.read(self._config.batch, IDLE_BLOCK_MS)
        end_s = time.monotonic() + self._config.wait_ms / 1000
        # A job that comes again runs alone: see realtime.redis_reader.
        while batch and batch[-1].times_delivered == 1 and len(batch) < self._config.batch:
            left_ms = int((end_s - time.monotonic()) * 1000)
            if left_ms <= 0:
                break
            batch += await self._reader.read(self._config.batch - len(batch), left_ms)
        return batch

    async def _work(self, deliveries: list[Delivery]) -> None:
        """Answer every delivery of a batch, publish, then acknowledge."""
        batch = _Batch(deliveries)
        for delivery in deliveries:
            await self._sort(delivery, batch)
        together = [(d, job) for d, job in batch.live if d.times_delivered == 1]
        alone = [(d, job) for d, job in batch.live if d.times_delivered > 1]
        results = await self._try([job for _, job in together], batch) if together else []
        if results is None:
            alone = together + alone
        else:
            batch.answer(results)
        for delivery, job in alone:
            await self._alone(delivery, job, batch)
        await self._writer.write(batch.answers)
        for delivery, reason in batch.dead:
            await self._reader.dead_letter(delivery, reason)
        buried = {id(delivery) for delivery, _ in batch.dead}
        await self._reader.ack([d for d in deliveries if id(d) not in buried])

    async def _sort(self, delivery: Delivery, batch: _Batch) -> None:
        """Put a delivery where it belongs: answered without work, dead, alive, or not our business."""
        message = delivery.message
        if isinstance(message, WireError):
            batch.dead.append((delivery, str(message)))
        elif not isinstance(message, Segment | Transcript):
            batch.dead.append((delivery, "not a job"))
        elif not concerns(self._modality, message):
            pass
        elif 0 < message.deadline_unix_ms < self._now_ms():
            batch.answer([self._missing(message, "deadline")])
        elif delivery.times_delivered > self._config.max_deliveries:
            batch.answer([self._missing(message, "failed")])
            batch.dead.append((delivery, "its workers died"))
        elif delivery.media_expired and needs_media(self._modality, message):
            batch.answer([self._missing(message, "media_expired")])
        elif isinstance(message, Transcript) and message.text is None and self._extractor.needs_pcm:
            await self._attach_speech(delivery, message, batch)
        else:
            batch.live.append((delivery, message))

    async def _attach_speech(self, delivery: Delivery, transcript: Transcript, batch: _Batch) -> None:
        """No words were given after all: the job becomes recognition of the utterance's speech."""
        try:
            ids = transcript.session_id, transcript.utterance_id, transcript.attempt
            pcm = await self._reader.fetch_pcm(*ids)
        except WireError as error:
            batch.answer([self._missing(transcript, "failed")])
            batch.dead.append((delivery, str(error)))
            return
        if pcm is None:
            batch.answer([self._missing(transcript, "media_expired")])
        else:
            batch.live.append((delivery, speech_of(transcript, pcm)))

    async def _alone(self, delivery: Delivery, job: Job, batch: _Batch) -> None:
        """Answer one job by itself, with as many attempts as it has left."""
        for _ in range(delivery.times_delivered, self._config.max_deliveries + 1):
            results = await self._try([job], batch)
            if results is not None:
                batch.answer(results)
                return
        batch.answer([self._missing(job, "failed")])
        batch.dead.append((delivery, f"the {self._modality} extractor failed on it"))

    async def _try(self, jobs: Sequence[Job], batch: _Batch) -> list[Answer | None] | None:
        """Run the extractor in its thread, renewing the claim on the batch meanwhile; None when it failed."""
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(self._executor, partial(self._extractor.extract, jobs))
        while not (await asyncio.wait({future}, timeout=self._config.renew_s))[0]:
            await self._reader.renew(batch.deliveries)
        try:
            answers = future.result()
        except Exception as error:  # whatever an encoder library throws is a fault of this job
            # The type only: a message of a library may quote what a person said.
            log.warning("worker %s: %s on %s jobs", self._modality, type(error).__name__, len(jobs))
            return None
        if len(answers) != len(jobs):
            raise RuntimeError(f"{self._modality} extractor: {len(answers)} answers to {len(jobs)} jobs")
        return [
            None if answer is None else replace(answer, attempt=job.attempt)
            for job, answer in zip(jobs, answers, strict=True)
        ]

    def _missing(self, job: Job, reason: str) -> FeaturesMissing:
        ids = job.session_id, job.utterance_id
        return FeaturesMissing(*ids, self._modality, reason, 0, attempt=job.attempt)


def concerns(modality: Modality, job: Message) -> bool:
    """Whether an extractor of this modality owes the job an answer.

    Words that are still to come are nothing yet for the text; words alone are nothing for the others.
    """
    if isinstance(job, Transcript):
        return modality == "text"
    return isinstance(job, Segment) and not (modality == "text" and job.captions_pending)


def needs_media(modality: Modality, job: Job) -> bool:
    """Whether the job cannot be done without its blobs: given words are embedded without the speech, and
    nothing is read from the voice or the face of who may be read by words alone."""
    if modality == "text":
        return job.text is None
    return not (isinstance(job, Segment) and job.text_only)


def speech_of(transcript: Transcript, pcm: Pcm) -> Segment:
    """A Transcript without words, as the recognition job that it has become."""
    return Segment(
        session_id=transcript.session_id,
        participant_id=transcript.participant_id,
        utterance_id=transcript.utterance_id,
        start_ms=0,
        end_ms=len(pcm) * 1000 // SAMPLE_RATE_HZ,
        pcm_start_ms=0,
        pcm=pcm,
        pictures=(),
        visual_reason="no_frames",
        text=None,
        language=transcript.language,
        captions_pending=False,
        deadline_unix_ms=transcript.deadline_unix_ms,
        attempt=transcript.attempt,
    )
