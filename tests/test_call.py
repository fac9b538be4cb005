"""The main job, end to end, with nothing left out in between: publishers in processes of their own, RTP over
DTLS-SRTP, a live Redis, every role in its own process, events read back as a subscriber reads them.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import wave
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import jsonschema
import numpy as np
import pytest

from cmath_stream import events
from cmath_stream.annotation import Line, latencies_ms
from cmath_stream.events import Event
from cmath_stream.watch import Entry, room_entries
from realtime.messages import SAMPLE_RATE_HZ, Pcm
from realtime.recording import Recording
from realtime.redis_bus import RedisConfig, connect
from realtime.redis_server import RedisServer
from tests.conftest import is_bounded

pytestmark = pytest.mark.timeout(300)  # five processes start, and a call lasts as long as it lasts

DEMO = Path("cmath_stream/demo")
VALID = jsonschema.Draft202012Validator(events.schema(), format_checker=jsonschema.FormatChecker())
UTTERANCES = 10  # of each of the two people
SPACING_S, PIECE_S = 1.9, 0.9  # a pause that nobody takes for going on
START_S, CALL_S = 100.0, 60.0  # upper bounds on a busy machine


@dataclass(frozen=True)
class Installation:
    """A running `cmath-stream up` on a Redis that the test can take away."""

    redis: RedisServer
    http: str


@pytest.fixture(scope="module")
def up() -> Iterator[Installation]:
    server = RedisServer()
    server.start()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environ = {
        **os.environ,
        "CMATH_STREAM__INGEST__PORT": str(port),
        "CMATH_STREAM__INGEST__LOOPBACK_ONLY": "true",
        "CMATH_STREAM__SESSION__LINGER_S": "1",
        "CMATH_STREAM__TEXT__WHISPER": "none",
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "cmath_stream", "up", "--redis", server.url],
        env=environ, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("ready."), "`up` did not start"
        yield Installation(server, f"http://127.0.0.1:{port}")
        process.send_signal(signal.SIGINT)  # Ctrl-C drains and ends well
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.communicate()
        server.close()


@dataclass(frozen=True)
class Person:
    name: str
    sound: Path
    captions: Path
    lines: tuple[Line, ...]


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> tuple[Person, ...]:
    """Twenty distinct utterances, ten a person, cut from the demo; Ben half a turn after Anna."""
    folder = tmp_path_factory.mktemp("people")
    script = json.loads((DEMO / "script.json").read_text("utf-8"))
    return tuple(
        _person(folder, name, script, 0.8 + n * SPACING_S / 2) for n, name in enumerate(("anna", "ben"))
    )


def _person(folder: Path, name: str, script: list[dict[str, Any]], first_s: float) -> Person:
    spoken = np.concatenate([chunk.pcm for chunk in Recording.open(DEMO / f"{name}.opus").audio()])
    own = [line for line in script if line["speaker"] == name]
    pieces = [(line["start_ms"], min(line["end_ms"], line["start_ms"] + 900)) for line in own]
    longest = sorted(own, key=lambda line: line["start_ms"] - line["end_ms"])[: UTTERANCES - len(own)]
    pieces += [(line["end_ms"] - 900, line["end_ms"]) for line in longest]
    track = np.zeros(round((first_s + UTTERANCES * SPACING_S) * SAMPLE_RATE_HZ), np.float32)
    lines, words = [], []
    for n, (start_ms, end_ms) in enumerate(pieces):
        piece = spoken[start_ms * 16 : end_ms * 16]
        at = round((first_s + n * SPACING_S) * SAMPLE_RATE_HZ)
        track[at : at + len(piece)] = piece
        lines.append(Line(name, at // 16, (at + len(piece)) // 16))
        words.append(
            {"start_ms": at // 16, "end_ms": lines[-1].end_ms, "text": f"{name} says {n}", "language": "en"}
        )
    captions = folder / f"{name}.json"
    captions.write_text(json.dumps(words))
    _write_wav(folder / f"{name}.wav", track)
    return Person(name, folder / f"{name}.wav", captions, tuple(lines))


def _write_wav(path: Path, pcm: Pcm) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE_HZ)
        file.writeframes((pcm.clip(-1, 1) * 32767).astype("<i2").tobytes())


@asynccontextmanager
async def publishing(person: Person, whip: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """`cmath-stream publish` of one person in a process of its own; writes NAME.report.json."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "cmath_stream", "publish", str(person.sound), "--whip", whip,
        "--captions", str(person.captions), "--report", str(person.sound.with_suffix(".report.json")),
        stdout=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def call(
    up: Installation, people: tuple[Person, ...], room: str, during: Callable[[list[Entry]], object] = len
) -> list[Entry]:
    """Both people in one room, until its session has closed; `during` sees the entries as they come."""
    whip = f"{up.http}/whip/{room}"
    entries: list[Entry] = []
    async with (
        asyncio.timeout(CALL_S),
        publishing(people[0], whip) as one,
        publishing(people[1], whip) as two,
        aclosing(room_entries(RedisConfig(url=up.redis.url), room, "0")) as told,
    ):
        async for entry in told:
            entries.append(entry)
            during(entries)
        assert await one.wait() == await two.wait() == 0
    return entries


