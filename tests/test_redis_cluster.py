"""A cluster's own ways: the line over three nodes, one node that is away, and a replica that takes over."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
from redis import RedisError
from redis.crc import key_slot
from typer.testing import CliRunner

from cmath_stream.assembler import AssemblerConfig
from cmath_stream.cli import app
from cmath_stream.engine import Engine
from cmath_stream.events import Event
from cmath_stream.prediction import EngineConfig
from cmath_stream.service import FusionService
from deploy import at_work
from realtime.errors import BusError
from realtime.known_sessions import KnownSessions
from realtime.messages import (
    Message,
    Modality,
    SessionClosed,
    SessionStarted,
    UtteranceEnded,
    UtteranceStarted,
)
from realtime.redis_bus import RedisConfig, answering, check, connect
from realtime.redis_cluster import Client, node_url
from realtime.redis_events import EventLog
from realtime.redis_lease import ShardLeases
from realtime.redis_outbox import Outbox, Writer
from realtime.redis_pages import entries
from realtime.redis_reader import GroupReader
from tests.checkpoints import tiny
from tests.cluster import PRIMARIES, RedisCluster, running_cluster
from tests.conftest import make_segment, make_started, read_all, until
from tests.test_early import Length
from workers.extractor import FeatureSpec
from workers.worker import WorkerConfig, run_worker

SPECS: dict[Modality, FeatureSpec] = {
    "text": FeatureSpec("words", "1", 6),
    "audio": FeatureSpec("voice", "1", 5),
}
WORKERS = 2  # of each modality
FUSION = AssemblerConfig(("text", "audio"), deadline_s=8.0, final_s=9.0)


# ---- the link


@pytest.mark.parametrize(
    ("url", "node"),
    [
        ("redis+cluster://h:7000", "redis://h:7000"),
        ("rediss+cluster://:pw@h:7000/0", "rediss://:pw@h:7000/0"),
        ("redis://h:6379/0", None),
        ("unix:///run/redis", None),
    ],
)
def test_the_url_says_whether_it_is_a_cluster(url: str, node: str | None) -> None:
    assert node_url(url) == node


def test_a_database_of_a_cluster_is_refused() -> None:
    with pytest.raises(BusError, match="db"):
        connect(RedisConfig(url="redis+cluster://h:7000/1"))


async def test_a_cluster_that_does_not_answer_is_one_line() -> None:
    async with connect(RedisConfig(url="redis+cluster://127.0.0.1:1")) as client:
        with pytest.raises(BusError, match="does not answer"):
            await check(client)


async def test_a_single_server_is_no_cluster(redis_url: str) -> None:
    async with connect(RedisConfig(url=redis_url.replace("redis:", "redis+cluster:"))) as client:
        with pytest.raises(BusError, match="Cluster mode is not enabled"):
            await check(client)


async def test_a_node_asked_as_a_single_server_says_which_url_to_give(cluster: RedisCluster) -> None:
    config = RedisConfig(url=node_url(cluster.url))
    with pytest.raises(BusError, match=r"redis\+cluster://"):
        async with answering(config) as client:
            await KnownSessions(client, config).all()
            for n in range(PRIMARIES * 4):  # of which other nodes have some
                await client.get(f"key {n}")


async def test_the_health_check_of_a_worker_asks_the_cluster(cluster: RedisCluster) -> None:
    config = RedisConfig(url=cluster.url, prefix="probe:")
    async with connect(config) as client:
        await GroupReader(client, config, "segments", "audio", "me").read(1, 0)
        with at_work.connect(cluster.url) as asking:
            assert at_work.why_not(asking, config, "me") is None
            assert "no worker you" in (at_work.why_not(asking, config, "you") or "")
        for shard in range(config.shards):
            await client.unlink(config.keys.segments(shard))


# ---- reading of several slots


@pytest.fixture
async def client(cluster: RedisCluster) -> AsyncIterator[Client]:
    async with connect(RedisConfig(url=cluster.url)) as client:
        await client.flushall()
        yield client


async def test_the_shards_lie_on_several_nodes(cluster: RedisCluster) -> None:
    keys = RedisConfig().keys
    assert len({cluster.owner(keys.segments(shard)).port for shard in range(4)}) > 1


async def test_what_is_new_in_any_shard_ends_a_wait(client: Client) -> None:
    config = RedisConfig(claim_idle_s=3600)
    source = GroupReader(client, config, "inbox", "fuse", "one")
    assert await source.read(8, 0) == []
    for n in range(8):
        waiting = asyncio.create_task(source.read(8, 2000))
        await asyncio.sleep(0)
        began_s = time.monotonic()
        await Writer(client, config).write([make_started(f"u{n}", f"session {n}")])
        (delivery,) = await waiting
        assert time.monotonic() - began_s < 1.0  # looked at often, not waited out
        await source.ack([delivery])


async def test_a_read_that_is_cancelled_gives_its_entries_later(client: Client) -> None:
    config = RedisConfig(claim_idle_s=3600)
    source = GroupReader(client, config, "inbox", "fuse", "one")
    await source.read(1, 0)
    for n in range(20):  # at whatever step of its look it is cancelled
        waiting = asyncio.create_task(source.read(4, 2000))
        for _ in range(n):
            await asyncio.sleep(0)
        write = asyncio.create_task(Writer(client, config).write([make_started(f"u{n}", f"session {n}")]))
        for _ in range(5 * n):
            await asyncio.sleep(0)
        waiting.cancel()
        got = (await asyncio.gather(waiting, return_exceptions=True))[0]
        await write
        found = got if isinstance(got, list) and got else await read_all(source, 1)
        await source.ack(found)
        assert [getattr(d.message, "utterance_id", "") for d in found] == [f"u{n}"]


# ---- one node that is away


@pytest.mark.slow
async def test_a_node_that_is_away_holds_up_its_own_shards_alone(tmp_path: Path) -> None:
    with running_cluster(tmp_path) as cluster:
        config = RedisConfig(url=cluster.url, claim_idle_s=3600)
        away = cluster.owner(config.keys.inbox(0))
        assert away is not cluster.primaries[-1]
        for node in cluster.nodes:  # else the whole cluster stops when it misses one
            node.ask("CONFIG SET", "cluster-require-full-coverage", "no")
        sids = {config.keys.shard_of(f"s{n}"): f"s{n}" for n in range(40)}
        there = next(s for s in sids if cluster.owner(config.keys.inbox(s)) is not away)
        async with connect(config) as client:
            await check(client)
            outbox = Outbox(client, config)
            carrier = asyncio.create_task(outbox.run(), name="outbox")
            away.kill()
            for n in range(10):
                outbox.put(make_started(f"u{n}", sids[0]))
                outbox.put(make_started(f"u{n}", sids[there]))
            source = GroupReader(client, config, "inbox", "fuse", "one", shards=[there])
            assert len(await read_all(source, 10)) == 10
            assert len(outbox) == 20  # of which one half waits
            await asyncio.to_thread(away.start)
            await asyncio.wait_for(outbox.flush(), 20)
            assert await client.xlen(config.keys.inbox(0)) == 10
            assert await client.xlen(config.keys.inbox(there)) == 10  # none of them was written again
            carrier.cancel()
            await asyncio.gather(carrier, return_exceptions=True)


# ---- the line


class Line:
    """An ingest's outbox, several workers of each modality and two fusions, each with a client of its own."""

    def __init__(self, url: str) -> None:
        self.config = RedisConfig(url=url, claim_idle_s=3600)
        self.taken: dict[str, list[int]] = {}  # modality → utterances of each worker
        self.client: Client
        self.outbox: Outbox

    async def events(self, session_id: str) -> list[Event]:
        """Everything told of a session so far."""
        return [e for _, e in await EventLog(self.client, self.config).read(session_id, "0", 0, 1000)]

    async def is_over(self, session_id: str) -> bool:
        """Whether its end is told."""
        return any(event["type"] == "session.closed" for event in await self.events(session_id))

    async def keys_of(self, session_id: str) -> list[str]:
        """Every key that names a session."""
        return [key.decode() async for key in self.client.scan_iter(f"*{session_id}*", count=1000)]


