"""Prosody: what can be measured of how an utterance was said. Melody, voicing, loudness, tempo, colour.

Numbers of one utterance, in natural units; any gain cancels. They tell most when set beside what is usual for
the same person. Knows samples and log-mels; not persons, emotions or weights.

Letters: S samples, T frames of 16 ms, M mel bands, B groups of bands.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from realtime.messages import Pcm

MELS = 64  # of the log-mels: 60 Hz to 7.6 kHz
SIZE = 84  # numbers of an utterance

Numbers = NDArray[np.float64]
Floats = NDArray[np.float32]

_HOP = 256  # 16 ms
_WINDOW = 1024  # 64 ms, for pitch: four periods of the lowest voice
_PITCH_RATE_HZ = 8_000  # of the autocorrelation: what is above 4 kHz tells nothing of pitch
_PITCH_BINS = _WINDOW // 2 + 1  # of the spectrum of a window as long again in zeros
_HUM_BINS = 20  # below 160 Hz a line's hum is as strong as a voice, so only a tenth of the power counts
_LAGS = (_PITCH_RATE_HZ // 500, _PITCH_RATE_HZ // 65 + 1)  # 65 to 500 Hz
_LONGER = 0.0012  # a lag: of one and two periods the shorter is meant
_VOICED = 0.45  # autocorrelation from which a frame has a pitch
_FEW = 4  # voiced frames; a whisper has less
_TELEPHONE = slice(4, 44)  # mel bands that a telephone leaves: 250 Hz to 3.5 kHz
_GROUP = 4  # bands
_ACTIVE = 5.0  # nepers of power below the loud frames that still are speech (22 dB)
_ABOVE_NOISE = 0.35  # of the way from the quiet frames to the loud ones: what speech exceeds in noise
_LOUD = 2.0  # nepers below the loud frames that are speech in any noise
_FLOOR = 13.0  # nepers below the loud frames that a band can fall
_TINY = 1e-9

_TAPER = torch.from_numpy(np.hanning(_WINDOW).astype(np.float32))


def _power(frames: Tensor) -> Tensor:
    """[T, window] -> [T, bins]. Torch transforms all frames in half the time that numpy takes."""
    spectrum = torch.fft.rfft(frames, 2 * _WINDOW)[:, :_PITCH_BINS]
    power: Tensor = spectrum.real.square() + spectrum.imag.square()
    return power


def _autocorrelation(power: Tensor) -> Floats:
    """[T, bins] -> [T, longest lag + 1]."""
    found: Floats = torch.fft.irfft(power)[:, : _LAGS[1]].numpy()
    return found


_OF_TAPER = _autocorrelation(_power(_TAPER[None]))[0]


def prosody(pcm: Pcm, log_mel: NDArray[np.floating]) -> Pcm:
    """One utterance, [S] at 16 kHz and its log-mels [T, 64] (natural, of power) -> float32 [SIZE].

    Silence gives numbers too, which mean nothing.
    """
    pitch, periodicity = _pitch(pcm)
    count = min(len(log_mel), len(pitch))
    mel, pitch, periodicity = log_mel[:count].astype(np.float64), pitch[:count], periodicity[:count]
    level = np.log(np.exp(mel[:, _TELEPHONE]).sum(1))  # [T]
    loud, quiet = np.percentile(level, [95, 5])
    above_noise = min(quiet + _ABOVE_NOISE * (loud - quiet), loud - _LOUD)
    active = level >= max(loud - _ACTIVE, above_noise)
    voiced = active & (periodicity > _VOICED)
    if np.count_nonzero(voiced) < _FEW:
        voiced = active
    mel = np.maximum(mel, loud - _FLOOR)
    numbers = [
        *_melody(pitch, voiced),
        np.count_nonzero(voiced) / np.count_nonzero(active),
        *_spread(periodicity[active]),
        *_loudness(level[active]),
        *_tempo(active),
        *_spread(_change(mel[:, _TELEPHONE], active)),
        *_course(level, active, active),
        *_course(pitch, active, voiced),
        *_colour(mel[active]),
        _together(level[active], pitch[active]),
    ]
    return np.asarray(numbers, dtype=np.float32)


def _pitch(pcm: Pcm) -> tuple[Numbers, Numbers]:
    """[S] -> [T] pitch in octaves above 1 Hz, and [T] how periodic the frame is."""
    wave = torch.from_numpy(np.pad(pcm, _WINDOW // 2))
    power = _power(wave.unfold(0, _WINDOW, _HOP) * _TAPER)
    power[:, :_HUM_BINS] *= 0.1
    found = _autocorrelation(power)
    found = found / (found[:, :1] + _TINY) / (_OF_TAPER / _OF_TAPER[0])
    found = found[:, _LAGS[0] :]
    found = found * (1.0 - _LONGER * np.arange(found.shape[1]))
    at = np.clip(found.argmax(1), 1, found.shape[1] - 2)
    rows = np.arange(len(at))
    before, peak, after = found[rows, at - 1], found[rows, at], found[rows, at + 1]
    off = np.clip(0.5 * (before - after) / (before - 2.0 * peak + after + _TINY), -0.5, 0.5)
    return np.log2(_PITCH_RATE_HZ / (at + _LAGS[0] + off)), found.max(1)


def _spread(values: Numbers) -> list[float]:
    return [values.mean(), values.std(), *np.percentile(values, [10, 50, 90])]


def _melody(pitch: Numbers, voiced: NDArray[np.bool_]) -> list[float]:
    """Height, range and movement of the pitch, in octaves; and its slope over the utterance."""
    heard, at = pitch[voiced], np.flatnonzero(voiced) / len(pitch)
    heights = np.percentile(heard, [5, 25, 50, 75, 95])
    away = at - at.mean()
    slope = (away * heard).sum() / np.square(away).sum() if len(at) >= _FEW else 0.0
    steps = np.abs(np.diff(heard)).mean() if len(heard) > 1 else 0.0
    ranges = [heights[4] - heights[0], heights[3] - heights[1]]
    return [*heights, *ranges, slope, heard.std(), steps]


def _loudness(level: Numbers) -> list[float]:
    """How far single frames rise above and fall below the middle of the utterance, in nepers."""
    middle = np.median(level)
    return [level.max() - middle, level.std(), *(np.percentile(level, [10, 25, 75, 90]) - middle)]


def _tempo(active: NDArray[np.bool_]) -> list[float]:
    """Logarithms of the speech and of the span it fills, in frames, and the share of speech in it."""
    at = np.flatnonzero(active)
    span = at[-1] - at[0] + 1
    return [np.log(len(at)), np.log(span), len(at) / span]


def _change(mel: Numbers, active: NDArray[np.bool_]) -> Numbers:
    """How much the spectrum changes into each active frame, in nepers."""
    steps = np.diff(mel, axis=0)[active[1:]]
    return np.sqrt(np.square(steps).mean(1)) if len(steps) else np.zeros(1)


def _course(values: Numbers, active: NDArray[np.bool_], counted: NDArray[np.bool_]) -> Iterator[float]:
    """The mean over each quarter of the active frames, less the mean over all; of the counted ones."""
    at = np.flatnonzero(active)
    whole = values[counted].mean()
    bounds = -(-np.arange(5) * len(at) // 4)
    for begin, end in pairwise(bounds):
        quarter = at[begin:end][counted[at[begin:end]]]
        yield values[quarter].mean() - whole if len(quarter) else 0.0


def _colour(mel: Numbers) -> Numbers:
    """[T, M] -> [3 B] mean, deviation and upper end of groups of bands, beside the telephone's bands."""
    groups = mel[:, _TELEPHONE.start :].reshape(len(mel), -1, _GROUP).mean(2)
    heard = (_TELEPHONE.stop - _TELEPHONE.start) // _GROUP
    beside = groups - groups[:, :heard].mean(1, keepdims=True)
    return np.concatenate([beside.mean(0), beside.std(0), np.percentile(beside, 90, axis=0)])


def _together(level: Numbers, pitch: Numbers) -> float:
    """Correlation of loudness and pitch; 0 where one does not move."""
    both = level.std() * pitch.std()
    away = (level - level.mean()) * (pitch - pitch.mean())
    return float(away.mean() / both) if both > _TINY else 0.0
