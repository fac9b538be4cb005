"""Dead letters by hand: what is shown of them, and that going back loses nothing and doubles nothing."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
import redis
from typer.testing import CliRunner, Result

from cmath_stream.cli import app
from cmath_stream.console import table
from realtime.dead_letters import DeadLetters
from realtime.errors import CmathStreamError, OperatorError
from realtime.messages import Segment
from realtime.redis_bus import RedisConfig, connect
from realtime.redis_cluster import Client
from realtime.redis_events import EventLog
from realtime.redis_outbox import Writer
from realtime.redis_reader import GroupReader
from realtime.redis_server import RedisServer
from tests.conftest import entries, make_segment, read_all
from tests.test_worker import Stub, answers, outcome, working

CONFIG = RedisConfig(shards=2, claim_idle_s=3600)
ONE = RedisConfig(shards=1, claim_idle_s=3600)
SECRET = "nobody may read this"
SID = "0123456789abcdef0123456789abcdef"


async def bury(client: Client, config: RedisConfig, *segments: Segment) -> None:
    """Send segments and put each of them aside, as a worker does."""
    await Writer(client, config).write(segments)
    reader = GroupReader(client, config, "segments", "audio", "a-1")
    for delivery in await read_all(reader, len(segments)):
        await reader.dead_letter(delivery, "the audio extractor failed on it")


async def test_a_letter_is_shown_by_identity_and_error(redis_client: Client) -> None:
    await bury(redis_client, CONFIG, make_segment("anna.7", session_id=SID, text=SECRET))
    (letter,) = await DeadLetters(redis_client, CONFIG).letters()
    assert (letter.type, letter.session_id, letter.utterance_id) == ("segment", SID, "anna.7")
    assert letter.stream == CONFIG.keys.segments(CONFIG.keys.shard_of(SID))
    assert letter.error == "the audio extractor failed on it" and letter.deliveries == 1
    assert letter.failed_at > 1_700_000_000_000
    assert SECRET not in repr(letter)


@pytest.mark.parametrize("head", [b"{", b"[1]", b'{"session_id": 3}', b"\xff", b"[" * 5000])
async def test_a_letter_that_is_no_message_is_shown_too(redis_client: Client, head: bytes) -> None:
    dead = CONFIG.keys.dead(CONFIG.keys.inbox(1))
    await redis_client.xadd(dead, {"type": "x", "head": head, "deliveries": "many", "failed_at": "9" * 30})
    (letter,) = await DeadLetters(redis_client, CONFIG).letters("features:1")
    assert (letter.type, letter.session_id, letter.utterance_id, letter.deliveries) == ("x", "", "", 0)
    assert letter.failed_at == 0


async def test_retry_brings_the_original_back_once(redis_client: Client) -> None:
    stream = ONE.keys.segments(0)
    await bury(redis_client, ONE, make_segment("u0"))
    ((_, before),) = await entries(redis_client, stream)
    dead = DeadLetters(redis_client, ONE)
    (letter,) = await dead.letters()
    assert await dead.retry(letter)
    assert not await dead.retry(letter)  # a repeat after a lost answer
    assert await dead.letters() == []
    found = await entries(redis_client, stream)
    assert [fields for _, fields in found] == [before, before]
    (again,) = await read_all(GroupReader(redis_client, ONE, "segments", "audio", "a-1", pcm=True), 1)
    assert again.times_delivered == 1 and not again.media_expired


async def test_a_retry_that_redis_refuses_loses_nothing(redis_client: Client) -> None:
    stream = ONE.keys.segments(0)
    await bury(redis_client, ONE, make_segment("u0"))
    await redis_client.delete(stream)
    await redis_client.set(stream, "not a stream", ex=60)
    dead = DeadLetters(redis_client, ONE)
    (letter,) = await dead.letters()
    with pytest.raises(redis.ResponseError):
        await dead.retry(letter)
    assert await dead.letters() == [letter]


async def test_all_is_what_is_there_now(redis_client: Client) -> None:
    """More than a page, in order; nothing else is touched, and a letter that comes meanwhile stays."""
    stream = ONE.keys.segments(0)
    for n in range(501):
        await redis_client.xadd(ONE.keys.dead(stream), {"v": "1", "type": "x", "head": f'{{"n":{n}}}'})
    dead = DeadLetters(redis_client, ONE)
    chosen = await dead.letters()
    await redis_client.xadd(ONE.keys.dead(stream), {"v": "1", "type": "late"})
    assert [await dead.retry(letter) for letter in chosen] == [True] * 501
    numbers = [json.loads(fields[b"head"])["n"] for _, fields in await entries(redis_client, stream)]
    assert numbers == list(range(501))
    assert [letter.type for letter in await dead.letters()] == ["late"]


async def test_a_retried_segment_without_its_media_is_answered_media_expired(
    redis_client: Client,
) -> None:
    late = make_segment("late", deadline_unix_ms=1)
    await bury(redis_client, ONE, make_segment("u0"), late)
    await EventLog(redis_client, ONE).drop_media("s0", "u0", 0)
    dead = DeadLetters(redis_client, ONE)
    for letter in await dead.letters():
        await dead.retry(letter)
    async with working(Stub(needs_pcm=True), redis_client):
        told = outcome(await answers(redis_client, 2))
    assert told == {"u0": "media_expired", "late": "deadline"}


async def test_an_id_must_name_one_letter(redis_client: Client) -> None:
    for stream in (CONFIG.keys.segments(0), CONFIG.keys.inbox(1)):
        await redis_client.xadd(CONFIG.keys.dead(stream), {"v": "1"}, id="7-0")
    dead = DeadLetters(redis_client, CONFIG)
    with pytest.raises(OperatorError, match="--stream segments:0 or features:1"):
        await dead.chosen(["7-0"])
    (letter,) = await dead.chosen(["7-0", "7-0"], "features")
    assert letter.stream == CONFIG.keys.inbox(1)
    for unknown in ("8-0", "nonsense"):
        with pytest.raises(OperatorError, match=f"no dead letter {unknown}, nothing was done"):
            await dead.chosen(["7-0", unknown], "features")
    with pytest.raises(OperatorError, match="no job stream 'segments:9'"):
        dead.streams("segments:9")
    assert len(await dead.letters()) == 2


# ---- as commands -------------------------------------------------------------------------------------


def command(url: str, *arguments: str) -> Result:
    return CliRunner().invoke(app, [*arguments, "--redis", url])


@pytest.fixture
def letters(own_server: RedisServer) -> list[str]:
    """Ids of two dead letters on a server of the test's own."""
    config = RedisConfig(url=own_server.url)

    async def fill() -> list[str]:
        async with connect(config) as client:
            await bury(client, config, *(make_segment(f"u{n}", session_id=SID, text=SECRET) for n in (0, 1)))
            return [letter.entry_id for letter in await DeadLetters(client, config).letters()]

    return asyncio.run(fill())


