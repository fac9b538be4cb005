"""Tracks as clients really send them: other codecs, two channels, other sizes, networks that disturb them."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from fractions import Fraction
from functools import partial

import av
import numpy as np
import pytest
from aiortc import RTCPeerConnection
from aiortc.codecs import get_capabilities
from aiortc.rtp import is_rtcp

from realtime.messages import SAMPLE_RATE_HZ
from tests.calls import PACKET, RATE_HZ, Call, GreyTrack, ToneTrack, calling, serving
from tests.fake_rooms import FakeRooms, FakeSeat

Fate = Callable[[int], float | None]  # the n-th packet of a track: seconds it is held up, None = it is lost


def pitch_hz(seat: FakeSeat) -> float:
    """Strongest frequency of half a second, once all has settled."""
    _, pcm = seat.sound()
    tone = pcm[3200 : 3200 + SAMPLE_RATE_HZ // 2]
    return float(np.argmax(np.abs(np.fft.rfft(tone * np.hanning(len(tone)))))) * SAMPLE_RATE_HZ / len(tone)


def heard_s(seat: FakeSeat) -> float:
    return sum(len(chunk.pcm) for chunk in seat.audio) / SAMPLE_RATE_HZ


def preferring(pc: RTCPeerConnection, kind: str, name: str) -> None:
    """Offer one codec of a kind and no other."""
    (transceiver,) = (each for each in pc.getTransceivers() if each.kind == kind)
    codecs = [c for c in get_capabilities(kind).codecs if c.name.lower() == name]
    transceiver.setCodecPreferences(codecs)


@asynccontextmanager
async def disturbed(call: Call, kind: str, fate: Fate) -> AsyncIterator[None]:
    """Treat the packets of one track as `fate` says; reports pass untouched."""
    (sender,) = (each for each in call.pc.getSenders() if each.kind == kind)
    send = sender.transport._send_rtp
    loop, sent = asyncio.get_running_loop(), 0

    async def later(data: bytes, held_s: float) -> None:
        await asyncio.sleep(held_s)
        with suppress(ConnectionError):  # the call may be over by then
            await send(data)

    async def send_as_told(data: bytes) -> None:
        nonlocal sent
        if is_rtcp(data) or int.from_bytes(data[8:12]) != sender._ssrc:
            return await send(data)
        held_s, sent = fate(sent), sent + 1
        if held_s == 0:
            await send(data)
        elif held_s is not None:
            tasks.add(loop.create_task(later(data, held_s)))

    tasks: set[asyncio.Task[None]] = set()
    sender.transport._send_rtp = send_as_told  # type: ignore[method-assign]
    yield
    sender.transport._send_rtp = send  # type: ignore[method-assign]
    await asyncio.gather(*tasks)


@pytest.mark.parametrize("codec", ["pcmu", "pcma", "g722", "opus"])
async def test_every_audio_codec_is_heard(codec: str) -> None:
    rooms = FakeRooms()
    prefer = partial(preferring, kind="audio", name=codec)
    async with serving(rooms) as url, calling(f"{url}/whip/room", ToneTrack(440.0), prepare=prefer) as call:
        assert codec in call.answer.lower()
        await rooms.until(lambda: rooms.seats and heard_s(rooms.seats[0]) > 1.0)
    assert pitch_hz(rooms.seats[0]) == pytest.approx(440, abs=4)


class StereoTrack(ToneTrack):
    """A tone in the left channel only."""

    async def recv(self) -> av.AudioFrame:
        mono = (await super().recv()).to_ndarray()[0]
        both = np.stack([mono, np.zeros_like(mono)], axis=1).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(both, format="s16", layout="stereo")
        frame.sample_rate, frame.pts, frame.time_base = RATE_HZ, self.sent * PACKET, Fraction(1, RATE_HZ)
        return frame


async def test_two_channels_are_heard_as_one() -> None:
    rooms = FakeRooms()
    async with serving(rooms) as url, calling(f"{url}/whip/room", StereoTrack(440.0)):
        await rooms.until(lambda: rooms.seats and heard_s(rooms.seats[0]) > 1.0)
    assert pitch_hz(rooms.seats[0]) == pytest.approx(440, abs=4)


class TurnedTrack(GreyTrack):
    """A telephone that is turned after a second."""

    async def recv(self) -> av.VideoFrame:
        if self._sent == 30:
            self._size = self._size[1], self._size[0]
        return await super().recv()


@pytest.mark.parametrize("codec", ["vp8", "h264"])
async def test_every_video_codec_is_seen_through_a_change_of_size(codec: str) -> None:
    rooms = FakeRooms()
    prefer = partial(preferring, kind="video", name=codec)

    def sizes() -> set[tuple[int, int]]:
        return {_size(picture.jpeg) for picture in rooms.seats[0].pictures}

    async with serving(rooms) as url, calling(f"{url}/whip/room", TurnedTrack(), prepare=prefer):
        await rooms.until(lambda: rooms.seats and {(320, 240), (240, 320)} <= sizes(), timeout_s=20)


def _size(jpeg: bytes) -> tuple[int, int]:
    with av.open(io.BytesIO(jpeg), "r", format="mjpeg") as container:
        stream = container.streams.video[0]
        return stream.width, stream.height


async def test_video_that_comes_late_joins_the_sound() -> None:
    class Late(GreyTrack):
        async def recv(self) -> av.VideoFrame:
            if self._sent == 0:
                await asyncio.sleep(1.0)
            return await super().recv()

    rooms = FakeRooms()
    async with serving(rooms) as url, calling(f"{url}/whip/room", ToneTrack(), Late()):
        await rooms.until(lambda: rooms.seats and rooms.seats[0].pictures)
        seat = rooms.seats[0]
        assert heard_s(seat) > 0.5  # nobody waited for the picture
        assert seat.picture_at_s[0] - seat.pictures[0].at_ms / 1000 < 0.2


@pytest.mark.parametrize(("late", "skew_s"), [("video", 0.3), ("audio", -0.3)])
async def test_what_the_network_pulled_apart_is_put_together(late: str, skew_s: float) -> None:
    """One track is 300 ms late. After the first reports a picture lies within 40 ms of its sound again.

    A busy machine sends, and so reports, later than it says: it gets three calls to do it in.
    """
    for _ in range(3):
        off_s = await pulled_apart_s(late) - skew_s
        if abs(off_s) <= 0.04:
            return
    pytest.fail(f"{off_s:.3f} s")


async def pulled_apart_s(late: str) -> float:
    """By how much pictures are later than sound in coming, once all is placed; nothing else disturbs them."""
    rooms = FakeRooms()
    async with serving(rooms) as url, calling(f"{url}/whip/room", ToneTrack(), GreyTrack()) as call:
        async with disturbed(call, late, lambda _: 0.3):
            await rooms.until(lambda: rooms.seats and len(rooms.seats[0].pictures) >= 25, timeout_s=20)
            seat = rooms.seats[0]
            heard = list(zip(seat.audio_at_s, seat.audio, strict=True))
            ages_s = [at - p.at_ms / 1000 for at, p in zip(seat.picture_at_s, seat.pictures, strict=True)]
    undisturbed_s = 1 / 30 + 0.005  # a frame is given out when the next begins, and compressed
    assert ages_s[0] == pytest.approx(undisturbed_s, abs=0.25)  # by arrival, as nothing better is known
    # The least of each is how it lies; a busy machine only takes it in later.
    return min(ages_s[-5:]) - undisturbed_s - min(at - chunk.end_s for at, chunk in heard[-50:])


async def test_lost_packets_leave_holes_of_their_length_and_hold_nothing_up() -> None:
    rng = np.random.default_rng(0)
    gone = set(np.flatnonzero(rng.random(400) < 0.05).tolist()) - set(range(5))
    rooms = FakeRooms()
    async with serving(rooms) as url, calling(f"{url}/whip/room", ToneTrack(440.0)) as call:
        async with disturbed(call, "audio", lambda n: None if n in gone else 0.0):
            await rooms.until(lambda: rooms.seats and heard_s(rooms.seats[0]) > 5.0, timeout_s=15)
    seat = rooms.seats[0]
    holes_s = [b.start_s - a.end_s for a, b in zip(seat.audio, seat.audio[1:], strict=False)]
    lost = round(sum(hole for hole in holes_s if hole > 0.001) / 0.02)
    packets = round((seat.audio[-1].end_s - seat.audio[0].start_s) / 0.02)
    assert lost == len([n for n in gone if n < packets])
    delays_s = np.array([at - c.end_s for at, c in zip(seat.audio_at_s, seat.audio, strict=True)])
    assert float(np.percentile(delays_s, 75)) < 0.12


async def test_a_call_on_a_shaky_line_is_heard_whole() -> None:
    """Each packet up to 150 ms late, in any order: nothing is lost, nothing twice."""
    rng = np.random.default_rng(0)
    rooms = FakeRooms()
    async with serving(rooms) as url, calling(f"{url}/whip/room", ToneTrack(440.0)) as call:
        async with disturbed(call, "audio", lambda n: float(rng.uniform(0, 0.15)) if n >= 5 else 0.0):
            await rooms.until(lambda: rooms.seats and heard_s(rooms.seats[0]) > 4.0, timeout_s=15)
    seat = rooms.seats[0]
    holes_s = [b.start_s - a.end_s for a, b in zip(seat.audio, seat.audio[1:], strict=False)]
    assert sum(hole for hole in holes_s if hole > 0.001) <= 0.4  # before it had learned how late they come
    assert pitch_hz(seat) == pytest.approx(440, abs=4)
