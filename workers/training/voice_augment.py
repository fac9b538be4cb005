"""What happens to a voice on its way to an encoder: other rooms, lines, microphones and voices. Seeded."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass, replace

import av
import numpy as np

from realtime.messages import Pcm
from workers.sound import trimmed
from workers.training.ravdess import Clip, decode
from workers.voice_encoder import RATE_HZ

Rng = np.random.Generator
CONDITIONS = ("clean", "telephone", "opus", "noise")


@dataclass(frozen=True, slots=True)
class Augmentation:
    """What a clip goes through; chances are per version of a clip."""

    versions: int = 10  # of each clip in the bank
    untouched: float = 0.2  # chance of nothing below but speed
    speed: float = 1.15  # resampling, either way
    tempo: float = 1.15  # without a change of pitch, on log-mels
    tilt_db: float = 3.0  # per octave, deviation
    ripple_db: float = 4.0  # of a smooth random response, deviation
    band: float = 0.3  # chance of a telephone-like band
    low_pass: float = 0.2  # chance of a codec-like low-pass
    opus: float = 0.12  # chance of a true Opus round trip
    reverb: float = 0.25
    noise: float = 0.5
    noise_db: tuple[float, ...] = (5.0, 30.0)
    clip: float = 0.1
    time_masks: int = 2
    time_mask: int = 12  # frames at most
    band_masks: int = 2
    band_mask: int = 8  # mel bands at most
    mixup: float = 0.3  # of the beta distribution; 0 = none


def opus_round_trip(pcm: Pcm, bit_rate: int) -> Pcm:
    """[S] -> [S] as a call would hear it: libopus, 20 ms packets, mono."""
    store = io.BytesIO()
    with av.open(store, "w", format="ogg") as container:
        stream = container.add_stream("libopus", rate=RATE_HZ, layout="mono", options={"application": "voip"})
        stream.bit_rate = bit_rate
        frame = av.AudioFrame.from_ndarray(pcm[None], format="flt", layout="mono")
        frame.sample_rate = RATE_HZ
        to_s16 = av.AudioResampler("s16", "mono", RATE_HZ)
        for piece in [*to_s16.resample(frame), None]:
            container.mux(stream.encode(piece))
    store.seek(0)
    heard = decode(store)[: len(pcm)]
    return np.pad(heard, (0, len(pcm) - len(heard)))


def telephone(pcm: Pcm) -> Pcm:
    """[S] -> [S] with 300 to 3400 Hz left, as 8 kHz sampling leaves it."""
    spectrum = np.fft.rfft(pcm)
    hz = np.fft.rfftfreq(len(pcm), 1.0 / RATE_HZ)
    return np.fft.irfft(np.where((hz >= 300.0) & (hz <= 3_400.0), spectrum, 0.0), len(pcm)).astype(np.float32)


def noisy(pcm: Pcm, snr_db: float, colour: float, rng: Rng) -> Pcm:
    """[S] + noise of power 1 / f^colour, so far below the speech's mean power."""
    noise = np.fft.rfft(rng.standard_normal(len(pcm)))
    noise *= np.maximum(np.arange(len(noise)), 20.0) ** (-colour / 2.0)
    hiss = np.fft.irfft(noise, len(pcm))
    power = float(np.square(trimmed(pcm)).mean()) if np.abs(pcm).max() > 0.0 else 0.0
    gain = math.sqrt(power / 10.0 ** (snr_db / 10.0) / max(float(np.square(hiss).mean()), 1e-20))
    return (pcm + gain * hiss).astype(np.float32)


def degraded(clip: Clip, condition: str) -> Pcm:
    """A clip under one of CONDITIONS, the same at every call."""
    rng = np.random.default_rng([int(part) for part in clip.key.split("-")])
    if condition == "telephone":
        return telephone(clip.pcm)
    if condition == "opus":
        return opus_round_trip(clip.pcm, int(rng.choice([16_000, 24_000])))
    if condition == "noise":
        return noisy(clip.pcm, 15.0, float(rng.uniform(0.0, 1.5)), rng)
    return clip.pcm


def varied(pcm: Pcm, how: Augmentation, rng: Rng) -> Pcm:
    """A random other recording of the same utterance: another voice, room, line and microphone."""
    if rng.random() < how.untouched:
        how = replace(how, tilt_db=0.0, ripple_db=0.0, band=0.0, low_pass=0.0, opus=0.0)
        how = replace(how, reverb=0.0, noise=0.0, clip=0.0)
    if rng.random() < how.opus:
        pcm = opus_round_trip(pcm, int(rng.integers(10_000, 32_000)))
    block = RATE_HZ // 50  # whole blocks keep the transforms fast
    pcm = np.pad(pcm, (0, -len(pcm) % block))
    spectrum = np.fft.rfft(pcm)
    hz = np.fft.rfftfreq(len(pcm), 1.0 / RATE_HZ)
    octave = np.log2(np.maximum(hz, 50.0) / 1_000.0)
    knots = np.linspace(octave[0], octave[-1], 8)
    gain_db = how.tilt_db * rng.standard_normal() * octave
    gain_db += np.interp(octave, knots, how.ripple_db * rng.standard_normal(8))
    spectrum *= 10.0 ** (np.clip(gain_db, -40.0, 40.0) / 20.0)
    if rng.random() < how.reverb:
        seconds = np.arange(RATE_HZ // 2) / RATE_HZ
        tail = rng.standard_normal(len(seconds)) * np.exp(-6.9 * seconds / rng.uniform(0.1, 0.6))
        tail *= math.sqrt(10.0 ** (-rng.uniform(0.0, 12.0) / 10.0) / np.square(tail).sum())
        tail[0] += 1.0
        spectrum *= np.fft.rfft(tail, len(pcm))
    line = rng.random()
    if line < how.band:
        spectrum[(hz < rng.uniform(100.0, 350.0)) | (hz > rng.uniform(3_000.0, 4_000.0))] = 0.0
    elif line < how.band + how.low_pass:
        spectrum[hz > rng.uniform(3_500.0, 7_500.0)] = 0.0
    blocks = round(len(pcm) / block / how.speed ** rng.uniform(-1.0, 1.0))
    heard = np.fft.irfft(spectrum, blocks * block).astype(np.float32)  # another length: resampled
    if rng.random() < how.noise:
        heard = noisy(heard, rng.uniform(how.noise_db[0], how.noise_db[1]), rng.uniform(-0.5, 2.0), rng)
    if rng.random() < how.clip:
        limit = np.abs(heard).max() * rng.uniform(0.2, 0.7)
        heard = np.clip(heard, -limit, limit)
    return heard / max(float(np.abs(heard).max()), 1e-6)


def around_speech(pcm: Pcm, margin_s: float) -> Pcm:
    """A clip from the first to the last 10 ms within 30 dB of its loud parts, and a margin."""
    block = RATE_HZ // 100
    power = np.square(pcm[: len(pcm) // block * block]).reshape(-1, block).mean(axis=1)
    active = np.flatnonzero(power > 1e-3 * np.percentile(power, 95))
    margin = int(margin_s * RATE_HZ)
    return pcm[max(0, int(active[0]) * block - margin) : (int(active[-1]) + 1) * block + margin]
