"""Words as the live line embeds them, for training and judging: each text once, kept between runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cmath_stream.checkpoint import ModalitySpec
from cmath_stream.training.data import FeatureCache, Floats
from workers.text_encoder import DEFAULT_ENCODER, load_embedder


class Words:
    """Embeddings of single utterances by a sentence encoder, kept between runs."""

    def __init__(self, cache: Path, encoder: str = DEFAULT_ENCODER, adapter: str = "auto") -> None:
        self._embed = load_embedder(encoder, adapter, "cpu")
        spec = self._embed.spec
        self.spec = ModalitySpec("text", spec.name, spec.version, spec.dim)
        self._cache = FeatureCache(cache, spec.name.replace("/", "-"), spec.version, spec.dim)

    def __call__(self, texts: Sequence[str]) -> Floats:
        """[n, D], unit length."""
        return self._cache.get(texts, self._embed)
