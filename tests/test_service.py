"""The live fusion over a real Redis: every utterance one final event, once, in order, acknowledged."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from cmath_stream import events
from cmath_stream.assembler import AssemblerConfig
from cmath_stream.engine import Engine
from cmath_stream.events import Event
from cmath_stream.prediction import EngineConfig
from cmath_stream.service import FusionService
from realtime.messages import (
    MODALITIES,
    Features,
    FeaturesMissing,
    Message,
    Modality,
    SessionClosed,
    SessionStarted,
    UtteranceEnded,
    UtteranceStarted,
)
from realtime.redis_bus import RedisConfig
from realtime.redis_cluster import Client
from realtime.redis_events import EventLog, Fenced
from realtime.redis_lease import ShardLeases
from realtime.redis_outbox import Writer
from realtime.redis_reader import Delivery, GroupReader
from tests.checkpoints import tiny
from tests.conftest import until

CONFIG = AssemblerConfig(deadline_s=0.3, final_s=0.8)
VALID = jsonschema.Draft202012Validator(events.schema(), format_checker=jsonschema.FormatChecker())


class Line:
    """A fusion service and both ends of it."""

    def __init__(self, client: Client, url: str, engine: Engine) -> None:
        self.client = client
        self.config = RedisConfig(url=url, shards=2)
        self.writer = Writer(client, self.config)
        self.log = EventLog(client, self.config)
        self.engine = engine

    def service(self, name: str) -> FusionService:
        reader = GroupReader(self.client, self.config, "inbox", "fuse", "owner", shards=())
        leases = ShardLeases(self.client, self.config, name)
        return FusionService(self.engine, CONFIG, reader, self.log, leases)

    @asynccontextmanager
    async def running(self, name: str = "one") -> AsyncIterator[FusionService]:
        service = self.service(name)
        stop = asyncio.Event()
        task = asyncio.create_task(service.run(stop), name="fusion")
        try:
            yield service
        finally:
            stop.set()
            await task

    async def events(self, session_id: str | None = "s") -> list[Event]:
        return [event for _, event in await self.log.read(session_id, "0", 0, 1000)]

    def has(self, count: int, kind: str = "emotion.utterance") -> Callable[[], object]:
        async def enough() -> bool:
            return sum(bool(event["type"] == kind) for event in await self.events()) >= count

        return enough

    async def unsettled(self) -> int:
        pending = 0
        for shard in range(self.config.shards):
            groups = await self.client.xinfo_groups(self.config.keys.inbox(shard))
            pending += sum(group["pending"] for group in groups)
        return pending


@pytest.fixture
def line(redis_client: Client, redis_url: str, tmp_path: Path) -> Line:
    return Line(redis_client, redis_url, Engine(tiny(tmp_path), EngineConfig()))


def opening(sid: str = "s") -> list[Message]:
    return [SessionStarted(sid, "room", 1_790_000_000_000, None, "arrival")]


def spoken(n: int, sid: str = "s") -> list[Message]:
    return [
        UtteranceStarted(sid, "anna", f"anna.{n}", n * 1000),
        UtteranceEnded(sid, "anna", f"anna.{n}", n, n * 1000, n * 1000 + 500, False, 0, 300, 0),
    ]


def answer(n: int, modality: Modality, sid: str = "s", extractor: str | None = None) -> Message:
    if modality == "visual":
        return FeaturesMissing(sid, f"anna.{n}", "visual", "no_video", 0)
    dim, name = (6, "words/1") if modality == "text" else (5, "voice/1")
    return Features(sid, f"anna.{n}", modality, extractor or name, np.ones(dim, np.float32), 1.0, 1)


def answers(n: int, sid: str = "s") -> list[Message]:
    return [answer(n, modality, sid) for modality in MODALITIES]


async def test_twenty_utterances_twenty_final_events_in_order(line: Line) -> None:
    async with line.running():
        await line.writer.write(opening())
        for n in range(20):
            await line.writer.write(answers(n)[:1] + spoken(n) + answers(n)[1:])
        await line.writer.write([SessionClosed("s", 21_000, "empty", 20)])
        await until(line.has(1, "session.closed"))
    told = await line.events()
    for event in told:
        VALID.validate(event)
    emotions = [event for event in told if event["type"] == "emotion.utterance"]
    assert [event["index"] for event in emotions] == list(range(20))
    assert all(event["is_final"] for event in emotions)
    assert [event["seq"] for event in told] == list(range(1, len(told) + 1))
    assert told[-1]["totals"] == {"started": 20, "emotions": 20, "dropped": 0}
    assert await line.unsettled() == 0


async def test_entries_that_come_twice_change_nothing(line: Line) -> None:
    entries = opening() + spoken(0) + answers(0)
    async with line.running():
        await line.writer.write(entries)
        await until(line.has(1, "participant.state"))
        await line.writer.write(entries)
        await line.writer.write(spoken(1) + answers(1))
        await until(line.has(2, "participant.state"))
    told = await line.events()
    assert len({event["event_id"] for event in told}) == len(told) == 9


async def test_a_slow_modality_gives_a_provisional_event_and_one_final_revision(line: Line) -> None:
    async with line.running():
        await line.writer.write([*opening(), *spoken(0), answer(0, "text"), answer(0, "visual")])
        await until(line.has(1))
        await line.writer.write([answer(0, "audio")])
        await until(line.has(2))
    first, second = [e for e in await line.events() if e["type"] == "emotion.utterance"]
    assert (first["revision"], first["is_final"]) == (0, False)
    assert (second["revision"], second["is_final"]) == (1, True)
    assert await line.unsettled() == 0


async def test_what_was_not_finished_is_finished_by_the_next_process(line: Line) -> None:
    reader = GroupReader(line.client, line.config, "inbox", "fuse", "owner")
    await line.writer.write(opening() + spoken(0) + answers(0))
    assert await reader.read(100, 100)  # taken by a process that then dies
    async with line.running():
        await until(line.has(1))
    assert await line.unsettled() == 0


async def test_foreign_features_are_refused_and_said(line: Line, caplog: pytest.LogCaptureFixture) -> None:
    async with line.running():
        foreign = answer(0, "text", extractor="other-encoder/3")
        await line.writer.write([*opening(), *spoken(0), foreign, answer(0, "audio"), answer(0, "visual")])
        await until(line.has(1))
    (event,) = [e for e in await line.events() if e["type"] == "emotion.utterance"]
    assert event["modalities"]["text"] == {"used": False, "reason": "extractor_mismatch"}
    assert "other-encoder/3" in caplog.text and "words/1" in caplog.text


async def test_rubbish_goes_to_the_dead_letters_and_the_rest_goes_on(line: Line) -> None:
    shard = line.config.keys.shard_of("s")
    async with line.running():
        await line.client.xadd(
            line.config.keys.inbox(shard), {"v": "1", "type": "nonsense", "head": "{"}, maxlen=100
        )
        await line.writer.write(opening() + spoken(0) + answers(0))
        await until(line.has(1))
        await until(lambda: line.client.xlen(line.config.keys.dead(line.config.keys.inbox(shard))))


async def test_an_answer_after_the_end_leaves_nothing_behind(line: Line) -> None:
    async with line.running() as service:
        await line.writer.write([*opening(), *spoken(0), *answers(0), SessionClosed("s", 1000, "empty", 1)])
        await until(line.has(1, "session.closed"))
        await line.writer.write(answers(0))

        async def settled() -> bool:
            groups = await line.client.xinfo_groups(line.config.keys.inbox(line.config.keys.shard_of("s")))
            return await line.unsettled() == 0 and bool(groups[0]["lag"] == 0)

        await until(settled)
        assert service.sessions == 0


async def test_many_sessions_share_the_model(line: Line) -> None:
    async with line.running():
        for sid in "abcdefgh":
            await line.writer.write(opening(sid) + spoken(0, sid) + answers(0, sid))

        async def all_told() -> bool:
            feed = await line.events(None)
            return sum(bool(event["type"] == "participant.state") for event in feed) >= 8

        await until(all_told)
    for sid in "abcdefgh":
        assert [e["seq"] for e in await line.events(sid)] == [1, 2, 3, 4, 5]


# ---- changing hands


async def vanish(line: Line, name: str, until_done: Callable[[], object]) -> None:
    """A process that works until then and dies without a word."""
    service = line.service(name)
    task = asyncio.create_task(service.run(asyncio.Event()), name=f"fusion {name}")
    await until(until_done)
    while not task.done():  # the Redis client may take a cancellation for a lost connection
        task.cancel()
        await asyncio.sleep(0.05)


async def test_the_next_process_goes_on_with_the_conversation(line: Line) -> None:
    await line.writer.write(opening())
    for n in range(4):
        await line.writer.write(spoken(n) + answers(n))
    await line.writer.write([*spoken(4), answer(4, "text")])
    await vanish(line, "one", line.has(4))
    await line.writer.write(answers(4)[1:] + spoken(5) + answers(5) + [SessionClosed("s", 9000, "empty", 6)])
    async with line.running("two"):
        await until(line.has(1, "session.closed"))
    told = await line.events()
    emotions = [event for event in told if event["type"] == "emotion.utterance"]
    assert [(event["index"], event["is_final"]) for event in emotions] == [(n, True) for n in range(6)]
    assert [event["context"]["window"] for event in emotions] == [1, 2, 3, 4, 4, 4]
    assert all("started_at" in event for event in emotions)
    states = [event for event in told if event["type"] == "participant.state"]
    assert [event["utterances"] for event in states] == [1, 2, 3, 4, 5, 6]
    assert told[-1]["totals"] == {"started": 6, "emotions": 6, "dropped": 0}
    assert await line.unsettled() == 0 and not await line.client.exists(line.config.keys.window("s"))


async def test_a_process_frozen_past_its_lease_writes_nothing_any_more(line: Line) -> None:
    frozen = line.service("frozen")
    stop = asyncio.Event()
    await frozen._leases.keep()
    frozen._own(frozen._leases.held)
    await line.writer.write(opening() + spoken(0) + answers(0))
    deliveries: list[Delivery] = []
    while len(deliveries) < 6:
        deliveries += await frozen._reader.read(100, 100)  # it has read, and then stands still
    async with line.running("heir"):
        await until(line.has(1, "participant.state"), timeout_s=15.0)
        before = await line.events()
        with pytest.raises(Fenced):
            await frozen._round(deliveries)
        await line.writer.write(spoken(1) + answers(1))
        await until(line.has(2))
    stop.set()
    told = await line.events()
    assert told[: len(before)] == before
    finals = [e["utterance_id"] for e in told if e["type"] == "emotion.utterance" and e["is_final"]]
    assert finals == ["anna.0", "anna.1"]


async def test_two_processes_share_the_sessions_and_one_alone_has_them_all(line: Line) -> None:
    sids = [f"s{n}" for n in range(8)]
    assert {line.config.keys.shard_of(sid) for sid in sids} == {0, 1}

    async def round_of(n: int) -> None:
        for sid in sids:
            await line.writer.write([*(opening(sid) if n == 0 else []), *spoken(n, sid), *answers(n, sid)])

    async def done(n: int) -> bool:
        told = [await line.events(sid) for sid in sids]
        return all(sum(e["type"] == "participant.state" for e in each) == n for each in told)

    async with line.running("one") as one:
        async with line.running("two") as two:
            await until(lambda: _shared(one, two), timeout_s=15.0)
            await round_of(0)
            await until(lambda: done(1))
            assert one.sessions and two.sessions and one.sessions + two.sessions == 8
        await round_of(1)
        await until(lambda: done(2), timeout_s=15.0)
        assert one.sessions == 8
    for sid in sids:
        emotions = [e for e in await line.events(sid) if e["type"] == "emotion.utterance"]
        assert [e["context"]["window"] for e in emotions] == [1, 2]


async def _shared(*services: FusionService) -> bool:
    return all(len(service._leases.held) == 1 for service in services)


async def test_a_session_whose_ingest_died_is_ended(line: Line) -> None:
    async with line.running():
        await line.client.set(line.config.keys.held("s"), "{}", px=1500)  # as a living ingest renews it
        await line.writer.write(
            [*opening(), *spoken(0), *answers(0), UtteranceStarted("s", "anna", "anna.1", 2000)]
        )
        await until(line.has(1, "session.closed"), timeout_s=15.0)
    told = await line.events()
    assert [e["reason"] for e in told if e["type"] in ("utterance.dropped", "session.closed")] == [
        "ingest_lost"
    ] * 2
    assert told[-1]["totals"] == {"started": 2, "emotions": 1, "dropped": 1}
    assert await line.unsettled() == 0
