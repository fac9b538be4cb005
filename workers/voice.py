"""Voice statistics: how something was said, from the waveform alone, in numpy alone.

One vector an utterance: functionals of cepstrum, mel spectrum, pitch, energy and rhythm over its active
frames. The signal is brought to one loudness first, so the microphone's gain cancels; what is left of level
is relative (how far the loud frames stand above the quiet ones).
Knows samples; does not know what emotion is.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

_RATE = 16_000  # Hz
_HOP = 160  # 10 ms
_WINDOW = 400  # 25 ms
_FFT = 512
_MELS = 40
_CEPSTRA = 16
_PITCH_HOP = 320  # 20 ms
_PITCH_WINDOW = 640  # 40 ms: two periods of the lowest voice
_PITCH_FFT = 1024
_LAGS = (36, 266)  # samples: 444 .. 60 Hz
_VOICED = 0.45  # normalised autocorrelation
_ACTIVE_DB = 30.0  # below the loud frames
_FLOOR = 1e-10  # power; -100 dB of full scale

Floats = NDArray[np.float32]


class VoiceStatistics:
    """What a checkpoint must agree on: change a number of `voice_statistics` and VERSION changes with it."""

    NAME = "voice-stats"
    VERSION = "1"
    DIM = 238


def voice_statistics(pcm: Floats) -> Floats:
    """float32 [T] mono 16 kHz, any length and gain -> float32 [238], finite always."""
    signal = np.nan_to_num(np.asarray(pcm, dtype=np.float32), posinf=0.0, neginf=0.0)
    signal = signal - (signal.mean() if signal.size else 0.0)
    peak = float(np.abs(signal).max(initial=0.0))
    signal = trimmed(signal / peak) if peak > 1e-5 else np.zeros_like(signal)
    signal = np.pad(signal, (0, max(0, _PITCH_WINDOW - signal.size)))

    frames = np.lib.stride_tricks.sliding_window_view(signal, _WINDOW)[::_HOP]  # [n, 400]
    spectrum = np.abs(np.fft.rfft(frames * _hann(_WINDOW), _FFT)).astype(np.float32) ** 2  # [n, 257]
    level = 10.0 * np.log10(np.square(frames).mean(axis=1) + _FLOOR)  # [n] dB
    loud = float(np.percentile(level, 95))
    active = level > loud - _ACTIVE_DB
    spectrum /= 10.0 ** (loud / 10.0)  # loud frames at 0 dB, whatever the gain
    level = level - loud

    log_mel = np.log(spectrum @ _mel_bank() + 1e-6)  # [n, 40]
    cepstra = log_mel @ _cosines()  # [n, 16]
    parts = [
        _functionals(cepstra[active]),
        _motion(cepstra, active),
        _moments(log_mel[active]),
        _functionals(_shape(spectrum)[active]),
        _flux(log_mel, active),
        _energy(level, active),
        _pitch(signal, loud),
    ]
    return np.nan_to_num(np.concatenate(parts)).astype(np.float32)


def trimmed(signal: Floats) -> Floats:
    """From the first active 10 ms to the last: silence around speech is the recorder's, not the voice's."""
    blocks = signal[: signal.size // _HOP * _HOP].reshape(-1, _HOP)
    if not len(blocks):
        return signal
    level = 10.0 * np.log10(np.square(blocks).mean(axis=1) + _FLOOR)
    active = np.flatnonzero(level > np.percentile(level, 95) - _ACTIVE_DB)
    return signal[active[0] * _HOP : (active[-1] + 1) * _HOP]


def _functionals(tracks: Floats) -> Floats:
    """[n, k] -> [4k]: mean, deviation, 10th and 90th percentile."""
    low, high = np.percentile(tracks, (10, 90), axis=0)
    return np.concatenate([tracks.mean(axis=0), tracks.std(axis=0), low, high])


def _moments(tracks: Floats) -> Floats:
    """[n, k] -> [2k]: mean and deviation."""
    return np.concatenate([tracks.mean(axis=0), tracks.std(axis=0)])


def _motion(tracks: Floats, active: NDArray[np.bool_]) -> Floats:
    """[n, k] -> [2k]: deviation of the 40 ms difference, and mean size of its own difference."""
    delta = np.zeros_like(tracks)
    delta[2:-2] = tracks[4:] - tracks[:-4]
    second = np.zeros_like(tracks)
    second[2:-2] = delta[4:] - delta[:-4]
    return np.concatenate([delta[active].std(axis=0), np.abs(second[active]).mean(axis=0)])


def _shape(spectrum: Floats) -> Floats:
    """[n, 257] -> [n, 6]: centroid, spread, roll-off, flatness, tilt, and the high to low band ratio."""
    octave = _octaves()  # [257], log2 of kHz
    power = spectrum + 1e-9
    share = power / power.sum(axis=1, keepdims=True)
    centroid = share @ octave
    spread = np.sqrt(np.maximum(share @ np.square(octave) - np.square(centroid), 0.0))
    rolloff = (np.cumsum(share, axis=1) < 0.85).sum(axis=1) / share.shape[1]
    log_power = np.log(power)
    flatness = log_power.mean(axis=1) - np.log(power.mean(axis=1))
    centred = octave - octave.mean()
    tilt = log_power @ centred / np.square(centred).sum()
    ratio = np.log(power[:, 32:160].sum(axis=1) / power[:, 2:32].sum(axis=1))  # 1-5 kHz over .06-1 kHz
    return np.stack([centroid, spread, rolloff, flatness, tilt, ratio], axis=1).astype(np.float32)


def _flux(log_mel: Floats, active: NDArray[np.bool_]) -> Floats:
    """[n, 40] -> [4]: functionals of the frame to frame change."""
    change = np.zeros(len(log_mel), dtype=np.float32)
    change[1:] = np.abs(np.diff(log_mel, axis=0)).mean(axis=1)
    return _functionals(change[active][:, None])


def _energy(level: Floats, active: NDArray[np.bool_]) -> Floats:
    """[n] dB -> [14]: contour, dynamics, pauses and syllable-like rhythm."""
    seconds = len(level) * _HOP / _RATE
    smooth = np.convolve(level, np.full(7, 1 / 7), mode="same")
    change = np.diff(level, prepend=level[0])
    middle = smooth[1:-1]
    peaks = np.flatnonzero((middle > smooth[:-2]) & (middle >= smooth[2:]) & (middle > -20.0)) + 1
    gaps = np.diff(peaks) * _HOP / _RATE
    quantiles = np.percentile(level[active], (10, 50, 90))
    third = max(1, len(level) // 3)
    return np.array(
        [
            *quantiles,
            level[active].std(),
            np.percentile(level, 5),  # pauses: how far speech stands above the room
            _slope(level),
            level[-third:].mean() - level[:third].mean(),
            np.maximum(change, 0.0).mean(),
            np.maximum(-change, 0.0).mean(),
            active.mean(),
            np.count_nonzero(active[:-1] & ~active[1:]) / seconds,
            len(peaks) / seconds,
            gaps.std() if len(gaps) else 0.0,
            np.log(seconds),
        ],
        dtype=np.float32,
    )


def _pitch(signal: Floats, loud: float) -> Floats:
    """[T] -> [20]: functionals of log2 pitch, voicing and their movement, by autocorrelation."""
    frames = np.lib.stride_tricks.sliding_window_view(signal, _PITCH_WINDOW)[::_PITCH_HOP]
    frames = frames * _hann(_PITCH_WINDOW)  # [n, 640]
    power = np.square(np.abs(np.fft.rfft(frames, _PITCH_FFT)))
    correlation = np.fft.irfft(power)[:, : _LAGS[1] + 2]  # [n, lags]
    loudness = 10.0 * np.log10(np.square(frames).mean(axis=1) + _FLOOR)
    ratio = correlation / (correlation[:, :1] + 1e-9) / _window_correlation()
    search = ratio[:, _LAGS[0] : _LAGS[1]] - _octave_cost()  # halving a pitch must pay
    best = search.argmax(axis=1) + _LAGS[0]
    row = np.arange(len(best))
    before, at, after = ratio[row, best - 1], ratio[row, best], ratio[row, best + 1]
    bend = before - 2.0 * at + after
    shift = np.where(np.abs(bend) > 1e-6, 0.5 * (before - after) / np.where(bend == 0, 1.0, bend), 0.0)
    pitch = np.log2(_RATE / (best + np.clip(shift, -0.5, 0.5)) / 100.0)  # octaves above 100 Hz
    clear = np.clip(at, 0.0, 1.0)
    active = loudness > loud - _ACTIVE_DB - 4.0
    voiced = (clear > _VOICED) & active
    share = float(voiced.sum() / max(1, int(active.sum())))
    if np.count_nonzero(voiced) < 3:
        return np.array([0.0] * 18 + [share, 0.0], dtype=np.float32)
    tone, level = pitch[voiced], loudness[voiced]
    joined = voiced[1:] & voiced[:-1]
    step = np.diff(pitch)[joined]
    step = step[np.abs(step) < 0.4]  # a leap of the tracker is no movement of the voice
    low, lower, middle, upper, high = np.percentile(tone, (5, 25, 50, 75, 95))
    third = max(1, len(tone) // 3)
    tracks = [
        middle,
        tone.mean(),
        tone.std(),
        low,
        high,
        high - low,
        upper - lower,
        _slope(tone),
        np.median(tone[-third:]) - np.median(tone[:third]),
        np.abs(step).mean() if len(step) else 0.0,
        step.mean() if len(step) else 0.0,
        step.std() if len(step) else 0.0,
        np.abs(np.diff(step)).mean() if len(step) > 1 else 0.0,  # tremor
        clear[voiced].mean(),
        clear[voiced].std(),
        np.abs(np.diff(loudness)[joined]).mean() if joined.any() else 0.0,  # shimmer-like
        np.mean((tone - tone.mean()) * (level - level.mean())),  # louder when higher
        level.std(),
    ]
    runs = np.count_nonzero(voiced[1:] & ~voiced[:-1]) / (len(voiced) * _PITCH_HOP / _RATE)
    return np.array([*tracks, share, runs], dtype=np.float32)


def _slope(track: Floats) -> float:
    """Least-squares slope over the utterance's length, in units of the track."""
    if len(track) < 2:
        return 0.0
    place = np.linspace(-0.5, 0.5, len(track))
    return float(place @ track / np.square(place).sum())


