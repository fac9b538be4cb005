"""The publisher: a recording becomes a call, with the truth about its time; errors are one line."""

from __future__ import annotations

import asyncio
import threading
import time
import wave
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from aiohttp import web

from realtime.errors import CmathStreamError, MediaError, SettingsError, SignalingError
from realtime.messages import SAMPLE_RATE_HZ, Caption
from realtime.publish import publish
from realtime.server import IngestConfig
from tests.calls import serving
from tests.fake_rooms import FakeRooms, FakeSeat

TONES = ((0.3, 0.6, 600.0), (0.9, 1.2, 1500.0))  # start, end, Hz
LENGTH_S = 1.5


def tones(rate: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    t = np.arange(round(LENGTH_S * rate)) / rate
    return sum(
        (0.5 * np.sin(2 * np.pi * hz * t) * ((t >= a) & (t < b)) for a, b, hz in TONES), np.zeros(len(t))
    )


@pytest.fixture
def wav(tmp_path: Path) -> Path:
    path = tmp_path / "tones.wav"
    with wave.open(str(path), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(22_050)
        out.writeframes((tones(22_050) * 32_767).astype("<i2").tobytes())
    return path


@pytest.fixture
def movie(tmp_path: Path) -> Path:
    """White while there is a tone, black otherwise."""
    path = tmp_path / "tones.mp4"
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=25)
        audio = container.add_stream("aac", rate=44_100)
        video.width, video.height, video.pix_fmt = 960, 540, "yuv420p"
        audio.layout = "mono"
        for n in range(round(LENGTH_S * 25)):
            bright = any(a <= n / 25 < b for a, b, _ in TONES)
            rgb = np.full((540, 960, 3), 230 if bright else 20, np.uint8)
            container.mux(video.encode(av.VideoFrame.from_ndarray(rgb, format="rgb24")))
        pcm = tones(44_100).astype(np.float32)
        for start in range(0, len(pcm), 1024):
            frame = av.AudioFrame.from_ndarray(pcm[None, start : start + 1024], format="fltp", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = 44_100, start, Fraction(1, 44_100)
            container.mux(audio.encode(frame))
        container.mux(video.encode())
        container.mux(audio.encode())
    return path


def tone_times(seat: FakeSeat, hz: float) -> tuple[float, float]:
    """Session time in which a tone is heard."""
    start_s, pcm = seat.sound()
    block = 160
    t = np.arange(block) / SAMPLE_RATE_HZ
    wave_ = np.exp(-2j * np.pi * hz * t)
    power = np.abs(pcm[: len(pcm) // block * block].reshape(-1, block) @ wave_) / block
    heard = np.nonzero(power > 0.1)[0]
    return start_s + heard[0] * block / SAMPLE_RATE_HZ, start_s + (heard[-1] + 1) * block / SAMPLE_RATE_HZ


async def test_a_wav_is_heard_as_it_is_and_dated_truly(wav: Path) -> None:
    rooms = FakeRooms()
    progress: list[tuple[float, float | None]] = []
    captions = [Caption(0.9, 1.2, "second"), Caption(0.3, 0.6, "first", "en"), Caption(90, 91, "late")]
    async with serving(rooms) as url:
        report = await publish(
            wav,
            f"{url}/whip/room",
            participant="ann",
            captions=captions,
            on_progress=lambda sent_s, all_s: progress.append((sent_s, all_s)),
        )
    (seat,) = rooms.seats
    assert (seat.participant_id, seat.left) == ("ann", "hangup")
    assert seat.offered == {"audio": True, "video": False, "captions": True}
    zero_s = report.session_offset_ms / 1000
    for start_s, end_s, hz in TONES:
        heard = tone_times(seat, hz)
        assert heard == pytest.approx((zero_s + start_s, zero_s + end_s), abs=0.03)
    session_zero_unix_s = time.time() - (time.monotonic() - rooms.zero_s)
    assert report.media_start_unix_s - session_zero_unix_s == pytest.approx(zero_s, abs=0.04)
    assert report.duration_s == pytest.approx(LENGTH_S, abs=0.021)
    assert seat.audio[-1].end_s - seat.audio[0].start_s == pytest.approx(LENGTH_S + 1.0, abs=0.2)

    assert [caption.text for caption in seat.captions] == ["first", "second", "late"]
    assert seat.captions[0].start_s == pytest.approx(zero_s + 0.3, abs=0.02)
    assert (report.captions_sent, report.captions_refused, report.truncated) == (3, 0, None)
    assert progress[0][0] == 0.0 and progress[0][1] == pytest.approx(LENGTH_S)
    assert progress[-1][0] == pytest.approx(LENGTH_S + 1.0, abs=0.021)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("publish")]


async def test_a_movie_is_seen_and_heard_together(movie: Path) -> None:
    rooms = FakeRooms()
    config = IngestConfig(loopback_only=True, video_fps=10.0)
    async with serving(rooms, config) as url:
        report = await publish(movie, f"{url}/whip/room", participant="bob")
    (seat,) = rooms.seats
    assert seat.offered["video"] and len(seat.pictures) >= 10
    decoder = av.VideoCodecContext.create("mjpeg", "r")
    bright = {
        picture.at_ms / 1000: decoder.decode(av.Packet(picture.jpeg))[0].to_ndarray(format="rgb24").mean()
        > 120
        for picture in seat.pictures
    }
    for start_s, _, hz in TONES:
        heard = tone_times(seat, hz)
        assert heard[0] - report.session_offset_ms / 1000 == pytest.approx(
            start_s, abs=0.06
        )  # AAC smears onsets
        for at_s, is_bright in bright.items():  # 66 ms: the publisher's frame interval
            if heard[0] + 0.1 < at_s < heard[1] - 0.1:
                assert is_bright
    assert not all(bright.values())
    assert report.pictures_late == 0


async def test_audio_only_leaves_the_pictures(movie: Path) -> None:
    rooms = FakeRooms()
    async with serving(rooms) as url:
        await publish(movie, f"{url}/whip/room", participant="bob", audio_only=True)
    assert not rooms.seats[0].offered["video"] and not rooms.seats[0].pictures


async def test_several_files_are_several_participants(wav: Path) -> None:
    rooms = FakeRooms()
    async with serving(rooms) as url:
        calls = [publish(wav, f"{url}/whip/room", participant=name) for name in ("ann", "bob")]
        reports = await asyncio.gather(*calls)
    assert {seat.participant_id for seat in rooms.seats} == {"ann", "bob"}
    assert [report.participant for report in reports] == ["ann", "bob"]


async def test_refused_captions_are_counted(wav: Path) -> None:
    rooms = FakeRooms()
    async with serving(rooms) as url:
        report = await publish(
            wav, f"{url}/whip/room", participant="ann", captions=[Caption(0.1, 0.2, "x" * 2001)]
        )
    assert (report.captions_sent, report.captions_refused) == (1, 1)


# ---- errors, in one line -------------------------------------------------------------------------


async def test_no_server(wav: Path) -> None:
    with pytest.raises(CmathStreamError, match=r"no WHIP server answers at http://127\.0\.0\.1:9") as caught:
        await publish(wav, "http://127.0.0.1:9/whip/room", participant="ann")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("url", ["", "room", "ftp://host/x", "http://"])
async def test_no_url(wav: Path, url: str) -> None:
    with pytest.raises(SettingsError, match="not an http"):
        await publish(wav, url, participant="ann")


async def test_a_refusal_shows_the_servers_sentence(wav: Path) -> None:
    rooms = FakeRooms()
    async with serving(rooms, IngestConfig(token="a-token-of-sixteen-or-more", loopback_only=True)) as url:
        with pytest.raises(SignalingError, match="room name is 1 to 64") as caught:
            await publish(
                wav, f"{url}/whip/bad%20room", participant="ann", token="a-token-of-sixteen-or-more"
            )
        assert caught.value.status == 400
        with pytest.raises(SignalingError, match="a valid bearer token is needed") as caught:
            await publish(wav, f"{url}/whip/room", participant="ann", token="wrong")
        assert caught.value.status == 401


@pytest.mark.parametrize(("status", "body"), [(404, "gone"), (500, "{}"), (200, "ok"), (201, "no location")])
async def test_not_a_whip_server(wav: Path, status: int, body: str) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=status, text=body)

    app = web.Application()
    app.router.add_post("/whip/room", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        with pytest.raises(SignalingError):
            await publish(wav, f"http://127.0.0.1:{runner.addresses[0][1]}/whip/room", participant="ann")
    finally:
        await runner.cleanup()


async def test_a_server_that_ends_the_call(wav: Path) -> None:
    rooms = FakeRooms()
    async with serving(rooms) as url:
        call = asyncio.create_task(publish(wav, f"{url}/whip/room", participant="ann"))
        await rooms.until(lambda: rooms.seats and rooms.seats[0].audio)
        again = asyncio.create_task(publish(wav, f"{url}/whip/room", participant="ann"))
        with pytest.raises(CmathStreamError, match="ended the connection after"):
            await call
        await again
    assert [seat.left for seat in rooms.seats] == ["replaced", "hangup"]


async def test_a_cancelled_call_hangs_up(wav: Path) -> None:
    rooms = FakeRooms()
    async with serving(rooms) as url:
        call = asyncio.create_task(publish(wav, f"{url}/whip/room", participant="ann"))
        await rooms.until(lambda: rooms.seats and rooms.seats[0].audio)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await rooms.until(lambda: rooms.seats[0].left)


async def test_unreadable_media_and_speeds(tmp_path: Path, wav: Path) -> None:
    noise = tmp_path / "noise.wav"
    noise.write_bytes(b"this is no sound")
    for path in (noise, tmp_path / "nothing.wav"):
        with pytest.raises(MediaError):
            await publish(path, "http://127.0.0.1:9/whip/room", participant="ann")
    with pytest.raises(SettingsError, match="speed 1"):
        await publish(wav, "http://127.0.0.1:9/whip/room", participant="ann", speed=2.0)
