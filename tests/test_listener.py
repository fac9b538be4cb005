"""Exact frames, holes filled and counted; loud voice without words is heard, clicks and noise are not."""

from __future__ import annotations

import numpy as np
import pytest

from realtime.listener import Listener, hear
from realtime.loudness import EVIDENCE, LoudVoice
from realtime.messages import SAMPLE_RATE_HZ, AudioChunk
from realtime.segmenter import HeardFrame
from realtime.vad import FRAME_SAMPLES, VadModel, VoiceActivity, judge


@pytest.fixture(scope="module")
def model() -> VadModel:
    return VadModel()


def heard(model: VadModel, chunks: list[AudioChunk]) -> list[HeardFrame]:
    listener = Listener(stall_s=0.5)
    return [frame for chunk in chunks for frame in hear(model, [(listener, chunk)])[0]]


def ramp(start_s: float, seconds: float) -> AudioChunk:
    first, count = round(start_s * SAMPLE_RATE_HZ), round(seconds * SAMPLE_RATE_HZ)
    return AudioChunk(np.arange(first, first + count, dtype=np.float32) * 1e-6, start_s)


def test_frames_are_exact_whatever_the_pieces(model: VadModel) -> None:
    pieces, at_s = [], 0.0
    for seconds in [0.02] * 20 + [0.005, 0.3, 0.001]:
        pieces.append(ramp(at_s, seconds))
        at_s += seconds
    frames = heard(model, pieces)
    whole = heard(model, [ramp(0.0, at_s)])
    assert len(frames) == len(whole) == int(at_s * SAMPLE_RATE_HZ) // 512
    for a, b in zip(frames, whole, strict=True):
        assert a.chunk.start_s == pytest.approx(b.chunk.start_s) and a.p == b.p
        assert np.array_equal(a.chunk.pcm, b.chunk.pcm)


def test_several_are_heard_together_as_each_alone(model: VadModel) -> None:
    rng = np.random.default_rng(0)
    voices = [
        rng.standard_normal(20 * FRAME_SAMPLES).astype(np.float32) * level for level in (0.3, 0.02, 0.1)
    ]
    together = [Listener(0.5) for _ in voices]
    got: list[list[HeardFrame]] = [[] for _ in voices]
    for at in range(0, len(voices[0]), 1280):  # 2.5 frames: in every round some complete two and others three
        chunks = [
            AudioChunk(pcm[at + n * 160 : at + 1280 + n * 160], at / 16000) for n, pcm in enumerate(voices)
        ]
        for n, frames in enumerate(hear(model, list(zip(together, chunks, strict=True)))):
            got[n] += frames
    for n, pcm in enumerate(voices):
        alone = heard(model, [AudioChunk(pcm[n * 160 :], 0.0)])
        assert [frame.p for frame in got[n]] == [frame.p for frame in alone][: len(got[n])]
        assert len(got[n]) >= 19


def test_a_participant_that_is_heard_with_others_forgets_alone(model: VadModel) -> None:
    rng = np.random.default_rng(1)
    pcm = rng.standard_normal(4 * FRAME_SAMPLES).astype(np.float32) * 0.1
    stays, restarts = VoiceActivity(), VoiceActivity()
    first = judge(model, [(stays, pcm), (restarts, pcm)])
    restarts.reset()
    second = judge(model, [(stays, pcm), (restarts, pcm), (VoiceActivity(), pcm)])
    assert np.array_equal(second[1], second[2]) and np.array_equal(second[1], first[0])
    assert not np.array_equal(second[0], second[1])
    with pytest.raises(ValueError, match="512"):
        judge(model, [(stays, pcm[:500])])


def test_a_small_hole_is_filled_exactly_and_counted(model: VadModel) -> None:
    frames = heard(model, [ramp(0.0, 0.2), ramp(0.26, 0.4)])
    assert sum(frame.lost_s for frame in frames) == pytest.approx(0.06)
    pcm = np.concatenate([frame.chunk.pcm for frame in frames])
    assert pcm[round(0.3 * SAMPLE_RATE_HZ)] == pytest.approx(0.3 * SAMPLE_RATE_HZ * 1e-6)
    # In it: the sound before it, backwards first so that there is no jump, and fading.
    hole, before = pcm[3200:4160], pcm[3200 - 320 : 3200]
    assert np.allclose(hole[:320], before[::-1] * np.linspace(1, 0, 960)[:320], atol=1e-6)
    assert abs(hole[-1]) < 1e-5


def test_after_a_long_hole_frames_start_at_the_true_time(model: VadModel) -> None:
    frames = heard(model, [ramp(0.0, 0.2), ramp(5.0, 0.2)])
    assert sum(frame.lost_s for frame in frames) == 0.0
    assert frames[6].chunk.start_s == 5.0


def test_repeated_audio_is_heard_once(model: VadModel) -> None:
    frames = heard(model, [ramp(0.0, 0.3), ramp(0.1, 0.5)])
    pcm = np.concatenate([frame.chunk.pcm for frame in frames])
    assert np.allclose(np.diff(pcm), 1e-6, atol=1e-8)


def test_loud_voice_can_be_switched_off(model: VadModel) -> None:
    rng = np.random.default_rng(0)
    burst = rng.standard_normal(2 * SAMPLE_RATE_HZ).astype(np.float32) * 0.03
    burst[:SAMPLE_RATE_HZ] *= 0.01
    chunk = AudioChunk(burst, 0.0)
    for nonverbal in (True, False):
        (frames,) = hear(model, [(Listener(0.5, nonverbal=nonverbal), chunk)])
        assert any(frame.p == EVIDENCE for frame in frames) is nonverbal


def share_of_voice(pcm: np.ndarray) -> float:
    loud = LoudVoice()
    return float(np.mean([loud.push(pcm[i : i + 512]) == EVIDENCE for i in range(0, len(pcm) - 511, 512)]))


def test_a_loud_burst_over_a_quiet_room_is_voice() -> None:
    rng = np.random.default_rng(0)
    room = rng.standard_normal(8 * SAMPLE_RATE_HZ).astype(np.float32) * 3e-4
    burst = room.copy()
    burst[3 * SAMPLE_RATE_HZ : 4 * SAMPLE_RATE_HZ] *= 100
    assert share_of_voice(room) == 0.0
    assert share_of_voice(burst) == pytest.approx(1 / 8, abs=0.02)


def test_clicks_and_steady_noise_are_not() -> None:
    rng = np.random.default_rng(0)
    clicks = rng.standard_normal(8 * SAMPLE_RATE_HZ).astype(np.float32) * 1e-4
    for at in range(4000, len(clicks) - 400, 2700):
        clicks[at : at + 320] += rng.standard_normal(320) * 0.3 * np.exp(-np.arange(320) / 80)
    assert share_of_voice(clicks) == 0.0
    steady = rng.standard_normal(30 * SAMPLE_RATE_HZ).astype(np.float32) * 0.03
    assert share_of_voice(steady) == 0.0
