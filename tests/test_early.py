"""Early start through a real Redis: ingest, workers and fusion, driven frame by frame, so that the moment
between the pause and the decision lasts as long as the test wants.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cmath_stream.assembler import AssemblerConfig
from cmath_stream.engine import Engine
from cmath_stream.events import Event
from cmath_stream.prediction import EngineConfig
from cmath_stream.service import FusionService
from realtime import telemetry, wire
from realtime.conversation import Conversation, ConversationConfig
from realtime.hearing import Hearing
from realtime.listener import Listener
from realtime.messages import (
    SAMPLE_RATE_HZ,
    Answer,
    AudioChunk,
    Caption,
    Features,
    FeaturesMissing,
    Job,
    Message,
    Modality,
)
from realtime.redis_bus import RedisConfig
from realtime.redis_cluster import Client
from realtime.redis_events import EventLog
from realtime.redis_lease import ShardLeases
from realtime.redis_outbox import Outbox, Writer
from realtime.redis_reader import GroupReader
from realtime.segmenter import HeardFrame, SegmenterConfig
from realtime.session import LiveSession, SessionConfig
from realtime.vad import VadModel
from realtime.wall_clock import local_ms
from tests.checkpoints import tiny
from tests.conftest import until
from workers.extractor import FeatureSpec
from workers.worker import WorkerConfig, run_worker

FRAME_S = 512 / SAMPLE_RATE_HZ
SEGMENTER = SegmenterConfig(threshold=0.5, release=0.35, stall_s=60.0)  # the wall clock decides nothing here
CONFIG = SessionConfig(ConversationConfig(SEGMENTER), early_start_s=0.2)


class Length:
    """An extractor whose features say how much sound there was, so that void ones would be seen."""

    needs_pictures = False

    def __init__(self, modality: Modality, spec: FeatureSpec) -> None:
        self.modality = modality
        self.needs_pcm = modality == "audio"
        self.spec = spec

    def load(self) -> None: ...

    def warm_up(self) -> None: ...

    def extract(self, jobs: Sequence[Job]) -> list[Answer | None]:
        return [self._answer(job) for job in jobs]

    def _answer(self, job: Job) -> Features:
        seconds = len(getattr(job, "pcm", ())) / SAMPLE_RATE_HZ
        vector = np.full(self.spec.dim, seconds, np.float32)
        ids = job.session_id, job.utterance_id
        return Features(*ids, self.modality, self.spec.id, vector, 1.0, 1, job.text, job.language)


class Line:
    """One participant's session, two workers and the fusion."""

    def __init__(self, client: Client, session: LiveSession, outbox: Outbox) -> None:
        self.client = client
        self.config = RedisConfig(shards=1)
        self.session = session
        self.outbox = outbox
        self.sid = session.id
        self.at_s = 0.0

    def hear(self, seconds: float, *, speech: bool) -> None:
        """So much more of the call."""
        for _ in range(round(seconds / FRAME_S)):
            pcm = np.full(512, 0.1 if speech else 0.0, np.float32)
            frame = HeardFrame(AudioChunk(pcm, self.at_s), 0.95 if speech else 0.02)
            self.session.heard("anna", [frame])
            self.at_s += FRAME_S

    async def inbox(self, *kinds: type[Any]) -> list[Message]:
        """What the fusion has been told."""
        entries: Any = await self.client.xrange(self.config.keys.inbox(0))
        messages = [wire.decode(fields) for _, fields in entries]
        return [message for message in messages if isinstance(message, kinds)]

    async def answered(self, count: int) -> None:
        """Until the workers have answered so often."""

        async def enough() -> bool:
            return len(await self.inbox(Features, FeaturesMissing)) >= count

        await until(enough)

    async def events(self, kind: str) -> list[Event]:
        told = await EventLog(self.client, self.config).read(self.sid, "0", 0, 1000)
        return [event for _, event in told if event["type"] == kind]

    async def emotions(self, count: int) -> list[Event]:
        """All of them, once there are so many."""

        async def enough() -> bool:
            return len(await self.events("emotion.utterance")) >= count

        await until(enough)
        return await self.events("emotion.utterance")

    async def over(self) -> list[Event]:
        """All emotions once nothing is pending any more: the speaker says nothing for so long."""
        self.hear(0.6, speech=False)

        async def done() -> bool:
            groups: Any = await self.client.xinfo_groups(self.config.keys.inbox(0))
            settled = all(group["pending"] == group["lag"] == 0 for group in groups)
            return settled and any(event["is_final"] for event in await self.events("emotion.utterance"))

        await until(done)
        return await self.events("emotion.utterance")

    async def blobs(self) -> list[str]:
        return [key.decode() async for key in self.client.scan_iter(match="emo:blob:*")]


