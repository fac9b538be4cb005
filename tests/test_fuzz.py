"""Whatever a client sends is answered or refused: no 500, no task that dies, no harm to another session.

One real server and one real call in it, the witness, live through all examples; offers are mutations of what
real clients sent (tests/offers).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AsyncExitStack
from typing import Any, TypeVar

import aiohttp
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from realtime.caption_channel import parse_caption
from realtime.messages import Caption
from realtime.server import IngestConfig
from tests.calls import FRAGMENT, SDP, Call, ToneTrack, calling, serving
from tests.fake_rooms import FakeRooms
from tests.offers.record import OFFERS

T = TypeVar("T")
CONFIG = IngestConfig(
    loopback_only=True,
    dead_peer_s=120.0,  # the loop stands still while examples are made
    requests_per_s=1e6,
    requests_burst=1_000_000,
)

# ---- what is sent ------------------------------------------------------------------------------------

NASTY = [
    "",
    "0",
    "-1",
    "65536",
    "9" * 40,
    "1e999",
    "NaN",
    "\u0663",
    "\x00",
    "a" * 5000,
    "::1",
    "255.255.255.255",
]
LINES = [
    "m=audio 9 UDP/TLS/RTP/SAVPF",
    "m=video 0 RTP/AVP 96",
    "m=application 9 UDP/DTLS/SCTP webrtc-datachannel",
    "m=",
    "a=mid:",
    "a=group:BUNDLE",
    "a=bundle-only",
    "a=rtpmap:96",
    "a=rtpmap:96 VP8/0",
    "a=fmtp:96 apt=96",
    "a=rtcp-fb:*",
    "a=ssrc:1",
    "a=ssrc-group:FID 1",
    "a=extmap:0 x",
    "a=fingerprint:sha-256 00",
    "a=setup:holdconn",
    "a=candidate:1 1 udp 1 127.0.0.1 9 typ",
    "a=candidate:1 256 udp 1 nowhere.invalid 9 typ relay raddr",
    "a=ice-lite",
    "a=ice-ufrag:abcd",
    "a=simulcast:send 1,~2;3",
    "a=sctp-port:99999",
    "a=max-message-size:-1",
    "\ufeffv=0",
]


@st.composite
def mutated(draw: st.DrawFn, text: str) -> str:
    """A text of lines with a few changes, each of which a bug or a villain could make."""
    lines = text.split("\r\n")
    for _ in range(draw(st.integers(1, 4))):
        if not lines:
            break
        n = draw(st.integers(0, len(lines) - 1))
        match draw(st.sampled_from(["drop", "double", "move", "token", "insert", "cut", "noise"])):
            case "drop":
                del lines[n]
            case "double":
                lines.insert(n, lines[n])
            case "move":
                lines.insert(draw(st.integers(0, len(lines) - 1)), lines.pop(n))
            case "token":
                parts = lines[n].replace(":", ": ").split(" ")
                parts[draw(st.integers(0, len(parts) - 1))] = draw(st.sampled_from(NASTY))
                lines[n] = " ".join(parts).replace(": ", ":")
            case "insert":
                lines.insert(n, draw(st.sampled_from(LINES)))
            case "cut":
                lines = [*lines[:n], lines[n][: draw(st.integers(0, 20))]]
            case "noise":
                lines[n] += draw(st.text(max_size=20))
    return "\r\n".join(lines)


offers = st.sampled_from(sorted(OFFERS.glob("*.sdp"))).flatmap(
    lambda path: mutated(path.read_bytes().decode())
)
bodies = st.one_of(offers.map(lambda text: text.encode(errors="replace")), st.binary(max_size=200))


def fragments(ufrag: str) -> st.SearchStrategy[bytes]:
    """Changes of a sound fragment for the session of `ufrag`."""
    sound = (
        "a=group:BUNDLE 0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:0\r\n"
        f"a=ice-ufrag:{ufrag}\r\na=ice-pwd:x\r\n"
        "a=candidate:1 1 udp 2113937151 127.0.0.1 9 typ host\r\n"
        "a=candidate:2 1 tcp 1518280447 ::1 9 typ host tcptype active\r\na=end-of-candidates\r\n"
    )
    return st.one_of(mutated(sound).map(lambda text: text.encode(errors="replace")), st.binary(max_size=200))


numbers = st.one_of(
    st.integers(), st.floats(), st.sampled_from([10**400, -1, 1e308, 86_400_001, True, None, "5"])
)
values: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, st.text(max_size=30)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)
captions = st.one_of(
    st.binary(max_size=100),
    st.text(max_size=100),
    st.integers(1, 3000).map(lambda depth: "[" * depth + "]" * depth),
    st.integers(1, 500).map(lambda depth: '{"start_ms":' * depth + "0" + "}" * depth),
    values.map(json.dumps),
    st.fixed_dictionaries(
        {},
        optional={"start_ms": numbers, "end_ms": numbers, "text": values, "language": values, "more": values},
    ).map(json.dumps),
)


# ---- to whom -----------------------------------------------------------------------------------------


class World:
    """The server, the witness, and a loop that runs only while an example does."""

    def __init__(self, runner: asyncio.Runner) -> None:
        self.run: Callable[[Coroutine[Any, Any, T]], T] = runner.run
        self.rooms = FakeRooms()
        self.troubles: list[str] = []  # what no one caught
        self.url = ""
        self._stack = AsyncExitStack()
        self.http: aiohttp.ClientSession
        self.witness: Call

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: self.troubles.append(str(context)))
        self.url = await self._stack.enter_async_context(serving(self.rooms, CONFIG))
        self.http = await self._stack.enter_async_context(aiohttp.ClientSession())
        call = calling(f"{self.url}/whip/room?participant=witness", ToneTrack())
        self.witness = await self._stack.enter_async_context(call)
        await self.witness.ready()

    async def stop(self) -> None:
        await self._stack.aclose()

    async def offer(self, body: bytes) -> None:
        """An offer is answered, and can be taken back, or refused for a reason that is the client's."""
        async with self.http.post(f"{self.url}/whip/other", data=body, headers=SDP) as response:
            text = await response.text()
            assert response.status in (201, 400, 413, 422), text
            location = response.headers.get("Location")
        if location is not None:
            async with self.http.delete(self.url + location) as response:
                assert response.status in (200, 404)  # 404: the connection had failed before
        self.check()

    async def fragment(self, body: bytes) -> None:
        """A fragment for the witness is taken or refused, and the witness stays."""
        async with self.http.patch(self.witness.resource, data=body, headers=FRAGMENT) as response:
            assert response.status in (204, 400, 422), await response.text()
        self.check()

    async def say(self, messages: list[str | bytes]) -> None:
        """Messages on the data channel, then one that is sound: it arrives."""
        channel, seat = self.witness.channel, self.rooms.seats[0]
        assert channel is not None
        before = len(seat.captions)
        for message in messages:
            channel.send(message)
        self.witness.say(start_ms=0, end_ms=1, text="the witness speaks")
        await self.rooms.until(
            lambda: [c.text for c in seat.captions[before:]][-1:] == ["the witness speaks"]
        )
        self.check()

    def check(self) -> None:
        """The witness is there and nothing died unseen."""
        assert self.rooms.seats[0].left is None
        assert self.troubles == []


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with asyncio.Runner() as runner:
        here = World(runner)
        runner.run(here.start())
        yield here
        runner.run(here.stop())
    assert here.troubles == []


