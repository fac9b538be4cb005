"""An utterance as samples: the part that is speech, how loud it is, how far it can be trusted.

Knows numbers in an array; not what an encoder makes of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from realtime.messages import SAMPLE_RATE_HZ, Pcm, Segment

SHORTEST_S = 0.2  # less tells nothing of a voice
SILENT_DBFS = -60.0  # loudness below which there is nothing but the line's noise
_FULL_DBFS = -40.0  # from here on level costs no quality
_FULL_S = 1.0  # nor does duration
_CLIPPED = 0.999  # of full scale
_CLIPPED_HALF = 0.02  # share of clipped samples that halves the quality
_BLOCK = 160  # 10 ms
_ACTIVE_DB = 30.0  # below the loud blocks
_FLOOR = 1e-10  # power; -100 dB of full scale


def speech_of(segment: Segment) -> Pcm:
    """The samples between `start_ms` and `end_ms`, without the pre-roll."""
    first = (segment.start_ms - segment.pcm_start_ms) * SAMPLE_RATE_HZ // 1000
    last = (segment.end_ms - segment.pcm_start_ms) * SAMPLE_RATE_HZ // 1000
    return segment.pcm[max(0, first) : max(0, last)]


def level_dbfs(pcm: Pcm) -> float:
    """Root mean square of the samples, dB of full scale; -120 for digital silence."""
    power = float(np.square(pcm, dtype=np.float64).mean())
    return 10.0 * float(np.log10(max(power, 1e-12)))


def quality(pcm: Pcm) -> float:
    """0..1: how far a listener could trust the recording, from its level, its clipping and its length."""
    level = (level_dbfs(pcm) - SILENT_DBFS) / (_FULL_DBFS - SILENT_DBFS)
    clipped = float((np.abs(pcm) >= _CLIPPED).mean())
    length = len(pcm) / (_FULL_S * SAMPLE_RATE_HZ)
    return min(1.0, max(0.0, level)) * min(1.0, length) / (1.0 + clipped / _CLIPPED_HALF)


def trimmed(pcm: Pcm) -> Pcm:
    """From the first active 10 ms to the last: silence around speech is the recorder's, not the voice's."""
    blocks = pcm[: pcm.size // _BLOCK * _BLOCK].reshape(-1, _BLOCK)
    if not len(blocks):
        return pcm
    level = 10.0 * np.log10(np.square(blocks).mean(axis=1) + _FLOOR)
    active = np.flatnonzero(level > np.percentile(level, 95) - _ACTIVE_DB)
    return pcm[active[0] * _BLOCK : (active[-1] + 1) * _BLOCK]


def padded(utterances: Sequence[Pcm]) -> Pcm:
    """Utterances of any lengths as one array [B, longest], zeros after their ends."""
    wave = np.zeros((len(utterances), max(map(len, utterances))), np.float32)
    for row, pcm in zip(wave, utterances, strict=True):
        row[: len(pcm)] = pcm
    return wave