class Counting(Length):
    """Counts what it was given."""

    def __init__(self, modality: Modality, spec: FeatureSpec, count: list[int], at: int) -> None:
        super().__init__(modality, spec)
        self._count, self._at = count, at

    def _answer(self, job):  # type: ignore[no-untyped-def]
        self._count[self._at] += 1
        return super()._answer(job)


@asynccontextmanager
async def line_of(url: str, folder: Path) -> AsyncIterator[Line]:
    """Everything at work; stopped in order at the end."""
    line = Line(url)
    stop = asyncio.Event()
    async with AsyncExitStack() as stack:

        async def link() -> Client:
            return await stack.enter_async_context(connect(line.config))

        line.client = await link()
        await check(line.client)
        line.outbox = Outbox(await link(), line.config)
        carrier = asyncio.create_task(line.outbox.run(), name="outbox")
        async with asyncio.TaskGroup() as tasks:
            for modality, spec in SPECS.items():
                line.taken[modality] = [0] * WORKERS
                for n in range(WORKERS):
                    client = await link()
                    extractor = Counting(modality, spec, line.taken[modality], n)
                    reader = GroupReader(client, line.config, "segments", modality, f"worker-{n}")
                    writer = Writer(client, line.config)
                    work = run_worker(extractor, reader, writer, WorkerConfig(batch=2, wait_ms=0), stop)
                    tasks.create_task(work, name=f"{modality} {n}")
            for name in ("one", "two"):
                client = await link()
                fusion = FusionService(
                    Engine(tiny(folder), EngineConfig()),
                    FUSION,
                    GroupReader(client, line.config, "inbox", "fuse", "owner", shards=()),
                    EventLog(client, line.config),
                    ShardLeases(client, line.config, name),
                )
                tasks.create_task(fusion.run(stop), name=f"fusion {name}")
            try:
                yield line
                await line.outbox.flush()
            finally:
                carrier.cancel()
                stop.set()


