"""Encoded media, sent again and again without encoding: so that one core can play a crowd.

The sound is an Opus file's own packets, the pictures are a moving texture that was encoded once. Both loop,
and every loop of the pictures begins with a whole one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np
from aiortc import MediaStreamTrack
from aiortc.mediastreams import MediaStreamError

from realtime.errors import MediaError
from realtime.playing import PACKET_SAMPLES, RATE_HZ, SendClock

WIDTH, HEIGHT = 640, 480
_VIDEO_HZ = 90_000
_LOOP_S = 4  # of pictures
_BITS_PER_S = 800_000  # what a browser spends on a face of this size


@dataclass(frozen=True, slots=True)
class Encoded:
    """A loop of packets of equal duration."""

    kind: Literal["audio", "video"]
    packets: tuple[bytes, ...]
    ticks: int  # duration of each
    rate_hz: int  # ticks a second

    @property
    def period_s(self) -> float:
        """Duration of each packet."""
        return self.ticks / self.rate_hz

    @property
    def duration_s(self) -> float:
        """Of the loop."""
        return len(self.packets) * self.period_s


class PlayedPackets(MediaStreamTrack):
    """`count` packets from number `first` on, each at its moment; `phase_s` moves all moments."""

    def __init__(
        self, media: Encoded, count: int, clock: SendClock, *, first: int = 0, phase_s: float = 0.0
    ) -> None:
        super().__init__()
        self.kind = media.kind
        self.ended = asyncio.Event()
        self.sent_s = 0.0
        self.late_s: list[float] = []  # of each packet
        self._media = media
        self._count = count
        self._clock = clock
        self._first = first
        self._phase_s = phase_s

    async def recv(self) -> av.Packet[Any]:
        """The next packet when it is due: sound when its last sample was spoken. Raises MediaStreamError."""
        sent, media = len(self.late_s), self._media
        if self.readyState != "live" or sent == self._count:
            self.stop()
            self.ended.set()
            raise MediaStreamError
        due_s = self._phase_s + (sent + (media.kind == "audio")) * media.period_s
        await self._clock.wait_until(due_s)
        self.late_s.append(self._clock.now_s() - due_s)
        self.sent_s = due_s
        packet = av.Packet(media.packets[(self._first + sent) % len(media.packets)])
        packet.pts, packet.time_base = sent * media.ticks, Fraction(1, media.rate_hz)
        return packet


def read_sound(path: Path) -> Encoded:
    """The packets of an Ogg Opus file. Raises MediaError unless each lasts 20 ms."""
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        found = [packet for packet in container.demux(stream) if packet.size]
        lengths = {packet.duration * packet.time_base for packet in found[:-1] if packet.duration}
        if stream.codec_context.codec.canonical_name != "opus" or lengths != {
            Fraction(PACKET_SAMPLES, RATE_HZ)
        }:
            raise MediaError(f"{path} is not Opus in packets of 20 ms")
        return Encoded("audio", tuple(bytes(packet) for packet in found), PACKET_SAMPLES, RATE_HZ)


def write_pictures(path: Path, fps: int) -> None:
    """VP8, 640x480, into an IVF file."""
    with av.open(str(path), "w", format="ivf") as container:
        stream = container.add_stream("libvpx", rate=fps)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.bit_rate = _BITS_PER_S
        stream.options = {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "0", "auto-alt-ref": "0"}
        for frame in _texture(fps):
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def read_pictures(path: Path, fps: int) -> Encoded:
    """The packets of a file of `write_pictures`."""
    with av.open(str(path)) as container:
        found = [bytes(packet) for packet in container.demux(container.streams.video[0]) if packet.size]
    return Encoded("video", tuple(found), round(_VIDEO_HZ / fps), _VIDEO_HZ)


def _texture(fps: int) -> Iterator[av.VideoFrame]:
    """A soft pattern that drifts: neither a still picture nor noise, which no camera sees."""
    coarse = np.random.default_rng(0).integers(40, 216, (HEIGHT // 16, WIDTH // 8, 3), np.uint8)
    wide = av.VideoFrame.from_ndarray(coarse, format="rgb24").reformat(2 * WIDTH, HEIGHT, format="rgb24")
    scene = wide.to_ndarray().astype(np.uint8)  # [H, 2 W, 3]
    for n in range(_LOOP_S * fps):
        left = round(WIDTH / 4 * (1 + np.sin(2 * np.pi * n / (_LOOP_S * fps))))
        view = np.ascontiguousarray(scene[:, left : left + WIDTH])
        yield av.VideoFrame.from_ndarray(view, format="rgb24").reformat(format="yuv420p")
