"""What is said, who says it and what opens the door: in no log line, no metric and no refusal.

A whole installation in one process, as `cmath_stream.roles` puts it together, with every logger at DEBUG.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
import traceback
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import aiohttp
import pytest
from yarl import URL

from cmath_stream import roles
from cmath_stream.config import FusionConfig, Settings
from cmath_stream.console import set_up_logging
from cmath_stream.prediction import EngineConfig
from realtime import telemetry
from realtime.errors import SignalingError
from realtime.messages import Answer, Caption, Features, Job, Modality
from realtime.publish import CaptionLine, calling
from realtime.redis_bus import RedisConfig
from realtime.redis_cluster import Client
from realtime.server import IngestConfig
from realtime.session import SessionConfig
from realtime.sockets import subprotocols
from realtime.tokens import JwtConfig
from tests.calls import FRAGMENT, SDP, offer_of, quiet, until
from tests.checkpoints import tiny
from tests.encoders import sentence_encoder
from tests.signing import SECRET, raw, signed
from workers.extractor import Extractor, FeatureSpec
from workers.text import TextConfig, TextExtractor

STATIC = "quokkastatic-token-of-sixteen"
SPOKEN = ("quokkaword", "quokkalost", "quokkabroken")  # in an emotion, in one that is refused, in no caption
NAMED = ("quokkaroom", "quokkaname", "quokkafield")
WITHOUT_A_RIGHT_TOKEN = (0, -9, -8, -6, -1)  # of the requests below: joining, changing, listening, meeting
OURS = ("realtime", "workers", "cmath_stream")


class Words(TextExtractor):
    """The real one; what it makes is cut to fit the tiny checkpoint, but for one utterance."""

    def extract(self, jobs: Sequence[Job]) -> list[Answer | None]:
        return [
            replace(answer, extractor="words/1", vector=answer.vector[:6])
            if isinstance(answer, Features) and SPOKEN[1] not in (answer.text or "")
            else answer
            for answer in super().extract(jobs)
        ]


class Breaking:
    """An extractor whose failure says all that it knows."""

    modality: Modality = "audio"
    needs_pcm = True
    needs_pictures = False
    spec: FeatureSpec | None = FeatureSpec("voice", "1", 5)

    def load(self) -> None: ...

    def warm_up(self) -> None: ...

    def extract(self, jobs: Sequence[Job]) -> list[Answer | None]:
        raise RuntimeError(f"cannot: {jobs}")


@dataclass
class Overheard:
    """All that came out of the installation by other ways than its events."""

    records: list[logging.LogRecord]
    bodies: list[str] = field(default_factory=list)

    def lines(self, ours: bool) -> list[str]:
        """Log lines with their tracebacks, of our loggers or of the others."""
        return [
            record.getMessage()
            + "".join(traceback.format_exception(*record.exc_info) if record.exc_info else ())
            for record in self.records
            if (record.name.partition(".")[0] in OURS) is ours
        ]


@pytest.fixture
def settings(redis_url: str, tmp_path: Path) -> Settings:
    tiny(tmp_path)
    encoder = tmp_path / "encoder"
    encoder.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return Settings(
        redis=RedisConfig(url=redis_url, shards=1),
        ingest=IngestConfig(port=port, loopback_only=True, token=STATIC, jwt=JwtConfig(secret=SECRET)),
        session=SessionConfig(linger_s=0.3),
        text=TextConfig(encoder=sentence_encoder(encoder), whisper="none", runtime="torch"),
        fusion=FusionConfig(str(tmp_path / "tiny.safetensors"), engine=EngineConfig(runtime="eager")),
    )


@contextlib.asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[str]:
    """Ingest, text, audio and fusion; the URL of the ingest."""
    stop, ready = asyncio.Event(), [asyncio.Event() for _ in range(4)]
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(roles.ingest(settings, stop, ready[0].set), name="ingest")
        tasks.create_task(roles.worker("text", settings, "one", stop, ready[1].set), name="text")
        tasks.create_task(roles.worker("audio", settings, "one", stop, ready[2].set), name="audio")
        tasks.create_task(roles.fuse(settings, "one", stop, ready[3].set), name="fuse")
        try:
            async with asyncio.timeout(60):
                await asyncio.gather(*(each.wait() for each in ready))
            yield f"http://127.0.0.1:{settings.ingest.port}"
        finally:
            stop.set()
    await quiet()


async def heard(http: aiohttp.ClientSession, url: str, token: str, wanted: Callable[[str], bool]) -> str:
    """The event stream until it has what is wanted."""
    told = ""
    async with http.get(url, headers={"Authorization": f"Bearer {token}"}) as answer:
        assert answer.status == 200
        async with asyncio.timeout(30):
            async for line in answer.content:
                told += line.decode()
                if wanted(told):
                    break
    return told


def misspeak(line: CaptionLine) -> None:
    """All that a caption must not be, with words in it."""
    for message in (
        f'{{"start_ms": 0, "end_ms": 1, "text": "{SPOKEN[2]}"',
        json.dumps({"start_ms": SPOKEN[2], "end_ms": 1, "text": SPOKEN[2]}),
        json.dumps({"start_ms": 0, "end_ms": 1, "text": SPOKEN[2], "language": SPOKEN[2] * 9}),
        json.dumps({"start_ms": 0, "end_ms": 1, "text": SPOKEN[2] * 300}),
        json.dumps({SPOKEN[2]: 1}),
        json.dumps(SPOKEN[2]),
        SPOKEN[2].encode(),
    ):
        line._channel.send(message)


async def refusals(http: aiohttp.ClientSession, url: str, offer: str, tokens: Sequence[str]) -> list[str]:
    """Bodies and challenges of requests that are wrong in the marked places."""
    room, name, other = NAMED
    sdp = offer.replace("s=-", f"s={other}")
    requests: list[tuple[str, str, str | bytes | None, dict[str, str]]] = [
        ("POST", f"/whip/{room}?participant={name}&token={tokens[0]}", sdp, {}),
        ("POST", f"/whip/{room}%20{name}", sdp, {}),
        ("POST", f"/whip/{room}?participant={name}%2f", sdp, {}),
        ("POST", f"/whip/{room}?purpose={other}%20", sdp, {}),
        ("POST", f"/whip/{room}?consent={other}%20", sdp, {}),
        ("POST", f"/whip/{room}?participant={name}", other, {}),
        ("POST", f"/whip/{room}?participant={name}", f"v=0\r\n{other}\r\n", {}),
        ("POST", f"/whip/{room}", sdp.replace("a=setup:actpass", f"a=setup:{other}"), {}),
        ("POST", f"/whip/{room}", sdp.replace("typ host", f"typ {other}"), {}),
        ("POST", f"/whip/{room}", sdp.replace("a=mid:0", f"a=mid:0\r\na=candidate:{other}"), {}),
        ("POST", f"/whip/{room}", sdp.replace("a=fingerprint:sha-256", f"a=fingerprint:{other}"), {}),
        ("POST", f"/whip/{room}", sdp.replace("a=sctp-port:5000", f"a=sctp-port:{other}"), {}),
        ("PATCH", f"/whip/sessions/{name}", other, FRAGMENT),
        ("DELETE", f"/whip/sessions/{name}", None, {}),
        ("GET", f"/v1/sessions/{name}/events", None, {}),
        ("GET", f"/v1/sessions/{room}%20/events", None, {}),
        ("GET", f"/v1/sessions/{room}/events?from={other}", None, {}),
        ("GET", f"/v1/sessions/{room}/ws?final={other}", None, {}),
        ("GET", f"/v1/rooms/{room}%20", None, {}),
        ("GET", f"/v1/rooms/{room}/mesh?participant={name}%20", None, {}),
    ]
    wrong = [(*requests[n], token) for n in WITHOUT_A_RIGHT_TOKEN for token in (None, *tokens[1:])]
    said = []
    for method, path, body, headers, token in [*((*request, tokens[0]) for request in requests), *wrong]:
        sent = SDP | headers | ({"Authorization": f"Bearer {token}"} if token else {})
        async with http.request(method, URL(url + path, encoded=True), data=body, headers=sent) as answer:
            assert answer.status >= 400 or token == tokens[0]  # an offer is taken that is merely odd
            said.append(await answer.text() + answer.headers.get("WWW-Authenticate", ""))
    return said


async def test_nothing_of_anybody_comes_out_by_another_way_than_events(
    settings: Settings,
    redis_client: Client,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    room, name, _ = NAMED
    sound = signed(room=room, purpose="demo")
    tokens = [
        sound,
        sound[:-6],
        signed(room=name),
        signed(room=room, actions=["subscribe"], purpose=NAMED[2]),
        signed("another-secret-of-thirty-two-bytes-or-more", room=room),
        signed(room=room, exp=1),
        raw({"alg": "none"}, {"room": room, "sub": name}),
        STATIC + "x",
        "quokkastatic",
    ]

    def make_extractor(modality: Modality, config: Settings) -> Extractor:
        return Breaking() if modality == "audio" else Words(config.text)

    monkeypatch.setattr(roles, "make_extractor", make_extractor)
    overheard = Overheard(caplog.records)
    caplog.set_level(logging.DEBUG)
    offer = await offer_of()
    async with running(settings) as url, aiohttp.ClientSession() as http:
        overheard.bodies += await refusals(http, url, offer, tokens)
        whip = URL(f"{url}/whip/{room}").with_query(participant=name, purpose="demo", consent="1")
        async with calling(whip, [], sound) as line:
            line.send(Caption(0.0, 0.4, f"I said {SPOKEN[0]}."))
            misspeak(line)
            line.send(Caption(1.0, 1.4, f"And {SPOKEN[1]}."))
            await until(lambda: line.refused == 7, "seven captions refused")
            stream = f"{url}/v1/sessions/{room}/events?from=0&final=1"
            told = await heard(http, stream, sound, lambda text: SPOKEN[0] in text)
            with pytest.raises(SignalingError) as refused:
                async with calling(whip.update_query(purpose="research"), [], STATIC):
                    pass
            overheard.bodies.append(str(refused.value))
            mesh = f"{url}/v1/rooms/{room}/mesh?participant={name}"
            for message in (SPOKEN[2], json.dumps({"to": name, "data": SPOKEN[2], SPOKEN[2]: 1})):
                async with http.ws_connect(mesh, protocols=subprotocols(sound)) as ws:
                    await ws.receive(timeout=5)
                    await ws.send_str(message)
                    await ws.receive(timeout=5)
        # What lies in Redis and is none of ours is told by its kind.
        for stream in (settings.redis.keys.inbox(0), settings.redis.keys.segments(0)):
            for broken in (f'{{"text": "{SPOKEN[2]}"', f'{{"text": ["{SPOKEN[2]}"], "session_id": "s"}}'):
                await redis_client.xadd(stream, {"v": "1", "type": "transcript", "head": broken})
        await until(lambda: sum("dead letters" in text for text in caplog.messages) >= 4, "dead letters")
    metrics = telemetry.render().decode()

    assert name in told and SPOKEN[0] in told  # so they did go all the way
    assert "RuntimeError" in "".join(caplog.messages) and "features refused" in "".join(caplog.messages)
    assert 'outcome="malformed"' in metrics and len(overheard.bodies) > 50
    marks = [*SPOKEN, *NAMED, SECRET, STATIC]
    marks += [part for token in tokens for part in token.split(".") if len(part) > 40]
    ours, others = "\n".join(overheard.lines(ours=True)), "\n".join(overheard.lines(ours=False))
    assert len(ours) > 1000
    for mark in marks:
        assert mark not in ours, [line for line in ours.splitlines() if mark in line][:3]
        assert mark not in metrics
        assert mark not in "".join(overheard.bodies), [body for body in overheard.bodies if mark in body][:3]
    # Other libraries tell more at DEBUG, from which the program keeps them; never what was said.
    for mark in SPOKEN:
        assert mark not in others, [line for line in others.splitlines() if mark in line][:3]
    loud = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    for mark in marks:
        assert mark not in "".join(loud)


def test_a_level_is_for_our_own_loggers() -> None:
    """aiortc and aioice tell addresses and ICE passwords of clients at DEBUG and INFO."""
    root = logging.getLogger()
    loggers = [root, *(logging.getLogger(name) for name in OURS)]
    before = [logger.level for logger in loggers]
    try:
        set_up_logging("DEBUG")
        assert logging.getLogger("realtime.whip").isEnabledFor(logging.DEBUG)
        assert not logging.getLogger("aioice.ice").isEnabledFor(logging.INFO)
        set_up_logging("ERROR")
        assert not logging.getLogger("aioice.ice").isEnabledFor(logging.WARNING)
        assert not logging.getLogger("realtime.whip").isEnabledFor(logging.WARNING)
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
