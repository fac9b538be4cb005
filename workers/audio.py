"""Audio extractor: how an utterance was said, as voice statistics of its speech."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from realtime.messages import SAMPLE_RATE_HZ, Answer, Features, FeaturesMissing, Job, Modality, Pcm, Segment
from workers.extractor import FeatureSpec
from workers.voice import VoiceStatistics, voice_statistics

SHORTEST_S = 0.2  # less holds no statistics
SILENT_DBFS = -60.0  # loudness below which there is nothing but the line's noise
_FULL_DBFS = -40.0  # from here on level costs no quality
_FULL_S = 1.0  # nor does duration
_CLIPPED = 0.999  # of full scale
_CLIPPED_HALF = 0.02  # share of clipped samples that halves the quality


class AudioExtractor:
    """Voice statistics, float32 [D]; what is before the first and after the last speech frame is left out."""

    modality: Modality = "audio"
    needs_pcm = True
    needs_pictures = False

    @property
    def spec(self) -> FeatureSpec | None:
        """Identity of the statistics."""
        return FeatureSpec(VoiceStatistics.NAME, VoiceStatistics.VERSION, VoiceStatistics.DIM)

    def load(self) -> None:
        """Nothing to read."""

    def warm_up(self) -> None:
        """One second of noise: builds the filter banks."""
        voice_statistics(np.random.default_rng(0).normal(0.0, 0.1, SAMPLE_RATE_HZ).astype(np.float32))

    def extract(self, jobs: Sequence[Job]) -> list[Answer | None]:
        """Statistics, or "too_short" or "silent"; None for a Transcript."""
        return [self._answer(job) if isinstance(job, Segment) else None for job in jobs]

    def _answer(self, segment: Segment) -> Answer:
        began_s = time.perf_counter()
        ids = (segment.session_id, segment.utterance_id, self.modality)
        speech = speech_of(segment)
        if len(speech) < SHORTEST_S * SAMPLE_RATE_HZ:
            return FeaturesMissing(*ids, "too_short", 0)
        if level_dbfs(speech) < SILENT_DBFS:
            return FeaturesMissing(*ids, "silent", 0)
        vector = voice_statistics(speech)
        took_ms = round((time.perf_counter() - began_s) * 1000)
        name = f"{VoiceStatistics.NAME}/{VoiceStatistics.VERSION}"
        return Features(*ids, name, vector, quality(speech), took_ms)


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
