"""Audio extractor over our own voice encoder: how an utterance was said, as the network's embedding."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from realtime.messages import SAMPLE_RATE_HZ, Answer, Features, FeaturesMissing, Job, Modality, Pcm, Segment
from workers.audio import SHORTEST_S, SILENT_DBFS, level_dbfs, quality, speech_of
from workers.extractor import FeatureSpec

if TYPE_CHECKING:
    from workers.voice_encoder import VoiceEncoder


@dataclass(frozen=True, slots=True)
class VoiceExtractorConfig:
    """Which encoder, and how much of the machine it takes."""

    weights: str | None = None  # a voice.safetensors with its JSON; None = the shipped one
    threads: int = 1
    batch: int = 16  # utterances of one pass, the longest together

    def __post_init__(self) -> None:
        if self.threads < 1 or self.batch < 1:
            raise ValueError("threads and batch must be at least 1")


class VoiceExtractor:
    """Embeddings, float32 [D]; what is before the first and after the last speech frame is left out."""

    modality: Modality = "audio"
    needs_pcm = True
    needs_pictures = False

    def __init__(self, config: VoiceExtractorConfig) -> None:
        self._config = config
        self._model: VoiceEncoder | None = None
        self._spec: FeatureSpec | None = None

    @property
    def spec(self) -> FeatureSpec | None:
        """Identity of the embedding; None before `load`."""
        return self._spec

    def load(self) -> None:
        """Read the weights. Raises ModelUnavailable."""
        import torch

        from workers.voice_encoder import load, shipped

        torch.set_num_threads(self._config.threads)
        path = Path(self._config.weights) if self._config.weights else shipped()
        self._model, meta = load(path)
        self._spec = FeatureSpec(meta.name, meta.version, meta.config.embedding)

    def warm_up(self) -> None:
        """One long and one short utterance of noise, so that padding is met too."""
        noise = np.random.default_rng(0).normal(0.0, 0.1, 2 * SAMPLE_RATE_HZ).astype(np.float32)
        self.embed([noise, noise[:SAMPLE_RATE_HZ]])

    def extract(self, jobs: Sequence[Job]) -> list[Answer | None]:
        """Embeddings, or "too_short" or "silent"; None for a Transcript."""
        answers: list[Answer | None] = [None] * len(jobs)
        heard: list[tuple[int, Segment, Pcm]] = []
        for place, job in enumerate(jobs):
            if not isinstance(job, Segment):
                continue
            speech = np.nan_to_num(speech_of(job), posinf=0.0, neginf=0.0)
            if len(speech) < SHORTEST_S * SAMPLE_RATE_HZ:
                answers[place] = _missing(job, "too_short")
            elif level_dbfs(speech) < SILENT_DBFS:
                answers[place] = _missing(job, "silent")
            else:
                heard.append((place, job, speech))
        heard.sort(key=lambda each: len(each[2]))  # neighbours in length need little padding
        for first in range(0, len(heard), self._config.batch):
            began_s = time.perf_counter()
            together = heard[first : first + self._config.batch]
            vectors = self.embed([speech for _, _, speech in together])
            took_ms = round((time.perf_counter() - began_s) * 1000)
            for (place, job, speech), vector in zip(together, vectors, strict=True):
                answers[place] = self._features(job, vector, quality(speech), took_ms)
        return answers

    def embed(self, utterances: Sequence[Pcm]) -> list[Pcm]:
        """One pass over utterances of any lengths, each at least one sample -> embeddings [D]."""
        import torch

        assert self._model is not None, "load() comes first"
        lengths = [len(pcm) for pcm in utterances]
        wave = np.zeros((len(utterances), max(lengths)), np.float32)
        for row, pcm in zip(wave, utterances, strict=True):
            row[: len(pcm)] = pcm
        with torch.inference_mode():
            voice = self._model(torch.from_numpy(wave), torch.tensor(lengths))
        return list(voice.embedding.numpy())

    def _features(self, segment: Segment, vector: Pcm, trust: float, took_ms: int) -> Features:
        assert self._spec is not None
        ids = (segment.session_id, segment.utterance_id, self.modality)
        return Features(*ids, self._spec.id, vector, trust, took_ms)


def _missing(segment: Segment, reason: str) -> FeaturesMissing:
    return FeaturesMissing(segment.session_id, segment.utterance_id, "audio", reason, 0)
