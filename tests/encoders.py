"""Tiny encoders made on the spot. Their weights are random: they stand for shapes, never for answers."""

from __future__ import annotations

from pathlib import Path

import torch

from workers import face_encoder, voice_encoder
from workers.face_encoder import FaceEncoder, FaceMeta, FaceNetConfig
from workers.voice_encoder import VoiceEncoder, VoiceEncoderConfig, VoiceMeta

VOICE = VoiceEncoderConfig(mels=32, stem=8, widths=(12, 12), frame=16, heads=2, embedding=12)
VOICE_META = VoiceMeta("voice-small", "2", VOICE, "by itself", "none", ("noise",), {"epochs": 0})
FACE = FaceNetConfig(stem=8, widths=(8,), depths=(1,), squeeze=4, dim=5)
FACE_META = FaceMeta("face-small", "2", FACE, "", (), {})


def tiny_voice() -> VoiceEncoder:
    """In eval mode."""
    torch.manual_seed(0)
    return VoiceEncoder(VOICE).eval()


def voice_weights(folder: Path) -> Path:
    """The tiny voice encoder as files."""
    path = folder / "voice.safetensors"
    voice_encoder.save(path, tiny_voice(), VOICE_META)
    return path


def face_weights(folder: Path) -> Path:
    """A tiny face encoder as files."""
    torch.manual_seed(0)
    path = folder / "face.safetensors"
    face_encoder.save(path, FaceEncoder(FACE).eval(), FACE_META)
    return path
