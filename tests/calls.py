"""Real calls on loopback: an ingest server, an aiortc client, and proof that nothing is left of either."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import aiohttp
import av
import numpy as np
from aiohttp import web
from aiortc import MediaStreamTrack, RTCDataChannel, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError

from realtime.ice import IceWatch, new_connection
from realtime.seats import Rooms
from realtime.server import IngestConfig, make_app

SDP = {"Content-Type": "application/sdp"}
FRAGMENT = {"Content-Type": "application/trickle-ice-sdpfrag"}
PACKET = 960
RATE_HZ = 48_000


@asynccontextmanager
async def serving(rooms: Rooms, config: IngestConfig | None = None) -> AsyncIterator[str]:
    """An ingest server on a free port; afterwards no task of it is left."""
    runner = web.AppRunner(make_app(rooms, config or IngestConfig(loopback_only=True)))
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        yield f"http://{host}:{port}"
    finally:
        await runner.cleanup()
    await quiet()


async def quiet() -> None:
    """Until no task of a peer is left. aiortc's `__connect` ends up to 20 ms after its connection closed."""

    def ours(task: asyncio.Task[object]) -> bool:
        named = task.get_name().startswith(("peer ", "audio of ", "video of ", "close peer"))
        return named or "RTCPeerConnection.__connect" in repr(task.get_coro())

    await until(lambda: not any(map(ours, asyncio.all_tasks())), "no task of a peer left")


async def until(condition: Callable[[], object], what: str, timeout_s: float = 10.0) -> None:
    """Poll a condition that nothing announces."""
    try:
        async with asyncio.timeout(timeout_s):
            while not condition():  # noqa: ASYNC110 - nobody could set an event for it
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"never: {what}; tasks: {asyncio.all_tasks()}") from None


class ToneTrack(MediaStreamTrack):
    """A sine in real time; `jump` leaves out packets as a sender with DTX does."""

    kind = "audio"

    def __init__(self, tone_hz: float = 440.0, jump: dict[int, int] | None = None) -> None:
        super().__init__()
        self.tone_hz = tone_hz  # 0 = muted: silence is still sent
        self.sent = 0
        self._jump = jump or {}  # after packet n: leave out so many
        self._at = 0  # packets of time gone by
        self._start_s: float | None = None

    async def recv(self) -> av.AudioFrame:
        if self.readyState != "live":
            raise MediaStreamError
        loop = asyncio.get_running_loop()
        self._start_s = loop.time() if self._start_s is None else self._start_s
        await asyncio.sleep(max(self._start_s + (self._at + 1) * PACKET / RATE_HZ - loop.time(), 0))
        t = (self._at * PACKET + np.arange(PACKET)) / RATE_HZ
        pcm = (8000 * np.sin(2 * math.pi * self.tone_hz * t)).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(pcm[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = RATE_HZ, self._at * PACKET, Fraction(1, RATE_HZ)
        self._at += 1 + self._jump.get(self.sent, 0)
        self.sent += 1
        return frame


class GreyTrack(MediaStreamTrack):
    """Plain pictures of one size at `fps`."""

    kind = "video"

    def __init__(self, fps: float = 30.0, size: tuple[int, int] = (320, 240)) -> None:
        super().__init__()
        self._fps = fps
        self._size = size
        self._sent = 0
        self._start_s: float | None = None

    async def recv(self) -> av.VideoFrame:
        if self.readyState != "live":
            raise MediaStreamError
        loop = asyncio.get_running_loop()
        self._start_s = loop.time() if self._start_s is None else self._start_s
        await asyncio.sleep(max(self._start_s + self._sent / self._fps - loop.time(), 0))
        width, height = self._size
        rgb = np.full((height, width, 3), 120, np.uint8)
        frame = av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(format="yuv420p")
        frame.pts, frame.time_base = round(self._sent * 90_000 / self._fps), Fraction(1, 90_000)
        self._sent += 1
        return frame


@dataclass
class Call:
    """A client's end of a call."""

    pc: RTCPeerConnection
    channel: RTCDataChannel | None
    watch: IceWatch
    http: aiohttp.ClientSession
    resource: str = ""
    response_headers: dict[str, str] = field(default_factory=dict)
    answer: str = ""
    messages: list[dict[str, Any]] = field(default_factory=list)

    async def ready(self) -> None:
        """Until the server has told its clock."""
        await until(lambda: self.messages, "clock message")

    def say(self, **fields: object) -> None:
        """Send a caption message."""
        assert self.channel is not None
        self.channel.send(json.dumps(fields))

    def vanish(self) -> None:
        """Go as a machine goes whose network is cut: no goodbye, no answer to anything."""
        for protocol in self.watch._connection._protocols:
            protocol.transport.sendto = lambda *args: None  # type: ignore[method-assign]


def client(
    *tracks: MediaStreamTrack, captions: bool = True
) -> tuple[RTCPeerConnection, RTCDataChannel | None, IceWatch]:
    """A sending peer connection, not yet connected."""
    pc = new_connection(())
    for track in tracks:
        pc.addTransceiver(track, "sendonly")
    channel = pc.createDataChannel("captions") if captions else None
    return pc, channel, IceWatch(pc, "only")


async def offer_of(*tracks: MediaStreamTrack, captions: bool = True) -> str:
    """A sound offer whose client is gone."""
    pc, _, _ = client(*tracks, captions=captions)
    await pc.setLocalDescription(await pc.createOffer())
    sdp = pc.localDescription.sdp
    await pc.close()
    return sdp


@asynccontextmanager
async def calling(
    url: str,
    *tracks: MediaStreamTrack,
    captions: bool = True,
    prepare: Callable[[RTCPeerConnection], None] = lambda _: None,
) -> AsyncIterator[Call]:
    """A call to a WHIP URL; closed at the end, without a DELETE. `prepare` sees the connection first."""
    pc, channel, watch = client(*tracks, captions=captions)
    prepare(pc)
    async with aiohttp.ClientSession() as http:
        call = Call(pc, channel, watch, http)
        if channel is not None:
            channel.on("message", lambda message: call.messages.append(json.loads(message)))
        try:
            await pc.setLocalDescription(await pc.createOffer())
            async with http.post(url, data=pc.localDescription.sdp, headers=SDP) as response:
                call.answer = await response.text()
                assert response.status == 201, call.answer
                call.response_headers = dict(response.headers)
                call.resource = str(response.url.origin()) + response.headers["Location"]
            await pc.setRemoteDescription(RTCSessionDescription(call.answer, "answer"))
            yield call
        finally:
            await pc.close()
            for track in tracks:
                track.stop()