def few(count: int) -> settings:
    """The same examples in every run."""
    return settings(max_examples=count, deadline=None, derandomize=True, database=None)


def many(count: int) -> settings:
    """Others each time."""
    return settings(max_examples=count, deadline=None, suppress_health_check=list(HealthCheck))


@few(150)
@given(body=bodies)
def test_offers(world: World, body: bytes) -> None:
    world.run(world.offer(body))


@few(150)
@given(data=st.data())
def test_fragments(world: World, data: st.DataObject) -> None:
    world.run(world.fragment(data.draw(fragments(ufrag(world)))))


@few(40)
@given(messages=st.lists(captions, max_size=5))
def test_captions_on_the_channel(world: World, messages: list[str | bytes]) -> None:
    world.run(world.say(messages))


@few(300)
@given(message=captions)
def test_the_caption_parser(message: str | bytes) -> None:
    try:
        caption = parse_caption(message, 1.0)
    except ValueError as error:
        detail = str(error)
        assert detail and "\n" not in detail and len(detail) < 200
    else:
        assert isinstance(caption, Caption)
        assert 1.0 <= caption.start_s <= caption.end_s <= 86_401.0 and caption.text.strip()


@pytest.mark.slow
@pytest.mark.timeout(900)
@many(2000)
@given(body=bodies)
def test_many_offers(world: World, body: bytes) -> None:
    world.run(world.offer(body))


@pytest.mark.slow
@pytest.mark.timeout(900)
@many(2000)
@given(data=st.data())
def test_many_fragments(world: World, data: st.DataObject) -> None:
    world.run(world.fragment(data.draw(fragments(ufrag(world)))))


@pytest.mark.slow
@pytest.mark.timeout(900)
@many(500)
@given(messages=st.lists(captions, max_size=5))
def test_many_captions_on_the_channel(world: World, messages: list[str | bytes]) -> None:
    world.run(world.say(messages))


def ufrag(world: World) -> str:
    """Of the witness's offer."""
    sdp: str = world.witness.pc.localDescription.sdp
    return sdp.partition("a=ice-ufrag:")[2].partition("\r\n")[0]