@asynccontextmanager
async def line_of(client: Client, folder: Path) -> AsyncIterator[Line]:
    """Everything at work; stopped in order at the end."""
    config = RedisConfig(shards=1)
    engine = Engine(tiny(folder), EngineConfig())
    log = EventLog(client, config)
    outbox = Outbox(client, config)
    stop = asyncio.Event()
    fusion = FusionService(
        engine,
        AssemblerConfig(("text", "audio"), deadline_s=30.0, final_s=60.0),
        GroupReader(client, config, "inbox", "fuse", "owner", shards=()),
        log,
        ShardLeases(client, config, "one"),
    )
    carrier = asyncio.create_task(outbox.run(), name="outbox")
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as tasks:
        hearing = Hearing(VadModel())
        stack.push_async_callback(hearing.close)
        tasks.create_task(fusion.run(stop), name="fusion")
        specs: dict[Modality, FeatureSpec] = {
            "text": FeatureSpec("words", "1", 6),
            "audio": FeatureSpec("voice", "1", 5),
        }
        for modality, spec in specs.items():
            reader = GroupReader(client, config, "segments", modality, "one")
            work = run_worker(
                Length(modality, spec), reader, Writer(client, config), WorkerConfig(wait_ms=0), stop
            )
            tasks.create_task(work, name=f"worker {modality}")
        talk = Conversation(secrets.token_hex(16), CONFIG.conversation, local_ms(), CONFIG.early_start_s)
        session = LiveSession("r", None, CONFIG, talk, outbox.put, lambda room: None, lambda: True)
        listener = Listener(SEGMENTER.stall_s)
        session.join("anna", hearing, listener, audio=True, video=False, captions=True)
        try:
            yield Line(client, session, outbox)
        finally:
            await session.close("over")
            await outbox.flush()
            carrier.cancel()
            stop.set()


@pytest.fixture
async def line(redis_client: Client, tmp_path: Path) -> AsyncIterator[Line]:
    async with line_of(redis_client, tmp_path) as line:
        yield line


def started() -> float:
    return float(telemetry.EARLY_STARTED_TOTAL._value.get())


def discarded() -> float:
    return float(telemetry.EARLY_DISCARDED_TOTAL.labels(reason="resumed")._value.get())


async def test_the_answers_are_there_before_the_end_is_decided(line: Line) -> None:
    started_before, discarded_before = started(), discarded()
    line.hear(0.5, speech=False)
    line.hear(1.0, speech=True)
    line.session.captioned("anna", Caption(0.5, 1.5, "hello", "en"))
    line.hear(0.25, speech=False)
    await line.answered(2)
    assert await line.events("utterance.ended") == await line.events("emotion.utterance") == []
    assert len(await line.blobs()) == 1

    line.hear(0.2, speech=False)
    (event,) = await line.emotions(1)
    assert not event["is_final"] and event["revision"] == 0 and event["text"] == "hello"
    assert event["latency_ms"]["endpoint"] == pytest.approx(320, abs=33)
    assert await line.client.xlen(line.config.keys.segments(0)) == 1  # the decision sent nothing again
    assert len(await line.inbox(Features, FeaturesMissing)) == 2
    _, last = await line.over()
    assert last["is_final"] and last["revision"] == 1
    assert (last["emotions"], last["latency_ms"]) == (event["emotions"], event["latency_ms"])
    await until(lambda: _none(line))
    assert (started() - started_before, discarded() - discarded_before) == (1, 0)


async def test_a_speaker_who_goes_on_gets_one_event_of_all_that_was_said(line: Line) -> None:
    started_before, discarded_before = started(), discarded()
    line.hear(0.5, speech=False)
    line.hear(1.0, speech=True)
    line.session.captioned("anna", Caption(0.5, 1.5, "hello", "en"))
    line.hear(0.25, speech=False)
    await line.answered(2)
    line.hear(1.0, speech=True)
    await line.outbox.flush()
    assert await line.blobs() == []  # the media of void work go at once
    assert discarded() - discarded_before == 1

    line.session.captioned("anna", Caption(1.8, 2.8, "there", "en"))
    line.hear(0.25, speech=False)
    await line.answered(4)
    line.hear(0.2, speech=False)
    event, last = await line.over()
    assert [event["revision"], last["revision"]] == [0, 1] and last["is_final"]
    assert event["text"] == last["text"] == "hello there"
    assert event["end_ms"] - event["start_ms"] == pytest.approx(2250 + 300, abs=70)
    heard = [a for a in await line.inbox(Features) if isinstance(a, Features) and a.modality == "audio"]
    assert [a.attempt for a in heard] == [0, 1] and heard[1].vector[0] > heard[0].vector[0] + 1.0
    assert len(await line.events("utterance.started")) == len(await line.events("utterance.ended")) == 1
    await until(lambda: _none(line))
    assert (started() - started_before, discarded() - discarded_before) == (2, 1)


async def test_a_speaker_who_goes_on_after_the_decision_gets_a_revision(line: Line) -> None:
    line.hear(0.5, speech=False)
    line.hear(1.0, speech=True)
    line.session.captioned("anna", Caption(0.5, 1.5, "hello", "en"))
    line.hear(0.45, speech=False)
    (first,) = await line.emotions(1)
    line.hear(1.0, speech=True)
    line.session.captioned("anna", Caption(2.0, 3.0, "there", "en"))
    line.hear(0.45, speech=False)
    await line.emotions(2)
    _, second, last = await line.over()
    assert [e["is_final"] for e in (first, second, last)] == [False, False, True]
    assert [e["text"] for e in (first, second, last)] == ["hello", "hello there", "hello there"]
    assert first["start_ms"] == last["start_ms"] and last["end_ms"] - first["end_ms"] > 1400
    assert len(await line.events("utterance.started")) == 1
    assert [e["end_ms"] for e in await line.events("utterance.ended")] == [first["end_ms"], last["end_ms"]]
    await until(lambda: _none(line))  # the media of both ends


async def _none(line: Line) -> bool:
    return await line.blobs() == []
