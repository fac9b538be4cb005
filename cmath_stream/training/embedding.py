"""Words as the live line embeds them, for training and judging: each text once, kept between runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cmath_stream.checkpoint import ModalitySpec
from cmath_stream.training.data import FeatureCache, Floats
from workers.text_encoder import DEFAULT_ENCODER, load_embedder


class PlainAndTuned:
    """Embeddings by the default encoder as it was published and, beside them, as our adapter tuned it.

    The tuned half knows emotion and has forgotten other things; what learns from few dialogues gains by both.
    """

    def __init__(self, cache: Path) -> None:
        self._plain, self._tuned = Words(cache, adapter="none"), Words(cache)
        plain, tuned = self._plain.spec, self._tuned.spec
        self.spec = ModalitySpec("text", f"{plain.name}+{tuned.name}", tuned.version, plain.dim + tuned.dim)

    def __call__(self, texts: Sequence[str]) -> Floats:
        """[n, D], each half of unit length."""
        return np.hstack([self._plain(texts), self._tuned(texts)])


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
