"""Erasing a session: nothing of it is left, nothing of others is touched, and the groups' lag stays known."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from typer.testing import CliRunner

from cmath_stream.cli import app
from realtime.erasure import Erasure, Sought
from realtime.errors import OperatorError
from realtime.redis_bus import RedisConfig, connect
from realtime.redis_cluster import Client
from realtime.redis_events import EventLog
from realtime.redis_outbox import Writer
from realtime.redis_reader import GroupReader
from realtime.redis_server import RedisServer
from realtime.register import HELD_S, Held
from tests.conftest import entries, make_segment, make_started, read_all
from tests.test_known_sessions import closed, spoken, started, tell

CONFIG = RedisConfig(shards=1, claim_idle_s=3600)
SID, OTHER = "a" * 32, "b" * 32
SEGMENTS, INBOX = CONFIG.keys.segments(0), CONFIG.keys.inbox(0)


def groups(client: Client, config: RedisConfig = CONFIG) -> tuple[GroupReader, ...]:
    """Who reads: two groups of jobs, one of notices."""
    return tuple(
        GroupReader(client, config, "inbox" if group == "fuse" else "segments", group, "one", pcm=True)
        for group in ("text", "audio", "fuse")
    )


async def a_call(client: Client, config: RedisConfig = CONFIG) -> None:
    """Two sessions that have closed, as everybody left them: worked on, published, one job put aside."""
    writer, readers = Writer(client, config), groups(client, config)
    for sid in (SID, OTHER):
        await writer.write([make_segment("u0", session_id=sid), make_started("u0", sid)])
        for reader in readers:
            found = await read_all(reader, 1)
            if reader.group == "audio":
                await reader.dead_letter(found[0], "the audio extractor failed on it")
            await reader.ack(found)
        await tell(client, started(sid), spoken(sid), closed(sid))
    broken: dict[Any, Any] = {"v": "1", "type": "x", "head": f"{{{SID}"}
    await client.xadd(config.keys.dead(config.keys.inbox(0)), broken, maxlen=10)


def counts(sought: list[Sought]) -> dict[str, tuple[int, int]]:
    return {each.what: (each.found, each.left) for each in sought}


async def lags(client: Client) -> dict[str, int | None]:
    found: dict[str, int | None] = {}
    for stream in (SEGMENTS, INBOX):
        rows: Any = await client.xinfo_groups(stream)
        found |= {row["name"].decode(): row["lag"] for row in rows}
    return found


async def whatever_holds(client: Client, text: str) -> list[bytes]:
    """Keys in which a text can be found by name or content: a search of its own, through everything."""
    found = []
    async for key in client.scan_iter():
        kind = await client.type(key)
        if kind == b"stream":
            content: Any = await client.xrange(key)
        elif kind == b"hash":
            content = await client.hgetall(key)
        else:
            content = await client.get(key)
        if text in repr(key) or text in repr(content):
            found.append(key)
    return found


async def test_nothing_is_left_and_nothing_else_is_touched(redis_client: Client) -> None:
    await a_call(redis_client)
    others = len(await whatever_holds(redis_client, OTHER))
    assert len(await whatever_holds(redis_client, SID)) > 6
    assert counts(await Erasure(redis_client, CONFIG, SID).run(10)) == {
        f"keys emo:*{{{SID}}}*": (4, 0),  # events, state, done, pcm
        "entries of emo:feed": (3, 0),
        "entries of work stream segments:0": (1, 0),
        "dead letters of segments:0": (1, 0),
        "entries of work stream features:0": (1, 0),
        "dead letters of features:0": (1, 0),
    }
    assert await whatever_holds(redis_client, SID) == []
    # The other's entries of the work streams were done with: they went by the same trimming.
    assert len(await whatever_holds(redis_client, OTHER)) == others - 2
    again = await Erasure(redis_client, CONFIG, SID).run(10)
    assert {pair for each, pair in counts(again).items()} == {(0, 0)}


async def test_the_lag_stays_known(redis_client: Client) -> None:
    await a_call(redis_client)
    await Erasure(redis_client, CONFIG, SID).run(10)
    assert await redis_client.xlen(SEGMENTS) == await redis_client.xlen(INBOX) == 0
    assert await lags(redis_client) == {"text": 0, "audio": 0, "fuse": 0}
    await Writer(redis_client, CONFIG).write([make_segment("u1"), make_started("u1")])
    assert await lags(redis_client) == {"text": 1, "audio": 1, "fuse": 1}
    for reader in groups(redis_client):
        assert len(await read_all(reader, 1)) == 1


async def test_work_under_way_is_waited_for(redis_client: Client) -> None:
    await a_call(redis_client)
    await Writer(redis_client, CONFIG).write([make_segment("u9", session_id=SID)])
    text, audio, _ = groups(redis_client)
    await text.ack(await read_all(text, 1))
    held = await read_all(audio, 1)
    erasing = asyncio.create_task(Erasure(redis_client, CONFIG, SID).run(10))
    await asyncio.sleep(0.3)
    assert not erasing.done()
    assert len(await entries(redis_client, CONFIG.keys.events(SID))) == 3  # keys go last
    await audio.ack(held)
    assert sum(each.left for each in await erasing) == 0


async def test_what_is_left_is_said_and_for_whom_it_waits(redis_client: Client) -> None:
    await a_call(redis_client)
    await Writer(redis_client, CONFIG).write([make_segment("u9", session_id=SID)])
    text, _, _ = groups(redis_client)
    await text.ack(await read_all(text, 1))
    erasure = Erasure(redis_client, CONFIG, SID)
    left = {each.what: each.left for each in await erasure.run(0) if each.left}
    assert left == {"entries of work stream segments:0": 1}
    assert await erasure.waits_for() == "`worker audio` must do with them first"


async def test_entries_that_nobody_ever_read_are_said(redis_client: Client) -> None:
    await Writer(redis_client, CONFIG).write([make_started("u0", SID)])
    erasure = Erasure(redis_client, CONFIG, SID)
    assert sum(each.left for each in await erasure.run(0)) == 1
    assert "have never run" in await erasure.waits_for()


async def test_an_open_session_is_not_erased(redis_client: Client) -> None:
    await a_call(redis_client)
    await redis_client.set(CONFIG.keys.held(SID), Held("r", 1, 1).to_json(), ex=HELD_S)
    with pytest.raises(OperatorError, match="session close"):
        await Erasure(redis_client, CONFIG, SID).run(10)
    assert len(await EventLog(redis_client, CONFIG).read(SID, "0", 0, 10)) == 3


def test_the_commands(own_server: RedisServer) -> None:
    config = RedisConfig(url=own_server.url)

    async def fill() -> None:
        async with connect(config) as client:
            await tell(client, started(SID), spoken(SID), closed(SID))

    def command(*arguments: str) -> Any:
        return CliRunner().invoke(app, ["session", *arguments, "--redis", own_server.url])

    assert command("list").stdout == "no sessions\n"
    asyncio.run(fill())
    row = command("list").stdout.splitlines()[1]
    assert row.split() == [SID, "standup", "2026-09-21", "14:13:20Z", "closed", "(empty)", "-", "4", "3"]
    assert json.loads(command("list", "--json").stdout)["state"] == "closed"
    shown = command("show", "standup").stdout
    assert ["emotion.utterance", "1"] in map(
        str.split, shown.splitlines()
    ) and f"emo:{{{SID}}}:events" in shown
    assert json.loads(command("show", SID[:8], "--json").stdout)["totals"]["dropped"] == 1
    for verb in ("show", "close", "erase"):
        unknown = command(verb, "nowhere")
        assert unknown.exit_code == 1 and "no session or room 'nowhere'" in str(unknown.exception)
    assert "has closed already" in str(command("close", "standup").exception)
    erased = command("erase", "standup")
    assert erased.exit_code == 0 and erased.stdout.splitlines()[-1] == "0 left"
    assert command("list").stdout == "no sessions\n"
    assert command("erase", SID).exit_code == 0  # by its whole id: the feed may outlive the keys


def test_the_command_fails_when_something_is_left(own_server: RedisServer) -> None:
    async def fill() -> None:
        async with connect(RedisConfig(url=own_server.url)) as client:
            await Writer(client, RedisConfig()).write([make_started("u0", SID)])

    asyncio.run(fill())
    failed = CliRunner().invoke(app, ["session", "erase", SID, "--wait", "0", "--redis", own_server.url])
    assert failed.exit_code == 1 and "1 left" in str(failed.exception)
