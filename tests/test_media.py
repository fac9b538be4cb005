"""Sound at exact times and pictures at a steady rate, whatever the frames."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import pytest

from realtime.media import MAX_SIDE_PX, AudioNormaliser, VideoSampler
from realtime.messages import SAMPLE_RATE_HZ, AudioChunk, Pcm


def frame(
    start_s: float, length_s: float = 0.02, *, rate: int = 48_000, layout: str = "stereo"
) -> av.AudioFrame:
    """A piece of a 440 Hz sine that runs through all frames."""
    t = start_s + np.arange(round(length_s * rate)) / rate
    mono = (10_000 * np.sin(2 * np.pi * 440 * t)).astype(np.int16)
    channels = {"mono": 1, "stereo": 2, "5.1": 6}[layout]
    made = av.AudioFrame.from_ndarray(np.repeat(mono, channels)[None], format="s16", layout=layout)
    made.sample_rate, made.pts, made.time_base = rate, 0, Fraction(1, rate)
    return made


def joined(chunks: list[AudioChunk]) -> Pcm:
    for before, after in zip(chunks, chunks[1:], strict=False):
        assert after.start_s == pytest.approx(before.end_s, abs=1e-9)  # sample-exact
    return np.concatenate([chunk.pcm for chunk in chunks])


def is_sine(pcm: Pcm, start_s: float = 0.0) -> bool:
    t = start_s + np.arange(len(pcm)) / SAMPLE_RATE_HZ
    return bool(np.corrcoef(pcm, np.sin(2 * np.pi * 440 * t))[0, 1] > 0.98)


@pytest.mark.parametrize(
    ("rate", "layout"), [(48_000, "stereo"), (44_100, "mono"), (8_000, "mono"), (48_000, "5.1")]
)
def test_any_layout_and_rate_becomes_mono_16_khz_without_loss(rate: int, layout: str) -> None:
    normaliser = AudioNormaliser()
    chunks = [
        c for n in range(50) for c in normaliser.push(frame(n / 50, rate=rate, layout=layout), 3 + n / 50)
    ]
    chunks += normaliser.flush()
    pcm = joined(chunks)
    assert chunks[0].start_s == 3.0
    assert abs(len(pcm) - SAMPLE_RATE_HZ) <= 2
    assert pcm.dtype == np.float32 and is_sine(pcm[200:-200], 200 / SAMPLE_RATE_HZ)
    assert 0.2 < np.abs(pcm).max() < 1.1
    assert (normaliser.filled_ms, normaliser.lost_ms, normaliser.dropped_ms) == (0, 0, 0)


def test_a_hole_is_filled_with_exactly_its_length() -> None:
    normaliser = AudioNormaliser()
    chunks = [c for n in [0, 1, 2, 8, 9] for c in normaliser.push(frame(n / 50), n / 50)] + normaliser.flush()
    pcm = joined(chunks)
    assert abs(len(pcm) - 0.2 * SAMPLE_RATE_HZ) <= 2
    assert normaliser.filled_ms == pytest.approx(100, abs=0.1)
    assert not pcm[970:2550].any()
    assert is_sine(pcm[2600:-20], 2600 / SAMPLE_RATE_HZ)


@pytest.mark.parametrize("packet_s", [0.01, 0.02, 0.06])
def test_one_lost_packet_is_a_hole(packet_s: float) -> None:
    normaliser = AudioNormaliser()
    for n in [0, 1, 2, 4]:
        normaliser.push(frame(n * packet_s, packet_s), n * packet_s)
    assert normaliser.filled_ms == pytest.approx(packet_s * 1000, abs=0.2)


def test_a_long_hole_starts_a_new_chunk_at_its_true_time() -> None:
    normaliser = AudioNormaliser(fill_s=1.0)
    first = normaliser.push(frame(0), 10.0)
    after = normaliser.push(frame(5), 15.0)
    assert after[0].end_s == pytest.approx(10.02, abs=1e-6)  # the rest of the resampler
    assert after[1].start_s == 15.0
    assert normaliser.lost_ms == pytest.approx(4980, abs=0.1)
    assert first[0].start_s == 10.0


def test_holes_can_be_left_open() -> None:
    normaliser = AudioNormaliser(fill_s=0.0)
    normaliser.push(frame(0), 0.0)
    assert [c.start_s for c in normaliser.push(frame(0.04), 0.04)][-1] == 0.04
    assert normaliser.filled_ms == 0 and normaliser.lost_ms == pytest.approx(20, abs=0.1)


def test_wobble_of_the_clock_does_not_reach_the_samples() -> None:
    normaliser = AudioNormaliser()
    wobble_s = [0.0, 0.003, -0.004, 0.002, -0.001] * 10
    chunks = [c for n, w in enumerate(wobble_s) for c in normaliser.push(frame(n / 50), n / 50 + w)]
    assert is_sine(joined(chunks + normaliser.flush()))
    assert normaliser.filled_ms == normaliser.dropped_ms == 0


def test_a_repeated_frame_is_dropped_and_an_overlap_is_cut() -> None:
    normaliser = AudioNormaliser()
    chunks = [c for n in [0, 1, 2, 1, 3] for c in normaliser.push(frame(n / 50), n / 50)]
    assert normaliser.dropped_ms == pytest.approx(20)
    chunks += normaliser.push(frame(0.07), 0.07)  # its first half was there
    pcm = joined(chunks + normaliser.flush())
    assert normaliser.dropped_ms == pytest.approx(30, abs=0.1)
    assert abs(len(pcm) - 0.09 * SAMPLE_RATE_HZ) <= 20


def test_a_change_of_format_goes_on_without_a_seam() -> None:
    normaliser = AudioNormaliser()
    chunks = [c for n in range(5) for c in normaliser.push(frame(n / 50), n / 50)]
    chunks += [
        c for n in range(5, 10) for c in normaliser.push(frame(n / 50, rate=8000, layout="mono"), n / 50)
    ]
    pcm = joined(chunks + normaliser.flush())
    assert abs(len(pcm) - 0.2 * SAMPLE_RATE_HZ) <= 4


def test_nothing_pushed_nothing_flushed() -> None:
    assert AudioNormaliser().flush() == []


def picture(width: int = 1280, height: int = 720, grey: int = 120) -> av.VideoFrame:
    rgb = np.full((height, width, 3), grey, np.uint8)
    return av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(format="yuv420p")


def decoded(jpeg: bytes) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    frames = av.VideoCodecContext.create("mjpeg", "r").decode(av.Packet(jpeg))
    return frames[0].to_ndarray(format="rgb24").astype(np.uint8)


@pytest.mark.parametrize("source_fps", [5, 7, 12, 15, 25, 30, 60])
def test_the_rate_is_kept_whatever_the_source(source_fps: float) -> None:
    sampler = VideoSampler(5)
    taken = [n / source_fps for n in range(round(20 * source_fps)) if sampler.due(n / source_fps)]
    assert 90 <= len(taken) <= 101  # the average is kept but for rates just above it
    assert np.diff(taken).min() >= 0.1 - 1e-6


def test_irregular_times_never_exceed_the_rate() -> None:
    times = np.cumsum(np.random.default_rng(0).exponential(0.04, 2000))
    sampler = VideoSampler(5)
    taken = np.array([t for t in times if sampler.due(t)])
    assert all(((taken >= t) & (taken < t + 1)).sum() <= 6 for t in taken)
    assert len(taken) > 4.3 * times[-1]


def test_a_pause_earns_no_burst() -> None:
    sampler = VideoSampler(5)
    sampler.due(0.0)
    taken = [t for t in (60 + n / 30 for n in range(30)) if sampler.due(t)]
    assert len(taken) <= 6


def test_a_clock_set_back_does_not_stop_the_pictures() -> None:
    sampler = VideoSampler(5)
    assert sampler.due(100.0) and sampler.due(3.0) and not sampler.due(3.1)


@pytest.mark.parametrize(
    ("size", "scaled"),
    [((1280, 720), (640, 360)), ((720, 1280), (360, 640)), ((320, 240), (320, 240)), ((1919, 3), (640, 16))],
)
def test_pictures_are_small_jpegs(size: tuple[int, int], scaled: tuple[int, int]) -> None:
    made = VideoSampler().push(picture(*size), 1.25)
    assert made is not None and made.at_ms == 1250
    assert made.jpeg[:3] == b"\xff\xd8\xff"
    assert decoded(made.jpeg).shape[1::-1] == scaled
    assert max(scaled) <= MAX_SIDE_PX


def test_grey_stays_the_same_grey_also_when_the_size_changes() -> None:
    sampler = VideoSampler()
    for n, (grey, width) in enumerate([(0, 640), (60, 640), (200, 320), (255, 640)]):
        made = sampler.push(picture(width, 360, grey), float(n))
        assert made is not None
        assert decoded(made.jpeg).mean() == pytest.approx(grey, abs=2)


def test_frames_that_are_not_due_give_nothing() -> None:
    sampler = VideoSampler()
    assert sampler.push(picture(), 0.0) is not None
    assert sampler.push(picture(), 0.05) is None
