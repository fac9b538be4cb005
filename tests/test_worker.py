from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from realtime import wire
from realtime.errors import ModelUnavailable
from realtime.messages import (
    Answer,
    Features,
    FeaturesMissing,
    Job,
    Message,
    Modality,
    Segment,
    Transcript,
)
from realtime.redis_bus import RedisConfig, connect
from realtime.redis_cluster import Client
from realtime.redis_events import EventLog
from realtime.redis_outbox import Writer
from realtime.redis_reader import GroupReader
from realtime.redis_server import RedisServer
from tests.conftest import make_features, make_segment, make_started, make_transcript, until
from workers.extractor import FeatureSpec
from workers.worker import WorkerConfig, concerns, run_worker, speech_of

CONFIG = RedisConfig(shards=1, claim_idle_s=3600)
QUICK = WorkerConfig(batch=4, wait_ms=20)


class Stub:
    """An extractor that answers everything, and fails where it is told to."""

    modality: Modality
    needs_pictures = False

    def __init__(self, modality: Modality = "audio", *, needs_pcm: bool = False) -> None:
        self.modality = modality
        self.needs_pcm = needs_pcm
        self.calls: list[list[str]] = []  # utterance ids of each call
        self.jobs: list[Job] = []
        self.threads: set[str] = set()
        self.fault: Callable[[Job], bool] = lambda job: False
        self.gate = threading.Event()
        self.gate.set()
        self.steps: list[str] = []

    @property
    def spec(self) -> FeatureSpec | None:
        return FeatureSpec("stub", "1", 4)

    def load(self) -> None:
        self.steps.append("load")

    def warm_up(self) -> None:
        self.steps.append("warm_up")

    def extract(self, jobs: Sequence[Job]) -> list[Answer | None]:
        self.calls.append([job.utterance_id for job in jobs])
        self.threads.add(threading.current_thread().name)
        assert self.gate.wait(10)
        if any(self.fault(job) for job in jobs):
            raise RuntimeError("the words were secret")
        self.jobs += jobs
        return [self._features(job) for job in jobs]

    def _features(self, job: Job) -> Features | None:
        if isinstance(job, Transcript) and self.modality != "text":
            return None
        vector = make_features().vector
        return Features(job.session_id, job.utterance_id, self.modality, "stub/1", vector, 1.0, 1)


def audio_reader(client: Client, consumer: str = "w-1", config: RedisConfig = CONFIG) -> GroupReader:
    return GroupReader(client, config, "segments", "audio", consumer)


@asynccontextmanager
async def working(
    extractor: Stub,
    client: Client,
    *,
    reader: GroupReader | None = None,
    config: WorkerConfig = QUICK,
    redis_config: RedisConfig = CONFIG,
) -> AsyncIterator[asyncio.Event]:
    """A worker at work; it is stopped, in order, at the end."""
    stop = asyncio.Event()
    ready = asyncio.Event()
    reader = reader or audio_reader(client, config=redis_config)
    writer = Writer(client, redis_config)
    task = asyncio.create_task(run_worker(extractor, reader, writer, config, stop, ready.set), name="worker")
    try:
        await asyncio.wait_for(ready.wait(), 5)
        yield stop
    finally:
        stop.set()
        await asyncio.wait_for(task, 15)


async def send(client: Client, *messages: Message, config: RedisConfig = CONFIG) -> None:
    await Writer(client, config).write(messages)


async def answers(client: Client, count: int, config: RedisConfig = CONFIG) -> list[Message]:
    """What is in the inbox, once it holds `count` messages."""
    inbox = config.keys.inbox(0)

    async def full() -> bool:
        return await client.xlen(inbox) >= count

    await until(full, timeout_s=10)
    entries: Any = await client.xrange(inbox)
    return [wire.decode(fields) for _, fields in entries]


async def settled(client: Client, config: RedisConfig = CONFIG) -> bool:
    """Whether the group has read everything and nothing is pending."""
    (group,) = await _groups(client, config)
    return bool(group["pending"] == 0 and group["lag"] == 0)