def started(sid: str) -> list[Message]:
    return [SessionStarted(sid, f"room-{sid}", 1_790_000_000_000, None, "arrival")]


def said(sid: str, n: int) -> list[Message]:
    """An utterance as the ingest tells it, its job before its end."""
    uid = f"anna.{n}"
    job = replace(make_segment(uid, session_id=sid, seconds=0.1, text="hello"), participant_id="anna")
    begin = n * 1000
    return [
        UtteranceStarted(sid, "anna", uid, begin),
        job,
        UtteranceEnded(sid, "anna", uid, n, begin, begin + 500, False, 0, 300, 0),
    ]


def ended(sid: str, utterances: int) -> list[Message]:
    return [SessionClosed(sid, utterances * 1000, "empty", utterances)]


def once_and_in_order(told: list[Event], utterances: int) -> None:
    """Every utterance has one end, an emotion, as they were said; nothing is told twice."""
    finals = [event["index"] for event in told if event.get("is_final")]
    assert finals == list(range(utterances))
    assert len({event["event_id"] for event in told}) == len(told)
    assert [event["seq"] for event in told] == list(range(1, len(told) + 1))
    assert told[-1]["totals"] == {"started": utterances, "emotions": utterances, "dropped": 0}


async def test_a_conversation_over_three_nodes(cluster: RedisCluster, client: Client, tmp_path: Path) -> None:
    sids, utterances = [f"{n:032x}" for n in range(6)], 8
    async with line_of(cluster.url, tmp_path) as line:
        for sid in sids:
            for message in started(sid):
                line.outbox.put(message)
        for n in range(utterances):
            for message in (message for sid in sids for message in said(sid, n)):
                line.outbox.put(message)
        for sid in sids:
            for message in ended(sid, utterances):
                line.outbox.put(message)
        for sid in sids:
            await until(lambda sid=sid: line.is_over(sid), timeout_s=30)  # type: ignore[misc]
            told = await line.events(sid)
            once_and_in_order(told, utterances)
            emotions = [event for event in told if event["type"] == "emotion.utterance"]
            assert all(event["modalities"][m]["used"] for event in emotions for m in SPECS)
        owners = set()
        for sid in sids:
            keys = await line.keys_of(sid)
            assert line.config.keys.events(sid) in keys and line.config.keys.state(sid) in keys
            assert len({key_slot(key.encode()) for key in keys}) == 1
            owners.add(cluster.owner(keys[0]).port)
        assert len(owners) == PRIMARIES  # the sessions lie on all nodes
    for modality, taken in line.taken.items():
        assert sum(taken) == len(sids) * utterances, modality
        assert all(taken), f"{modality}: one worker did everything"
    await the_operator_sees_and_erases(cluster, client, sids)


async def the_operator_sees_and_erases(cluster: RedisCluster, client: Client, sids: list[str]) -> None:
    """By the commands of the program."""

    async def run(*arguments: str) -> str:
        result = await asyncio.to_thread(CliRunner().invoke, app, [*arguments, "--redis", cluster.url])
        assert result.exit_code == 0, result.output
        return str(result.output)

    listed = await run("session", "list")
    assert all(sid in listed for sid in sids)
    assert "emotion.utterance" in await run("session", "show", sids[0])
    dead = RedisConfig().keys.dead(RedisConfig().keys.segments(0))
    await client.xadd(dead, {"v": "1", "type": "x", "error": "broken"}, maxlen=10)
    assert "broken" in await run("dlq", "list")
    assert "1" in await run("dlq", "drop", "--all")
    assert "0 left" in await run("session", "erase", sids[0])
    assert not [key async for key in client.scan_iter(f"*{sids[0]}*", count=1000)]
    assert sids[0] not in await run("session", "list")


