"""A recording as the tracks of a call: sound in packets of 20 ms and pictures, each at its moment.

Decoding runs in a thread, one frame ahead of its time. Both tracks share one `SendClock`, so that they
stay together however long the connection took to come up.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import Executor
from fractions import Fraction
from pathlib import Path

import av
import av.container
import numpy as np
from aiortc import MediaStreamTrack
from aiortc.mediastreams import MediaStreamError
from numpy.typing import NDArray

from realtime.media import MAX_SIDE_PX, AudioNormaliser, VideoSampler

RATE_HZ = 48_000  # Opus
PACKET_SAMPLES = 960  # 20 ms
TAIL_S = 1.0  # silence after the end, so that the last utterance ends and the last packets arrive

_VIDEO_FPS = 15.0  # three times what the server keeps; more costs encoding time and shows nothing new
_VIDEO_HZ = 90_000
_LATE_S = 0.2  # a video frame this late is left out: sound must not suffer for it


class SendClock:
    """When file time zero was, once it has been."""

    def __init__(self) -> None:
        self.unix_s = 0.0  # wall-clock time of file time zero
        self._zero_s = 0.0
        self._started = asyncio.Event()

    def start(self) -> None:
        """File time zero is now."""
        self.unix_s, self._zero_s = time.time(), time.monotonic()
        self._started.set()

    def now_s(self) -> float:
        """File time that is due now."""
        return time.monotonic() - self._zero_s

    async def wait_until(self, file_s: float) -> None:
        """Until this moment of the file."""
        await self._started.wait()
        await asyncio.sleep(max(file_s - self.now_s(), 0.0))


class PlayedSound(MediaStreamTrack):
    """The first sound track of a file as 48 kHz mono."""

    kind = "audio"

    def __init__(self, path: Path, clock: SendClock, decoding: Executor) -> None:
        super().__init__()
        self.ended = asyncio.Event()
        self.sent_s = 0.0  # of file and tail
        self.truncated: str | None = None
        self._clock = clock
        self._decoding = decoding
        self._packets = self._read(path)
        self._packet = 0

    @property
    def duration_s(self) -> float:
        """Seconds of the file that were sent."""
        return max(self.sent_s - TAIL_S, 0.0)

    async def recv(self) -> av.AudioFrame:
        """The next packet, when its last sample is due. Raises MediaStreamError at the end."""
        if self.readyState != "live":
            raise MediaStreamError
        packet = await asyncio.get_running_loop().run_in_executor(self._decoding, next, self._packets, None)
        if packet is None:
            self.stop()
            self.ended.set()
            raise MediaStreamError
        end_s = (self._packet + 1) * PACKET_SAMPLES / RATE_HZ
        await self._clock.wait_until(end_s)
        frame = av.AudioFrame.from_ndarray(packet[None], format="s16", layout="mono")
        frame.sample_rate = RATE_HZ
        frame.pts, frame.time_base = self._packet * PACKET_SAMPLES, Fraction(1, RATE_HZ)
        self._packet += 1
        self.sent_s = end_s
        return frame

    def _read(self, path: Path) -> Iterator[NDArray[np.int16]]:  # of [PACKET_SAMPLES]
        held = np.zeros(0, np.float32)
        taken = 0  # samples of the file so far, with `held`
        for start_s, pcm in self._decode(path):
            hole = np.zeros(max(round(start_s * RATE_HZ) - taken, 0), np.float32)
            held = np.concatenate([held, hole, pcm])
            taken += len(hole) + len(pcm)
            whole = len(held) // PACKET_SAMPLES * PACKET_SAMPLES
            yield from _int16(held[:whole]).reshape(-1, PACKET_SAMPLES)
            held = held[whole:]
        tail = np.zeros(PACKET_SAMPLES * -(-len(held) // PACKET_SAMPLES) - len(held), np.float32)
        yield from _int16(np.concatenate([held, tail])).reshape(-1, PACKET_SAMPLES)
        silence = np.zeros(PACKET_SAMPLES, np.int16)
        for _ in range(round(TAIL_S * RATE_HZ / PACKET_SAMPLES)):
            yield silence

    def _decode(self, path: Path) -> Iterator[tuple[float, NDArray[np.float32]]]:
        normaliser = AudioNormaliser(rate_hz=RATE_HZ)
        end_s = 0.0
        try:
            with av.open(str(path)) as container:
                zero_s = _zero_s(container)
                for frame in container.decode(container.streams.audio[0]):
                    start_s = end_s if frame.time is None else max(frame.time - zero_s, 0.0)
                    end_s = start_s + frame.samples / frame.sample_rate
                    for chunk in normaliser.push(frame, start_s):
                        yield chunk.start_s, chunk.pcm
        except av.FFmpegError as error:
            self.truncated = f"{path} is readable only in part: {error.strerror}"
        for chunk in normaliser.flush():
            yield chunk.start_s, chunk.pcm


class PlayedPicture(MediaStreamTrack):
    """The first video track of a file, made small, at most `_VIDEO_FPS`."""

    kind = "video"

    def __init__(self, path: Path, clock: SendClock, decoding: Executor) -> None:
        super().__init__()
        self.late = 0
        self._clock = clock
        self._decoding = decoding
        self._frames = _read_video(path)

    async def recv(self) -> av.VideoFrame:
        """The next frame, when it is due. Raises MediaStreamError at the end."""
        loop = asyncio.get_running_loop()
        while self.readyState == "live":
            found = await loop.run_in_executor(self._decoding, next, self._frames, None)
            if found is None:
                self.stop()
                break
            at_s, frame = found
            await self._clock.wait_until(at_s)
            if self._clock.now_s() - at_s > _LATE_S:
                self.late += 1
                continue
            frame.pts, frame.time_base = round(at_s * _VIDEO_HZ), Fraction(1, _VIDEO_HZ)
            return frame
        raise MediaStreamError


def _read_video(path: Path) -> Iterator[tuple[float, av.VideoFrame]]:
    sampler = VideoSampler(_VIDEO_FPS)
    try:
        with av.open(str(path)) as container:
            zero_s = _zero_s(container)
            for frame in container.decode(container.streams.video[0]):
                if frame.time is None or not sampler.due(at_s := max(frame.time - zero_s, 0.0)):
                    continue
                scale = min(1.0, MAX_SIDE_PX / max(frame.width, frame.height))
                width, height = (max(round(side * scale / 2) * 2, 2) for side in (frame.width, frame.height))
                yield at_s, frame.reformat(width=width, height=height, format="yuv420p")
    except av.FFmpegError:
        return  # a damaged picture ends the pictures, not the call


def _zero_s(container: av.container.InputContainer) -> float:
    return (container.start_time or 0) / av.time_base


def _int16(pcm: NDArray[np.float32]) -> NDArray[np.int16]:
    return (np.clip(pcm, -1.0, 1.0) * 32767).astype(np.int16)