async def _groups(client: Client, config: RedisConfig) -> list[Any]:
    found: Any = await client.xinfo_groups(config.keys.segments(0))
    return list(found)


def outcome(messages: Sequence[Message]) -> dict[str, str]:
    """Utterance → "features" or the reason why there are none; one answer each."""
    result: dict[str, str] = {}
    for message in messages:
        assert isinstance(message, Features | FeaturesMissing)
        assert message.utterance_id not in result
        result[message.utterance_id] = message.reason if isinstance(message, FeaturesMissing) else "features"
    return result


async def test_it_loads_warms_up_and_then_answers_every_job(redis_client: Client) -> None:
    stub = Stub()
    await send(redis_client, *(make_segment(f"u{i}", seconds=0.01) for i in range(10)))
    async with working(stub, redis_client):
        assert stub.steps == ["load", "warm_up"]
        found = outcome(await answers(redis_client, 10))
    assert found == {f"u{i}": "features" for i in range(10)}
    assert await settled(redis_client)
    assert max(map(len, stub.calls)) == 4  # as much as there was
    assert len(stub.threads) == 1
    assert next(iter(stub.threads)).startswith("audio-model")


async def test_a_job_alone_does_not_wait_for_a_batch(redis_client: Client) -> None:
    async with working(Stub(), redis_client, config=WorkerConfig(batch=64, wait_ms=20)):
        began_s = time.monotonic()
        await send(redis_client, make_segment("u0"))
        await answers(redis_client, 1)
        assert time.monotonic() - began_s < 2.0


async def test_the_reader_fetches_what_the_extractor_needs(redis_client: Client) -> None:
    stub = Stub(needs_pcm=True)
    before = make_segment("u0")
    await send(redis_client, before)
    async with working(stub, redis_client):
        await answers(redis_client, 1)
    (job,) = stub.jobs
    assert isinstance(job, Segment)
    assert len(job.pcm) == len(before.pcm)


async def test_stale_jobs_are_answered_without_work(redis_client: Client) -> None:
    stub = Stub()
    late = make_segment("late", deadline_unix_ms=1)
    fresh = make_segment("fresh", deadline_unix_ms=int(time.time() * 1000) + 60_000)
    await send(redis_client, late, fresh)
    async with working(stub, redis_client):
        assert outcome(await answers(redis_client, 2)) == {"late": "deadline", "fresh": "features"}
    assert stub.calls == [["fresh"]]


async def test_expired_media_are_answered_without_work(redis_client: Client) -> None:
    stub = Stub(needs_pcm=True)
    await send(redis_client, make_segment("u0"))
    await EventLog(redis_client, CONFIG).drop_media("s0", "u0", 0)
    async with working(stub, redis_client):
        assert outcome(await answers(redis_client, 1)) == {"u0": "media_expired"}
    assert stub.calls == []


