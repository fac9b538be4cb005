"""A replay in Redis: the lines of the file, once, whatever happens in between."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from typer.testing import CliRunner

from cmath_stream import offline
from cmath_stream.cli import app
from cmath_stream.replaying.to_redis import publisher
from realtime.redis_bus import RedisConfig
from tests.machines import tiny_replay

Quickly = Callable[..., Any]


@pytest.fixture
def server(redis_url: str) -> Iterator[Any]:
    """A client of an empty Redis."""
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        client.flushall()
        yield client


@pytest.fixture
def replay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, redis_url: str) -> Quickly:
    machine = tiny_replay(tmp_path)
    monkeypatch.setattr(offline, "build", lambda settings: machine)
    talk = tmp_path / "talk.jsonl"
    said = [{"speaker": "ab"[n % 2], "text": f"line {n}"} for n in range(5)]
    talk.write_text("\n".join(json.dumps({"dialogue": name, "utterances": said}) for name in ("one", "two")))
    words = ["replay", str(talk), "--to", "redis", "--redis", redis_url]
    return lambda *more: CliRunner().invoke(app, [*words, *map(str, more)])


def stream(server: Any, key: str) -> list[str]:
    return [fields["event"] for _, fields in server.xrange(key)]


def test_every_session_is_told_as_its_file_has_it_and_ends(
    server: Any, replay: Quickly, tmp_path: Path
) -> None:
    out = tmp_path / "events.jsonl"
    result = replay("--out", out)
    assert result.exit_code == 0, result.output
    lines = out.read_text("utf-8").splitlines()
    sids = list(dict.fromkeys(json.loads(line)["session_id"] for line in lines))
    assert result.stdout.splitlines() == sids and len(sids) == 2
    for sid in sids:
        assert stream(server, f"emo:{{{sid}}}:events") == [line for line in lines if sid in line]
        assert server.hget(f"emo:{{{sid}}}:state", "status") == "closed"
    assert stream(server, "emo:feed") == lines
    assert all(server.ttl(key) > 0 for key in server.keys("*") if key != "emo:feed")


def test_twice_changes_nothing(server: Any, replay: Quickly) -> None:
    first = replay()
    before = {key: server.xrange(key) for key in server.keys("*events")} | {"": server.xrange("emo:feed")}
    again = replay()
    assert again.exit_code == 0 and again.stdout == first.stdout and len(before) == 3
    assert "2 of 2 sessions were in Redis already" in again.stderr
    assert {key: server.xrange(key) for key in server.keys("*events")} | {
        "": server.xrange("emo:feed")
    } == before


def test_what_broke_off_is_told_to_its_end_without_repeating_an_event(
    server: Any, replay: Quickly, tmp_path: Path, redis_url: str
) -> None:
    out = tmp_path / "events.jsonl"
    replay("--out", out)
    whole = {key: stream(server, key) for key in server.keys("*events")}
    server.flushall()
    told = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
    with publisher(RedisConfig(url=redis_url)) as publish:
        for event in told[:10]:
            publish.publish(event)
    assert replay().exit_code == 0
    assert {key: stream(server, key) for key in server.keys("*events")} == whole


def test_no_redis_is_said_before_the_work(replay: Quickly, tmp_path: Path) -> None:
    result = replay("--redis", "redis://127.0.0.1:1/0")
    assert "Redis does not answer" in str(result.exception)
