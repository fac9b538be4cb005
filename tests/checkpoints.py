"""Tiny checkpoints made on the spot. Their weights are random: they stand for shapes, never for answers."""

from __future__ import annotations

from pathlib import Path

import torch

from cmath_stream.checkpoint import Checkpoint, CheckpointMeta, ModalitySpec, load, save
from cmath_stream.model import CMATH, CMATHConfig

LABELS = ("neutral", "surprise", "fear", "sadness", "joy", "disgust", "anger")


def tiny(
    folder: Path,
    *,
    window: int = 4,
    text_dim: int = 6,
    audio_dim: int = 5,
    abstain: float = 0.0,
    running: bool = False,
) -> Checkpoint:
    """A checkpoint over text and audio, saved and loaded; `running`: audio from the running mean too."""
    torch.manual_seed(0)
    audio = ModalitySpec("audio", "voice", "1", audio_dim, running)
    config = CMATHConfig(
        dims=(("text", text_dim), ("audio", audio.inputs)), width=16, heads=2, window=window, causal=True
    )
    meta = CheckpointMeta(
        name="tiny", version="1", label_set="meld7", labels=LABELS,
        modalities=(
            ModalitySpec("text", "words", "1", text_dim), audio,
        ),
        config=config, temperatures={"text": 2.0}, abstain_below=abstain,
        reliability={"text": 0.6, "audio": 0.5}, licence="Apache-2.0",
        data_sources=(), validation={},
    )  # fmt: skip
    path = folder / "tiny.safetensors"
    save(path, CMATH(config), meta)
    return load(path)