async def test_a_poison_job_does_not_sink_its_neighbours(
    redis_client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    stub = Stub()
    stub.fault = lambda job: job.utterance_id == "poison"
    names = ["a", "poison", "b"]
    await send(redis_client, *(make_segment(name, seconds=0.01) for name in names))
    async with working(stub, redis_client):
        found = outcome(await answers(redis_client, 3))
    assert found == {"a": "features", "poison": "failed", "b": "features"}
    assert stub.calls == [names, ["a"], ["poison"], ["poison"], ["poison"], ["b"]]
    entries: Any = await redis_client.xrange(CONFIG.keys.dead(CONFIG.keys.segments(0)))
    ((_, fields),) = entries
    assert fields[b"type"] == b"segment"
    assert b"failed" in fields[b"error"]
    assert await settled(redis_client)
    assert "secret" not in caplog.text + str(fields[b"error"])


async def test_a_passing_fault_costs_nothing(redis_client: Client) -> None:
    stub = Stub()
    faults = iter([True, True, False])
    stub.fault = lambda job: next(faults)
    await send(redis_client, make_segment("u0"))
    async with working(stub, redis_client):
        assert outcome(await answers(redis_client, 1)) == {"u0": "features"}
    assert await redis_client.exists(CONFIG.keys.dead(CONFIG.keys.segments(0))) == 0


async def test_a_job_that_kills_workers_ends_in_the_dead_letters_alone(
    redis_client: Client,
) -> None:
    await send(redis_client, *(make_segment(name, seconds=0.01) for name in ("poison", "a", "b")))
    for life in range(3):  # each reads what it gets first, and dies of it
        taken = await audio_reader(redis_client).read(16, 100)
        assert [d.times_delivered for d in taken][:1] == [life + 1]
    stub = Stub()
    async with working(stub, redis_client):
        found = outcome(await answers(redis_client, 3))
    assert found == {"poison": "failed", "a": "features", "b": "features"}
    assert sorted(stub.calls) == [["a"], ["b"]]
    assert await redis_client.xlen(CONFIG.keys.dead(CONFIG.keys.segments(0))) == 1
    assert await settled(redis_client)


async def test_entries_that_are_no_jobs_go_to_the_dead_letters(redis_client: Client) -> None:
    stream = CONFIG.keys.segments(0)
    await redis_client.xadd(stream, {"v": "7"})
    stray: dict[Any, Any] = dict(wire.encode(make_started("u0")))
    await redis_client.xadd(stream, stray)
    await send(redis_client, make_segment("u1"))
    async with working(Stub(), redis_client):
        assert outcome(await answers(redis_client, 1)) == {"u1": "features"}
        await until(lambda: settled(redis_client))
    assert await redis_client.xlen(CONFIG.keys.dead(stream)) == 2


async def test_jobs_for_others_are_acknowledged_in_silence(redis_client: Client) -> None:
    stub = Stub("audio")
    await send(redis_client, make_transcript("u0"), make_segment("u1", captions_pending=True))
    async with working(stub, redis_client):
        assert outcome(await answers(redis_client, 1)) == {"u1": "features"}
        await until(lambda: settled(redis_client))
    assert stub.calls == [["u1"]]


async def test_answers_carry_the_attempt_of_their_job(redis_client: Client) -> None:
    stub = Stub("text", needs_pcm=True)
    jobs = [make_segment("u0", text="Hello."), make_segment("u1"), make_segment("u2", captions_pending=True)]
    await send(redis_client, *(replace(job, attempt=n + 1) for n, job in enumerate(jobs)))
    await send(redis_client, replace(make_transcript("u2"), attempt=3))  # finds the speech of that attempt
    await send(redis_client, replace(make_segment("late", deadline_unix_ms=1), attempt=4))
    async with working(stub, redis_client):
        found = await answers(redis_client, 4)
    assert outcome(found) == {"u0": "features", "u1": "features", "u2": "features", "late": "deadline"}
    assert {a.utterance_id: a.attempt for a in found if isinstance(a, Features | FeaturesMissing)} == {
        "u0": 1, "u1": 2, "u2": 3, "late": 4,
    }  # fmt: skip


async def test_a_transcript_without_words_becomes_recognition(redis_client: Client) -> None:
    stub = Stub("text", needs_pcm=True)
    segment = make_segment("u0", captions_pending=True, language="en")
    await send(redis_client, segment, make_transcript("u0", language="en"), make_transcript("gone"))
    async with working(stub, redis_client):
        assert outcome(await answers(redis_client, 2)) == {"u0": "features", "gone": "media_expired"}
    (job,) = stub.jobs
    assert isinstance(job, Segment)
    assert len(job.pcm) == len(segment.pcm)
    assert (job.text, job.language, job.captions_pending) == (None, "en", False)


async def test_given_words_do_not_need_the_speech(redis_client: Client) -> None:
    stub = Stub("text", needs_pcm=True)
    await send(redis_client, make_segment("u0", text="Hello."))
    await EventLog(redis_client, CONFIG).drop_media("s0", "u0", 0)
    async with working(stub, redis_client):
        assert outcome(await answers(redis_client, 1)) == {"u0": "features"}


async def test_a_text_worker_that_cannot_hear_gets_the_transcript_as_it_is(
    redis_client: Client,
) -> None:
    stub = Stub("text", needs_pcm=False)
    await send(redis_client, make_transcript("u0"))
    async with working(stub, redis_client):
        await answers(redis_client, 1)
    assert isinstance(stub.jobs[0], Transcript)


async def test_stop_finishes_the_batch_in_hand(redis_client: Client) -> None:
    stub = Stub()
    stub.gate.clear()
    await send(redis_client, make_segment("u0"))
    async with working(stub, redis_client) as stop:
        await until(lambda: stub.calls == [["u0"]])
        stop.set()
        await send(redis_client, make_segment("after"))
        assert await redis_client.xlen(CONFIG.keys.inbox(0)) == 0
        stub.gate.set()
    assert outcome(await answers(redis_client, 1)) == {"u0": "features"}
    (group,) = await _groups(redis_client, CONFIG)
    assert (group["pending"], group["lag"]) == (0, 1)


async def test_stop_does_not_wait_for_ever_and_the_job_stays_pending(
    redis_client: Client,
) -> None:
    stub = Stub()
    stub.gate.clear()
    await send(redis_client, make_segment("u0"))
    async with working(stub, redis_client, config=WorkerConfig(wait_ms=0, drain_s=0.05)) as stop:
        await until(lambda: stub.calls == [["u0"]])
        stop.set()
    stub.gate.set()
    (group,) = await _groups(redis_client, CONFIG)
    assert group["pending"] == 1
    async with working(Stub(), redis_client):  # the next one takes it up
        assert outcome(await answers(redis_client, 1)) == {"u0": "features"}


async def test_long_work_renews_its_claim(redis_client: Client) -> None:
    config = RedisConfig(shards=1, claim_idle_s=1.0)
    slow = Stub()
    slow.gate.clear()
    await send(redis_client, make_segment("u0"), config=config)
    work = WorkerConfig(wait_ms=0, renew_s=0.05)
    async with working(slow, redis_client, config=work, redis_config=config):
        await until(lambda: slow.calls == [["u0"]])
        heir = audio_reader(redis_client, "heir", config)
        loop = asyncio.get_running_loop()
        end_s = loop.time() + 1.5
        while loop.time() < end_s:
            assert await heir.read(1, 20) == []
        slow.gate.set()
        await answers(redis_client, 1, config)


async def test_an_outage_during_the_work_loses_no_answer(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server = RedisServer(tmp_path)
    server.start()
    config = RedisConfig(url=server.url, shards=1)
    try:
        async with connect(config) as client:
            stub = Stub()
            stub.gate.clear()
            await send(client, *(make_segment(f"u{i}", seconds=0.01) for i in range(8)), config=config)
            async with working(stub, client, redis_config=config):
                await until(lambda: len(stub.calls) == 1)
                await asyncio.to_thread(server.stop)
                stub.gate.set()
                await until(lambda: "Redis is away" in caplog.text)
                server.start()
                found = outcome(await answers(client, 8, config))
                assert found == {f"u{i}": "features" for i in range(8)}
    finally:
        server.close()


async def test_an_extractor_that_cannot_load_ends_the_worker(redis_client: Client) -> None:
    class Weightless(Stub):
        def load(self) -> None:
            raise ModelUnavailable("no weights")

    writer = Writer(redis_client, CONFIG)
    with pytest.raises(ModelUnavailable):
        await run_worker(Weightless(), audio_reader(redis_client), writer, QUICK, asyncio.Event())


@pytest.mark.parametrize(
    ("modality", "job", "owed"),
    [
        ("text", make_segment(), True),
        ("text", make_segment(captions_pending=True), False),
        ("audio", make_segment(captions_pending=True), True),
        ("text", make_transcript(), True),
        ("visual", make_transcript(), False),
        ("audio", make_started("u0"), False),
    ],
)
def test_who_owes_an_answer(modality: Modality, job: Message, owed: bool) -> None:
    assert concerns(modality, job) is owed


def test_the_speech_of_a_transcript_is_a_segment_of_its_length() -> None:
    pcm = make_segment(seconds=1.5).pcm
    job = speech_of(make_transcript("u7", language="en"), pcm)
    assert (job.utterance_id, job.language, job.start_ms, job.end_ms) == ("u7", "en", 0, 1500)
    assert job.pcm is pcm