# ---- a replica takes over


class Tally:
    """Writes numbers to one stream, one after the other, and keeps those that were acknowledged."""

    def __init__(self, client: Client, key: str) -> None:
        self._client, self._key = client, key
        self.acknowledged: list[int] = []
        self.longest_wait_s = 0.0  # for an acknowledgement
        self.enough = False

    async def run(self) -> None:
        """Until there are enough; a number whose answer did not come is not written again."""
        last_s = time.monotonic()
        for n in count():
            if self.enough:
                return
            try:
                await self._client.xadd(self._key, {"n": n}, maxlen=1_000_000)
                self.acknowledged.append(n)
                self.longest_wait_s = max(self.longest_wait_s, time.monotonic() - last_s)
                last_s = time.monotonic()
            except RedisError:
                await asyncio.sleep(0.05)

    async def lost(self) -> int:
        """How many of those are not there."""
        there = {int(fields[b"n"]) async for _, fields in entries(self._client, self._key)}
        return len(set(self.acknowledged) - there)


@pytest.mark.slow
@pytest.mark.chaos
@pytest.mark.timeout(240)
async def test_a_replica_takes_over_from_a_killed_primary(tmp_path: Path) -> None:
    before, during, after = 10, 20, 10
    with running_cluster(tmp_path, replicas=1) as cluster:
        dying, (heir,) = cluster.primaries[0], cluster.replicas
        async with line_of(cluster.url, tmp_path) as line, connect(line.config) as counting:
            keys = line.config.keys
            sids = [f"{n:032x}" for n in range(6)]
            hit = [sid for sid in sids if cluster.owner(keys.events(sid)) is dying]
            streams = [name(shard) for shard in range(4) for name in (keys.segments, keys.inbox)]
            assert hit and len(hit) < len(sids)
            assert any(cluster.owner(stream) is dying for stream in streams)
            tally = Tally(counting, f"{keys.prefix}work:{{{hit[0]}}}")
            tallying = asyncio.create_task(tally.run(), name="tally")

            def say(n: int) -> None:
                for sid in sids:
                    for message in said(sid, n):
                        line.outbox.put(message)

            for sid in sids:
                line.outbox.put(started(sid)[0])
            for n in range(before):
                say(n)

            async def begun() -> bool:
                told = [await line.events(sid) for sid in sids]
                return all(any(event.get("is_final") for event in each) for each in told)

            await until(begun, timeout_s=30)
            dying.kill()
            for n in range(before, before + during):  # people go on speaking, whoever has died
                say(n)
                await asyncio.sleep(0.1)
            await until(lambda: heir.ask("ROLE")[0] == "master", timeout_s=15)
            await until(lambda: _writes(tally), timeout_s=15)
            tally.enough = True
            await tallying
            await asyncio.to_thread(dying.start)
            await until(lambda: dying.ask("ROLE")[0] == "slave", timeout_s=15)
            total = before + during + after
            for n in range(before + during, total):
                say(n)
            for sid in sids:
                line.outbox.put(ended(sid, total)[0])
            for sid in sids:
                await until(lambda sid=sid: line.is_over(sid), timeout_s=60)  # type: ignore[misc]
            lost = await tally.lost()
            told = {sid: await line.events(sid) for sid in sids}

    ends = {sid: [event for event in each if _is_end(event)] for sid, each in told.items()}
    emotions = sum(event["type"] == "emotion.utterance" for each in ends.values() for event in each)
    dropped = sum(event["type"] == "utterance.dropped" for each in ends.values() for event in each)
    said_in_all = total * len(sids)
    print(
        f"its slots took no writes for {tally.longest_wait_s:.1f} s; of {len(tally.acknowledged)} "
        f"acknowledged writes {lost} were lost; of {said_in_all} utterances {emotions} have an emotion, "
        f"{dropped} were dropped, {said_in_all - emotions - dropped} are lost"
    )
    for sid, each in ends.items():
        ids = [event["utterance_id"] for event in each]
        assert len(ids) == len(set(ids)), f"{sid}: an utterance has two ends"
        assert len({event["event_id"] for event in told[sid]}) == len(told[sid])
        assert ids == sorted(ids, key=lambda uid: int(uid.partition(".")[2]))
        assert ids[-after:] == [f"anna.{n}" for n in range(before + during, total)]  # it went on


async def _writes(tally: Tally) -> bool:
    acknowledged = len(tally.acknowledged)
    await asyncio.sleep(0.02)
    return len(tally.acknowledged) > acknowledged


def _is_end(event: Event) -> bool:
    return event["type"] == "utterance.dropped" or bool(event.get("is_final"))
