"""Real calls: what a publisher sends is what its seat gets, and nothing stays behind."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, suppress

import numpy as np
import pytest

from realtime import telemetry
from realtime.alignment import Alignment
from realtime.caption_channel import MAX_MESSAGE_BYTES, MAX_TEXT_CHARS, caption_message, parse_caption
from realtime.errors import SignalingError
from realtime.ice import new_connection
from realtime.incoming_video import IncomingVideo
from realtime.media import SLACK_S, VideoSampler
from realtime.messages import SAMPLE_RATE_HZ, Caption
from realtime.sdp import check_offer
from realtime.server import IngestConfig
from realtime.webrtc import Peer, PeerConfig
from tests.calls import GreyTrack, ToneTrack, calling, offer_of, quiet, serving, until
from tests.fake_rooms import FakeRooms, FakeSeat
from tests.test_sdp import AUDIO, DATA, VIDEO, offer


def heard_s(seat: FakeSeat) -> float:
    return sum(len(chunk.pcm) for chunk in seat.audio) / SAMPLE_RATE_HZ


async def test_a_tone_arrives_in_pitch_in_time_and_without_seams() -> None:
    rooms = FakeRooms()
    async with serving(rooms) as url, calling(f"{url}/whip/room", ToneTrack(440.0)):
        await rooms.until(lambda: rooms.seats and heard_s(rooms.seats[0]) > 1.0)
    seat = rooms.seats[0]
    assert seat.left == "closed"
    start_s, pcm = seat.sound()
    for before, after in zip(seat.audio, seat.audio[1:], strict=False):
        assert after.start_s == pytest.approx(before.end_s, abs=1e-6)
    tone = pcm[1600 : 1600 + SAMPLE_RATE_HZ // 2]
    spectrum = np.abs(np.fft.rfft(tone * np.hanning(len(tone))))
    assert np.argmax(spectrum) * SAMPLE_RATE_HZ / len(tone) == pytest.approx(440, abs=4)
    # Nothing is held back: a packet is in hand when its last sample has been spoken, and is dated so.
    delays_s = [at - chunk.end_s for at, chunk in zip(seat.audio_at_s, seat.audio, strict=True)]
    assert -0.01 < float(np.median(delays_s)) < 0.04


async def test_a_muted_track_goes_on_as_silence() -> None:
    rooms = FakeRooms()
    async with serving(rooms) as url, calling(f"{url}/whip/room", ToneTrack(0.0)):
        await rooms.until(lambda: rooms.seats and heard_s(rooms.seats[0]) > 0.4)
    assert np.abs(rooms.seats[0].sound()[1]).max() < 0.01


async def test_what_a_sender_leaves_out_is_silence_of_the_right_length() -> None:
    rooms = FakeRooms()
    track = ToneTrack(440.0, jump={20: 25})  # 0.5 s in which nothing is sent
    async with serving(rooms) as url, calling(f"{url}/whip/room", track):
        await rooms.until(lambda: rooms.seats and heard_s(rooms.seats[0]) > 0.8)
    chunks = rooms.seats[0].audio
    assert all(b.start_s - a.end_s < 0.001 for a, b in zip(chunks, chunks[1:], strict=False))
    silent = np.concatenate([chunk.pcm for chunk in chunks]) == 0.0
    assert silent.sum() / SAMPLE_RATE_HZ == pytest.approx(0.5, abs=SLACK_S)


async def test_a_removed_track_ends_quietly_and_the_call_goes_on() -> None:
    rooms = FakeRooms()
    async with serving(rooms) as url, calling(f"{url}/whip/room", ToneTrack(), GreyTrack()) as call:
        await call.ready()
        await rooms.until(lambda: rooms.seats[0].audio and rooms.seats[0].pictures)
        await call.pc.getSenders()[0].stop()
        seen = len(rooms.seats[0].pictures)
        await rooms.until(lambda: len(rooms.seats[0].pictures) > seen + 1)
        call.say(start_ms=0, end_ms=10, text="still here")
        await rooms.until(lambda: rooms.seats[0].captions)
        assert rooms.seats[0].left is None


async def test_pictures_are_sampled_and_small() -> None:
    rooms = FakeRooms()
    track = GreyTrack(30.0, (1280, 720))
    config = IngestConfig(loopback_only=True, video_fps=4.0)
    async with serving(rooms, config) as url, calling(f"{url}/whip/room", track, captions=True):
        await rooms.until(lambda: rooms.seats and len(rooms.seats[0].pictures) >= 5)
    at_ms = [picture.at_ms for picture in rooms.seats[0].pictures]
    assert np.diff(at_ms) == pytest.approx(250, abs=40)
    assert all(picture.jpeg[:2] == b"\xff\xd8" for picture in rooms.seats[0].pictures)


async def test_sound_and_picture_share_one_time_line() -> None:
    rooms = FakeRooms()
    async with serving(rooms) as url, calling(f"{url}/whip/room", ToneTrack(), GreyTrack()):
        await rooms.until(lambda: rooms.seats and heard_s(rooms.seats[0]) > 1.5)
        seat = rooms.seats[0]
        ages_s = [at - c.end_s for at, c in zip(seat.audio_at_s, seat.audio, strict=True)]
        assert float(np.median(ages_s[-20:])) < 0.05
        picture_age_s = [at - p.at_ms / 1000 for at, p in zip(seat.picture_at_s, seat.pictures, strict=True)]
        assert 0.02 < min(picture_age_s) < 0.1  # held for one frame, then compressed


async def test_a_slow_picture_thread_drops_pictures_and_nothing_else() -> None:
    rooms = FakeRooms()
    seat = await rooms.join("room", "ann", captions=False, audio=True, video=True, purpose=None)
    dropped = telemetry.FRAMES_DROPPED_TOTAL.labels(kind="video", reason="busy")
    before = dropped._value.get()
    release = threading.Event()
    pc, track = new_connection(()), GreyTrack()
    receiver = pc.addTransceiver("video").receiver
    with ThreadPoolExecutor(1) as pictures:
        pictures.submit(release.wait)
        video = IncomingVideo(track, receiver, seat, Alignment(), VideoSampler(), pictures)
        running = asyncio.create_task(video.run())
        await until(lambda: dropped._value.get() >= before + 2, "dropped pictures")
        release.set()
        track.stop()
        await rooms.until(lambda: seat.pictures)
        await running
    await pc.close()


# ---- captions --------------------------------------------------------------------------------------


async def test_captions_come_in_order_on_the_session_clock() -> None:
    rooms = FakeRooms()
    async with serving(rooms) as url, calling(f"{url}/whip/room", ToneTrack()) as call:
        await call.ready()
        await rooms.until(lambda: rooms.seats[0].audio)
        await until(lambda: len(call.messages) >= 2, "the clock again, fixed by the first audio")
        for n in range(20):
            call.say(start_ms=n * 100, end_ms=n * 100 + 90.5, text=f" word {n} ", language="en-GB")
        await rooms.until(lambda: len(rooms.seats[0].captions) == 20)
        offset_s = call.messages[-1]["session_offset_ms"] / 1000
    seat = rooms.seats[0]
    assert {message["type"] for message in call.messages} == {"clock"}
    assert offset_s == pytest.approx(seat.audio[0].start_s, abs=0.03)
    assert [caption.text for caption in seat.captions] == [f"word {n}" for n in range(20)]
    assert seat.captions[3].language == "en-GB"
    assert seat.captions[3].start_s == pytest.approx(offset_s + 0.3, abs=0.011)
    assert seat.captions[3].end_s == pytest.approx(offset_s + 0.3905, abs=0.011)


async def test_words_only_count_from_the_opening_of_the_channel() -> None:
    rooms = FakeRooms()
    async with serving(rooms) as url, calling(f"{url}/whip/room") as call:
        await call.ready()
        offset_s = call.messages[0]["session_offset_ms"] / 1000
        call.say(start_ms=500, end_ms=900, text="no voice")
        await rooms.until(lambda: rooms.seats[0].captions)
    assert rooms.seats[0].offered == {"audio": False, "video": False, "captions": True}
    assert rooms.seats[0].captions[0].start_s == pytest.approx(offset_s + 0.5, abs=0.001)
    assert 0 < offset_s < 2


async def test_malformed_captions_are_answered_and_harm_nothing() -> None:
    rooms = FakeRooms()
    counted = telemetry.CAPTIONS_TOTAL.labels(outcome="malformed")
    before = counted._value.get()
    async with serving(rooms) as url, calling(f"{url}/whip/room") as call:
        await call.ready()
        assert call.channel is not None
        call.channel.send(b"\x00\x01")
        for message in ["{", "[]", "x" * 60_000]:
            call.channel.send(message)
        call.say(start_ms=5, end_ms=4, text="backwards")
        call.say(start_ms=0, end_ms=4, text="fine")
        await rooms.until(lambda: rooms.seats[0].captions)
        await until(lambda: len(call.messages) == 6, "five errors")
    errors = [message for message in call.messages if message["type"] == "error"]
    assert len(errors) == 5 and all(error["detail"] for error in errors)
    assert counted._value.get() == before + 5
    assert [caption.text for caption in rooms.seats[0].captions] == ["fine"]


@pytest.mark.parametrize(
    "message",
    [
        "",
        "null",
        "1",
        "{}",
        '{"start_ms":0,"end_ms":1}',
        '{"start_ms":0,"end_ms":1,"text":""}',
        '{"start_ms":0,"end_ms":1,"text":"  "}',
        '{"start_ms":0,"end_ms":1,"text":3}',
        '{"start_ms":NaN,"end_ms":1,"text":"a"}',
        '{"start_ms":0,"end_ms":Infinity,"text":"a"}',
        '{"start_ms":0,"end_ms":1e999,"text":"a"}',
        '{"start_ms":true,"end_ms":1,"text":"a"}',
        '{"start_ms":"0","end_ms":1,"text":"a"}',
        '{"start_ms":-1,"end_ms":1,"text":"a"}',
        '{"start_ms":2,"end_ms":1,"text":"a"}',
        '{"start_ms":0,"end_ms":86400001,"text":"a"}',
        '{"start_ms":0,"end_ms":1' + "0" * 400 + ',"text":"a"}',
        '{"start_ms":0,"end_ms":1,"text":"a","language":"e"}',
        '{"start_ms":0,"end_ms":1,"text":"a","language":7}',
        '{"start_ms":0,"end_ms":1,"text":"a","more":7}',
        '{"start_ms":0,"end_ms":1,"text":"half a pair \\ud800"}',
        '{"start_ms":0,"end_ms":1,"text":"' + "a" * (MAX_TEXT_CHARS + 1) + '"}',
        '{"start_ms":0,"end_ms":1,"text":"' + "\u20ac" * 1500 + '"}',
        "[" * 4000,
        "a" * (MAX_MESSAGE_BYTES + 1),
    ],
)
def test_bad_captions(message: str) -> None:
    with pytest.raises(ValueError, match=r"\w") as caught:
        parse_caption(message, 0.0)
    assert len(str(caught.value)) < 120


def test_captions_survive_the_way() -> None:
    caption = Caption(1.25, 2.5, "na\u00efve \u20ac", "pt-BR")
    assert parse_caption(caption_message(caption), 0.0) == caption
    assert parse_caption(caption_message(Caption(0.0, 0.0, "x")), 1.0) == Caption(1.0, 1.0, "x")


# ---- the end ---------------------------------------------------------------------------------------


async def test_delete_gives_the_last_audio_before_the_seat_is_left() -> None:
    rooms = FakeRooms()
    async with serving(rooms) as url, calling(f"{url}/whip/room", ToneTrack()) as call:
        await rooms.until(lambda: rooms.seats and heard_s(rooms.seats[0]) > 0.3)
        async with call.http.delete(call.resource) as response:
            assert response.status == 200
        assert rooms.seats[0].left == "hangup"  # FakeSeat refuses audio after it
        await until(lambda: call.pc.connectionState == "closed", "the client sees the end")


async def test_a_peer_that_vanishes_is_missed_soon() -> None:
    rooms = FakeRooms()
    config = IngestConfig(loopback_only=True, dead_peer_s=0.4)
    async with serving(rooms, config) as url, calling(f"{url}/whip/room", ToneTrack()) as call:
        await rooms.until(lambda: rooms.seats and heard_s(rooms.seats[0]) > 0.1)
        call.vanish()
        await rooms.until(lambda: rooms.seats[0].left)
        assert rooms.seats[0].left == "lost"


async def test_shutdown_closes_every_peer() -> None:
    rooms = FakeRooms()
    async with AsyncExitStack() as clients:  # they stay: the server must not depend on their goodbye
        async with serving(rooms) as url:
            for call in [calling(f"{url}/whip/a", ToneTrack()), calling(f"{url}/whip/b")]:
                await (await clients.enter_async_context(call)).ready()
        assert [seat.left for seat in rooms.seats] == ["shutdown", "shutdown"]


async def test_close_is_idempotent_and_the_first_reason_counts() -> None:
    rooms = FakeRooms()
    seat = await rooms.join("room", "ann", captions=True, audio=True, video=False, purpose=None)
    gone: list[Peer] = []
    with ThreadPoolExecutor(1) as pictures:
        peer = Peer(seat, PeerConfig(loopback_only=True), pictures, gone.append)
        assert "a=rtcp-mux-only" in await peer.answer(await offer_of(ToneTrack()))
        await asyncio.gather(peer.close("first"), peer.close("second"))
        await peer.close("third")
    await quiet()
    assert (seat.left, gone) == ("first", [peer])


async def test_what_the_offer_check_lets_through_never_breaks_the_answer() -> None:
    rooms = FakeRooms()
    lines = offer(AUDIO, VIDEO, DATA).splitlines()
    mutants = [[*lines[:n], *lines[n + 1 :]] for n in range(len(lines))]
    mutants += [[line.replace("a=msid:s 0", "a=msid:s  ") for line in lines]]
    with ThreadPoolExecutor(1) as pictures:
        for n, mutant in enumerate(mutants):
            try:
                sdp = check_offer("\r\n".join(mutant).encode()).sdp
            except SignalingError:
                continue
            seat = await rooms.join("r", str(n), captions=True, audio=True, video=True, purpose=None)
            peer = Peer(seat, PeerConfig(loopback_only=True), pictures, lambda _: None)
            with suppress(SignalingError):
                assert "a=recvonly" in await peer.answer(sdp)
            await peer.close("test")
    assert len(rooms.seats) > 10
    await quiet()


async def test_joining_and_leaving_leaves_nothing_behind() -> None:
    rooms = FakeRooms()

    def open_things() -> tuple[int, int]:
        return len(os.listdir("/proc/self/fd")), sum("decoder" in t.name for t in threading.enumerate())

    async with serving(rooms) as url:

        async def cycle(n: int) -> None:
            track = ToneTrack()
            async with calling(f"{url}/whip/room", track) as call:
                await call.ready()
                await rooms.until(lambda: rooms.seats[n].audio)
                if n % 2:
                    async with call.http.delete(call.resource):
                        pass
            await rooms.until(lambda: rooms.seats[n].left)

        await cycle(0)
        gc.collect()
        fds, decoders = open_things()
        tasks = len(asyncio.all_tasks())
        for n in range(1, 11):
            await cycle(n)
        gc.collect()
        await until(lambda: len(asyncio.all_tasks()) <= tasks, "tasks gone")
        await until(
            lambda: open_things()[0] <= fds + 1, "files closed"
        )  # the server may keep one HTTP client
        assert open_things()[1] == decoders == 0
