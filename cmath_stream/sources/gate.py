"""One track that several people share, as each of them alone: heard inside the own turns, silence outside.

Knows samples and times; not who decided whose turn it is. Where turns overlap both people hear both voices.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from cmath_stream.scoring import Interval, merge
from realtime.messages import SAMPLE_RATE_HZ, AudioChunk, Pcm
from realtime.rttm import Turn

FADE_S = 0.02  # a hard edge would be a click, which a voice detector may hear as an onset


def gated(audio: Iterator[AudioChunk], turns: Sequence[Turn] | None) -> Iterator[AudioChunk]:
    """The same audio with silence outside of one person's turns; None = all of it is the person's."""
    if turns is None:
        yield from audio
        return
    coming = merge([(turn.start_s, turn.end_s) for turn in turns])
    for chunk in audio:
        while coming and coming[0][1] <= chunk.start_s:
            coming.pop(0)
        here = coming[: bisect(coming, (chunk.end_s, 0.0))]
        first = round(chunk.start_s * SAMPLE_RATE_HZ)
        yield replace(chunk, pcm=chunk.pcm * opened(here, first, len(chunk.pcm)))


def opened(turns: Sequence[Interval], first: int, samples: int) -> Pcm:
    """Factors of the samples from number `first` of the recording on, [samples]: 1 inside the turns, 0
    outside, with straight ramps inside each turn's edges. The turns are in order and apart."""
    gate = np.zeros(samples, np.float32)
    for turn in turns:
        start, end = (round(edge_s * SAMPLE_RATE_HZ) - first for edge_s in turn)
        inside = slice(max(start, 0), max(min(end, samples), 0))
        at = np.arange(inside.start, inside.stop, dtype=np.float32)
        ramp = np.minimum(at - start + 1, end - at) / (FADE_S * SAMPLE_RATE_HZ)
        gate[inside] = np.minimum(ramp, 1.0)
    return gate
