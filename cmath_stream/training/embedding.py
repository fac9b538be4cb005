"""Words as the live line embeds them, for training and judging: each text once, kept between runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cmath_stream.checkpoint import ModalitySpec
from cmath_stream.training.data import FeatureCache, Floats
from workers.text import DEFAULT_ENCODER, load_embedder


class Words:
    """Embeddings of single utterances by a sentence encoder, kept between runs."""

    def __init__(self, cache: Path, encoder: str = DEFAULT_ENCODER, adapter: str = "auto") -> None:
        self._encoder, spec = load_embedder(encoder, adapter, "cpu")
        self.spec = ModalitySpec("text", spec.name, spec.version, spec.dim)
        self._cache = FeatureCache(cache, spec.name.replace("/", "-"), spec.version, spec.dim)

    def __call__(self, texts: Sequence[str]) -> Floats:
        """[n, D], unit length."""

        def compute(missing: list[str]) -> Floats:
            rows = self._encoder.encode(missing, batch_size=64, normalize_embeddings=True)
            return np.asarray(rows, dtype=np.float32)

        return self._cache.get(texts, compute)