@cache
def _hann(size: int) -> Floats:
    return np.hanning(size).astype(np.float32)


@cache
def _window_correlation() -> Floats:
    """Autocorrelation of the pitch window itself: dividing by it undoes its taper."""
    window = np.abs(np.fft.rfft(_hann(_PITCH_WINDOW), _PITCH_FFT)) ** 2
    correlation = np.fft.irfft(window)[: _LAGS[1] + 2]
    return np.asarray(correlation / correlation[0], dtype=np.float32)


@cache
def _octave_cost() -> Floats:
    return np.asarray(0.03 * np.log2(np.arange(*_LAGS) / _LAGS[0]), dtype=np.float32)


def _bins() -> NDArray[np.float64]:
    """[257] Hz."""
    return np.linspace(0.0, _RATE / 2, _FFT // 2 + 1)


@cache
def _octaves() -> Floats:
    """[257] log2 of the bins' frequencies in kHz."""
    return np.asarray(np.log2(np.maximum(_bins(), 60.0) / 1000.0), dtype=np.float32)


@cache
def _mel_bank() -> Floats:
    """[257, 40] triangles from 50 Hz to 7.6 kHz."""

    def mel(hz: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(2595.0 * np.log10(1.0 + hz / 700.0), dtype=np.float64)

    low, high = mel(np.array([50.0, 7_600.0]))
    edges = np.linspace(low, high, _MELS + 2)
    bins = mel(_bins())[:, None]
    up = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    down = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    bank = np.maximum(np.minimum(up, down), 0.0)
    return np.asarray(bank / np.maximum(bank.sum(axis=0), 1e-9), dtype=np.float32)


@cache
def _cosines() -> Floats:
    """[40, 16] DCT-II without its constant row: the level is elsewhere."""
    band = (np.arange(_MELS) + 0.5)[:, None]
    waves = np.cos(np.pi * band * np.arange(1, _CEPSTRA + 1) / _MELS) * np.sqrt(2 / _MELS)
    return np.asarray(waves, dtype=np.float32)
