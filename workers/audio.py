"""Audio extractor: how an utterance was said, as one vector of its speech.

Knows segments and the two encoders that can hear them: our own, which is shipped, and any pretrained speech
model of the Hugging Face hub. What is before the first and after the last speech frame is left out.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from realtime.messages import SAMPLE_RATE_HZ, Answer, Features, FeaturesMissing, Job, Modality, Pcm, Segment
from workers.extractor import FeatureSpec
from workers.sound import SHORTEST_S, SILENT_DBFS, level_dbfs, padded, quality, speech_of

OWN = "own"


@dataclass(frozen=True, slots=True)
class VoiceExtractorConfig:
    """Which encoder, and how much of the machine it takes."""

    encoder: str = OWN  # "own", or a wav2vec2-like model of the Hugging Face hub, by name or folder
    weights: str | None = None  # of our own: a voice.safetensors with its JSON; None = the shipped one
    device: str = "auto"  # of a pretrained one; our own is done before a card has begun
    threads: int = 1
    batch: int = 16  # utterances of one pass, the longest together

    def __post_init__(self) -> None:
        if self.threads < 1 or self.batch < 1:
            raise ValueError("threads and batch must be at least 1")


class VoiceEncoding(Protocol):
    """A loaded encoder as the extractor uses it."""

    @property
    def spec(self) -> FeatureSpec:
        """Identity of its vectors."""
        ...

    def vectors(self, utterances: Sequence[Pcm]) -> Pcm:
        """One pass over utterances of any lengths -> float32 [B, D]."""
        ...


class VoiceExtractor:
    """Vectors, float32 [D]: of our own encoder what it says (see `VoiceEncoder.features`)."""

    modality: Modality = "audio"
    needs_pcm = True
    needs_pictures = False

    def __init__(self, config: VoiceExtractorConfig) -> None:
        self._config = config
        self._encoder: VoiceEncoding | None = None

    @property
    def spec(self) -> FeatureSpec | None:
        """Identity of the vectors; None before `load`."""
        return None if self._encoder is None else self._encoder.spec

    def load(self) -> None:
        """Read the weights. Raises ModelUnavailable."""
        import torch

        config = self._config
        torch.set_num_threads(config.threads)
        if config.encoder == OWN:
            self._encoder = OwnVoice(Path(config.weights) if config.weights else None)
        else:
            from workers.speech_model import load_speech_model

            self._encoder = load_speech_model(config.encoder, config.device)

    def warm_up(self) -> None:
        """One long and one short utterance of noise, so that padding is met too."""
        noise = np.random.default_rng(0).normal(0.0, 0.1, 2 * SAMPLE_RATE_HZ).astype(np.float32)
        self._vectors([noise, noise[:SAMPLE_RATE_HZ]])

    def extract(self, jobs: Sequence[Job]) -> list[Answer | None]:
        """Features, or "text_only", "no_audio", "too_short" or "silent"; None for a Transcript."""
        answers: list[Answer | None] = [None] * len(jobs)
        heard: list[tuple[int, Segment, Pcm]] = []
        for place, job in enumerate(jobs):
            if not isinstance(job, Segment):
                continue
            if job.text_only:
                answers[place] = _missing(job, "text_only")
                continue
            speech = np.nan_to_num(speech_of(job), posinf=0.0, neginf=0.0)
            if not len(speech):  # words alone
                answers[place] = _missing(job, "no_audio")
            elif len(speech) < SHORTEST_S * SAMPLE_RATE_HZ:
                answers[place] = _missing(job, "too_short")
            elif level_dbfs(speech) < SILENT_DBFS:
                answers[place] = _missing(job, "silent")
            else:
                heard.append((place, job, speech))
        heard.sort(key=lambda each: len(each[2]))  # neighbours in length need little padding
        for first in range(0, len(heard), self._config.batch):
            began_s = time.perf_counter()
            together = heard[first : first + self._config.batch]
            vectors = self._vectors([speech for _, _, speech in together])
            took_ms = round((time.perf_counter() - began_s) * 1000)
            for (place, job, speech), vector in zip(together, vectors, strict=True):
                answers[place] = self._features(job, vector, quality(speech), took_ms)
        return answers

    def _vectors(self, utterances: Sequence[Pcm]) -> Pcm:
        assert self._encoder is not None, "load() comes first"
        return self._encoder.vectors(utterances)

    def _features(self, segment: Segment, vector: Pcm, trust: float, took_ms: int) -> Features:
        assert self._encoder is not None
        ids = (segment.session_id, segment.utterance_id, self.modality)
        return Features(*ids, self._encoder.spec.id, vector, trust, took_ms)


class OwnVoice:
    """Our own encoder, on the CPU."""

    def __init__(self, weights: Path | None) -> None:
        """Read the weights, None = the shipped ones. Raises ModelUnavailable."""
        from workers.voice_encoder import FEATURES
        from workers.voice_file import load, shipped

        self._model, meta = load(weights or shipped())
        self.spec = FeatureSpec(meta.name, meta.version, FEATURES)

    def vectors(self, utterances: Sequence[Pcm]) -> Pcm:
        """Utterances, each at least one sample -> float32 [B, 8]."""
        import torch

        from workers.voice_encoder import measure

        measured = torch.from_numpy(np.stack(list(map(measure, utterances))))
        with torch.inference_mode():
            lengths = torch.tensor([len(pcm) for pcm in utterances])
            voice = self._model(torch.from_numpy(padded(utterances)), lengths)
            said: Pcm = self._model.features(voice, measured).numpy()
        return said


def _missing(segment: Segment, reason: str) -> FeaturesMissing:
    return FeaturesMissing(segment.session_id, segment.utterance_id, "audio", reason, 0)