def test_the_commands(own_server: RedisServer, letters: list[str]) -> None:
    url = own_server.url
    shown = command(url, "dlq", "list").stdout
    head, *rows = shown.splitlines()
    assert head.split() == "STREAM ID TYPE SESSION UTTERANCE DELIVERIES WHEN ERROR".split()
    assert [row.split()[1:5] for row in rows] == [[letters[n], "segment", SID[:8], f"u{n}"] for n in (0, 1)]
    as_json = command(url, "dlq", "list", "--json").stdout
    assert [json.loads(line)["session_id"] for line in as_json.splitlines()] == [SID, SID]
    assert SECRET not in shown + as_json

    unknown = command(url, "dlq", "retry", letters[0], "1-1")
    assert unknown.exit_code == 1 and isinstance(unknown.exception, CmathStreamError)
    assert "no dead letter 1-1" in str(unknown.exception)
    assert command(url, "dlq", "retry").exit_code == 2
    assert command(url, "dlq", "drop", letters[0], "--all").exit_code == 2

    assert command(url, "dlq", "retry", letters[0]).stdout == "put back: 1\n"
    assert command(url, "dlq", "drop", "--all").stdout == "deleted: 1\n"
    assert command(url, "dlq", "list").stdout == "no dead letters\n"
    assert command(url, "dlq", "retry", "--all").stdout == "put back: 0\n"


def test_a_redis_that_fails_is_one_line(own_server: RedisServer, letters: list[str]) -> None:
    async def spoil() -> None:
        async with connect(RedisConfig(url=own_server.url)) as client:
            for shard in range(4):
                await client.set(RedisConfig().keys.dead(RedisConfig().keys.inbox(shard)), "x")

    asyncio.run(spoil())
    failed: Any = command(own_server.url, "dlq", "list")
    assert failed.exit_code == 1 and "give the command again" in str(failed.exception)


def test_what_a_terminal_would_obey_is_not_printed() -> None:
    assert table([("A", "B"), ("\x1b[31m\n", None)]) == "A       B\n�[31m�  -"
