"""A replay with extractors that need no weights, over a tiny checkpoint: all of the walk in a second."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cmath_stream.engine import Engine
from cmath_stream.prediction import EngineConfig
from cmath_stream.replay import Models, Replay
from realtime.conversation import ConversationConfig
from realtime.messages import Answer, Features, FeaturesMissing, Job, Modality, Segment, Transcript
from realtime.vad import VadModel
from tests.checkpoints import tiny
from workers.extractor import FeatureSpec


class Words:
    """A text extractor without a network: a vector of the letters' sums. It can count, not understand."""

    modality: Modality = "text"
    needs_pcm = needs_pictures = False
    spec = FeatureSpec("words", "1", 6)

    def load(self) -> None: ...
    def warm_up(self) -> None: ...

    def extract(self, jobs: Sequence[Job]) -> list[Answer | None]:
        return [self._answer(job) for job in jobs]

    def _answer(self, job: Job) -> Answer | None:
        if isinstance(job, Segment) and job.captions_pending:
            return None
        if job.text is None:
            return FeaturesMissing(job.session_id, job.utterance_id, "text", "no_caption", 0)
        vector = np.bincount([ord(c) % 6 for c in job.text], minlength=6).astype(np.float32)
        return Features(
            job.session_id, job.utterance_id, "text", "words/1", vector, 1.0, 0, job.text, job.language
        )


class Voice:
    """An audio extractor: loudness in five parts of the utterance."""

    modality: Modality = "audio"
    needs_pcm, needs_pictures = True, False
    spec = FeatureSpec("voice", "1", 5)

    def load(self) -> None: ...
    def warm_up(self) -> None: ...

    def extract(self, jobs: Sequence[Job]) -> list[Answer | None]:
        return [None if isinstance(job, Transcript) else self._features(job) for job in jobs]

    def _features(self, segment: Segment) -> Answer:
        if not len(segment.pcm):
            return FeaturesMissing(segment.session_id, segment.utterance_id, "audio", "no_audio", 0)
        parts = [np.sqrt(np.square(part).mean()) for part in np.array_split(segment.pcm, 5)]
        vector = np.array(parts, np.float32)
        return Features(segment.session_id, segment.utterance_id, "audio", "voice/1", vector, 1.0, 0)


def tiny_replay(folder: Path) -> Replay:
    """Words and loudness through a random model, which is written into the folder."""
    models = Models(Engine(tiny(folder), EngineConfig()), [Words(), Voice()])
    return Replay(lambda: models, "tiny", VadModel(), ConversationConfig())