def check(entries: list[Entry], people: tuple[Person, ...]) -> list[Event]:
    """What must hold of every call; returns the final emotions."""
    told = [event for _, event in entries]
    for event in told:
        VALID.validate(event)
    assert [event["seq"] for event in told] == list(range(1, len(told) + 1))
    final = [event for event in told if event.get("is_final")]
    total = UTTERANCES * len(people)
    assert len({event["utterance_id"] for event in final}) == len(final) == total
    assert told[-1]["totals"] == {"started": total, "emotions": total, "dropped": 0}
    for event in final:
        assert sum(emotion["probability"] for emotion in event["emotions"]) == pytest.approx(1.0)
    return final


async def test_twenty_utterances_of_two_people_are_twenty_final_events_in_order(
    up: Installation, people: tuple[Person, ...]
) -> None:
    entries = await call(up, people, "plain")
    final = check(entries, people)
    order = [(event["end_ms"], event["participant_id"]) for event in final]
    assert order == sorted(order) and [event["index"] for event in final] == list(range(20))
    for person in people:
        said = [event["text"] for event in final if event["participant_id"] == person.name]
        assert said == [f"{person.name} says {n}" for n in range(UTTERANCES)]
    assert all(
        event["modalities"]["text"]["used"] and event["modalities"]["audio"]["used"] for event in final
    )
    assert all(event["modalities"]["visual"] == {"used": False, "reason": "no_video"} for event in final)

    reports = [json.loads(p.sound.with_suffix(".report.json").read_text())[0] for p in people]
    lines = [line for person in people for line in person.lines]
    for event in final:  # true times, within the jitter buffer's guess
        report = next(r for r in reports if r["participant"] == event["participant_id"])
        own = [line for line in lines if line.speaker == event["participant_id"]]
        assert min(abs(event["start_ms"] - report["session_offset_ms"] - line.start_ms) for line in own) < 300
    measured = latencies_ms(entries, reports, lines)
    assert len(measured) == 20
    print(
        f"end of speech to event: p50 {np.median(measured):.0f} ms, p95 {np.percentile(measured, 95):.0f} ms"
    )
    assert np.percentile(measured, 95) < 4000  # the mark is 1.2 s on an idle machine; this machine may not be

    async with connect(RedisConfig(url=up.redis.url)) as client:
        assert [key async for key in client.scan_iter() if not await is_bounded(client, key)] == []
        session_id = entries[0][1]["session_id"]
        tail = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "cmath_stream", "tail", session_id, "--from", "0", "--json",
            "--redis", up.redis.url, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, _ = await tail.communicate()
        assert tail.returncode == 0
        assert [json.loads(shown) for shown in out.splitlines()] == [event for _, event in entries]
        assert [
            key async for key in client.scan_iter(match="emo:blob:*")
        ] == []  # media is gone with its utterance


@pytest.mark.alone
@pytest.mark.slow
async def test_five_seconds_without_redis_in_the_middle_lose_nothing(
    up: Installation, people: tuple[Person, ...]
) -> None:
    outages: list[asyncio.Task[None]] = []

    async def outage() -> None:
        await asyncio.to_thread(up.redis.stop)
        await asyncio.sleep(5)  # the length of the outage is what is tested
        up.redis.start()

    def during(entries: list[Entry]) -> None:
        if not outages and sum(event["type"] == "emotion.utterance" for _, event in entries) >= 5:
            outages.append(asyncio.create_task(outage(), name="outage"))

    entries = await call(up, people, "outage", during)
    await outages[0]
    check(entries, people)


@pytest.mark.parametrize(
    ("path", "body", "kind", "status"),
    [
        ("plain", b"hello", "text/plain", 415),
        ("plain", b"hello", "application/sdp", 400),
        ("plain", b"v=0\r\n" * 20_000, "application/sdp", 413),
        ("bad%20room", b"v=0\r\n", "application/sdp", 400),
    ],
)
async def test_bad_offers_get_one_clear_sentence(
    up: Installation, path: str, body: bytes, kind: str, status: int
) -> None:
    async with aiohttp.ClientSession() as http:
        async with http.post(f"{up.http}/whip/{path}", data=body, headers={"Content-Type": kind}) as answer:
            assert answer.status == status
            assert answer.content_type == "application/problem+json"
            assert len((await answer.json(content_type=None))["detail"]) > 10
        async with http.get(f"{up.http}/readyz") as ready:
            assert ready.status == 200
