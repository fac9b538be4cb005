"""Recordings: exact times through codecs and rates, holes, channels, and files that are broken."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from realtime.errors import MediaError
from realtime.messages import SAMPLE_RATE_HZ, AudioChunk, Pcm
from realtime.recording import BLOCK_SAMPLES, Recording

Sound = NDArray[np.float32]  # [C, T]


def burst(rate_hz: int, length_s: float = 3.0, at_s: float = 1.0) -> Pcm:
    """Silence with one rounded 500 Hz burst of 0.2 s."""
    t = np.arange(round(rate_hz * length_s)) / rate_hz - at_s
    inside = (t >= 0) & (t < 0.2)
    tone = 0.5 * np.sin(2 * np.pi * 500 * t) * np.sin(np.pi * t / 0.2) ** 2
    return np.where(inside, tone, 0).astype(np.float32)


def write(
    path: Path,
    sound: Sound,
    rate_hz: int,
    codec: str = "pcm_s16le",
    hole_s: float = 0.0,
    pictures: int = 0,
    to: io.BytesIO | None = None,
) -> Path:
    """Encode `sound` [C, T]; with `hole_s`, the time stamps of the second half lie that much later."""
    layout = "mono" if len(sound) == 1 else "stereo"
    with av.open(to or str(path), "w", format=path.suffix[1:] if to else None) as container:
        audio = container.add_stream(codec, rate=rate_hz, layout=layout)
        assert isinstance(audio, av.AudioStream)
        if pictures:
            _film(container, pictures)
        fitting = av.AudioResampler(audio.format.name, layout, rate_hz, frame_size=audio.frame_size or 1024)
        pcm = np.ascontiguousarray((sound * 32767).astype(np.int16).T.reshape(1, -1))
        frame = av.AudioFrame.from_ndarray(pcm, format="s16", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = rate_hz, 0, Fraction(1, rate_hz)
        for part in (*fitting.resample(frame), *fitting.resample(None)):
            if part.pts is not None and part.pts >= sound.shape[1] / 2:
                part.pts += round(hole_s * rate_hz)
            container.mux(audio.encode(part))
        container.mux(audio.encode(None))
    return path


def _film(container: Any, pictures: int) -> None:
    video = container.add_stream("mpeg4", rate=25)
    video.width = video.height = 64
    for number in range(pictures):
        frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), number, np.uint8), format="rgb24")
        frame.pts = number
        container.mux(video.encode(frame))
    container.mux(video.encode(None))


def read(path: Path, channel: int | None = None) -> list[AudioChunk]:
    return list(Recording.open(path).audio(channel))


@pytest.mark.parametrize(
    ("name", "codec", "rate_hz", "tolerance"),
    [
        ("a.wav", "pcm_s16le", 16_000, 1e-4),
        ("a.wav", "pcm_s16le", 8_000, 1e-3),
        ("a.wav", "pcm_s16le", 44_100, 1e-3),
        ("a.flac", "flac", 48_000, 1e-3),
        ("a.ogg", "libopus", 48_000, 0.02),
        ("a.webm", "libopus", 48_000, 0.02),
        ("a.m4a", "aac", 44_100, 0.02),
        ("a.mkv", "aac", 48_000, 0.02),
    ],
)
def test_sound_lies_where_it_was_through_every_codec_and_rate(
    tmp_path: Path, name: str, codec: str, rate_hz: int, tolerance: float
) -> None:
    """Codecs put padding before the sound and say so; none of it may shift the clock."""
    chunks = read(write(tmp_path / name, burst(rate_hz)[None], rate_hz, codec))
    heard = np.concatenate([chunk.pcm for chunk in chunks])
    expected = burst(SAMPLE_RATE_HZ)
    assert len(heard) == pytest.approx(len(expected), abs=0.03 * SAMPLE_RATE_HZ)
    shared = min(len(heard), len(expected))
    np.testing.assert_allclose(heard[:shared], expected[:shared], atol=tolerance)


def test_blocks_are_half_a_second_and_follow_each_other_without_a_gap(tmp_path: Path) -> None:
    chunks = read(write(tmp_path / "a.wav", burst(16_000, 1.7)[None], 16_000))
    assert [len(chunk.pcm) for chunk in chunks] == [BLOCK_SAMPLES] * 3 + [3_200]
    assert [chunk.start_s for chunk in chunks] == [0.0, 0.5, 1.0, 1.5]
    assert chunks[0].pcm.dtype == np.float32


def test_mix_and_channels(tmp_path: Path) -> None:
    left, right = burst(48_000, at_s=0.5), burst(48_000, at_s=2.0)
    path = write(tmp_path / "a.wav", np.stack([left, right]), 48_000)
    assert Recording.open(path).channels == 2
    one, two, mix = (np.concatenate([c.pcm for c in read(path, channel)]) for channel in (0, 1, None))
    np.testing.assert_allclose(one, burst(16_000, at_s=0.5), atol=1e-3)
    np.testing.assert_allclose(two, burst(16_000, at_s=2.0), atol=1e-3)
    share = np.abs(mix).max() / np.abs(one + two).max()
    assert 0.5 - 1e-3 <= share <= 0.5**0.5 + 1e-3  # by amplitude or by power
    np.testing.assert_allclose(mix, share * (one + two), atol=1e-3)
    with pytest.raises(MediaError, match="no channel 2"):
        read(path, 2)


def test_planar_channels_too(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mkv", np.stack([burst(48_000), 0 * burst(48_000)]), 48_000, "aac")
    heard = np.concatenate([chunk.pcm for chunk in read(path, 0)])
    np.testing.assert_allclose(heard[: 3 * 16_000], burst(16_000), atol=0.03)


@pytest.mark.parametrize("hole_s", [0.4, 5.0])
def test_a_hole_in_the_time_stamps_keeps_what_follows_at_its_time(tmp_path: Path, hole_s: float) -> None:
    path = write(tmp_path / "a.mkv", burst(16_000, at_s=2.0)[None], 16_000, hole_s=hole_s)
    chunks = read(path)
    line = np.zeros(round((chunks[-1].end_s + 0.1) * 16_000), np.float32)
    for chunk in chunks:
        start = round(chunk.start_s * 16_000)
        line[start : start + len(chunk.pcm)] = chunk.pcm
    expected = burst(16_000, 3.0 + hole_s, at_s=2.0 + hole_s)
    heard_at, expected_at = (np.flatnonzero(np.abs(sound) > 0.1)[[0, -1]] for sound in (line, expected))
    np.testing.assert_allclose(heard_at, expected_at, atol=16)  # 1 ms, as exact as Matroska's time stamps


def test_pictures_at_most_fps_a_second_on_the_same_clock(tmp_path: Path) -> None:
    recording = Recording.open(write(tmp_path / "a.mkv", burst(16_000)[None], 16_000, pictures=50))
    assert recording.has_video
    pictures = list(recording.pictures(5.0))
    assert [picture.at_ms for picture in pictures] == [200 * number for number in range(10)]
    assert all(picture.jpeg.startswith(b"\xff\xd8") for picture in pictures)


def test_a_sound_file_has_no_pictures(tmp_path: Path) -> None:
    recording = Recording.open(write(tmp_path / "a.flac", burst(16_000)[None], 16_000, "flac"))
    assert not recording.has_video
    assert list(recording.pictures()) == []
    assert recording.duration_s == pytest.approx(3.0)
    assert recording.truncated is None


def _missing(path: Path) -> None:
    """No such file."""


def _empty(path: Path) -> None:
    path.touch()


def _folder(path: Path) -> None:
    path.mkdir()


def _words(path: Path) -> None:
    path.write_text("I am not a recording. " * 50)


def _silent_film(path: Path) -> None:
    with av.open(str(path), "w", format="matroska") as container:
        _film(container, 5)


def _beheaded(path: Path) -> None:
    whole = write(path.with_suffix(".mp4"), burst(48_000)[None], 48_000, "aac").read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


def _playlist(path: Path) -> None:
    path.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n")


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (_missing, "does not exist"),
        (_empty, "is empty"),
        (_folder, "is not a file"),
        (_words, "is not a media file"),
        (_silent_film, "has no audio"),
        (_beheaded, "an MP4 file whose end is missing"),
        (_playlist, "is not a media file"),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_line(tmp_path: Path, make: Any, reason: str) -> None:
    path = tmp_path / "input.bin"
    make(path)
    with pytest.raises(MediaError) as caught:
        Recording.open(path)
    assert reason in str(caught.value)
    assert "input.bin" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "codec"), [("a.flac", "flac"), ("a.wav", "pcm_s16le")])
def test_a_file_cut_in_the_middle_gives_what_is_there_and_says_so(
    tmp_path: Path, name: str, codec: str
) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, (1, 5 * 16_000)).astype(np.float32)
    path = write(tmp_path / name, noise, 16_000, codec)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    recording = Recording.open(path)
    end_s = [chunk.end_s for chunk in recording.audio()][-1]
    assert 2.0 < end_s < 3.0
    assert recording.truncated is not None
    assert name in recording.truncated


def test_damage_in_the_middle_does_not_move_what_follows(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, (1, 5 * 16_000)).astype(np.float32)
    path = write(tmp_path / "a.flac", noise, 16_000, "flac")
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 4000] = bytes(4000)
    path.write_bytes(bytes(data))
    last = read(path)[-1]
    start = round(last.start_s * 16_000)
    np.testing.assert_allclose(last.pcm, noise[0, start : start + len(last.pcm)], atol=1e-4)


def test_real_recordings_open_and_end_where_they_say(data_dir: Path) -> None:
    for name in ("two_person_call/sample.flac", "two_voice/test.opus", "grid/bbaf2n.mpg"):
        recording = Recording.open(data_dir / "clips" / name)
        assert recording.duration_s is not None
        assert [chunk.end_s for chunk in recording.audio()][-1] == pytest.approx(
            recording.duration_s, abs=0.02
        )
        assert recording.truncated is None


def test_talking_faces_give_pictures(data_dir: Path) -> None:
    recording = Recording.open(data_dir / "clips/talkers/WDA_KatieHill_000.mp4")
    assert len(list(recording.pictures(5.0))) == 40
