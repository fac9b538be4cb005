"""Tiny encoders made on the spot. Their weights are random: they stand for shapes, never for answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from workers import face_encoder, voice_file
from workers.face_encoder import FaceEncoder, FaceMeta, FaceNetConfig
from workers.text_encoder import DEFAULT_ENCODER, encoder_folder
from workers.voice_encoder import VoiceEncoder, VoiceEncoderConfig
from workers.voice_file import VoiceMeta

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
    voice_file.save(path, tiny_voice(), VOICE_META)
    return path


def sentence_encoder(folder: Path, kind: str = "Bert", pooling: str = "mean_tokens") -> str:
    """A tiny random sentence encoder in a new folder, with the default encoder's tokenizer.

    `kind` is "Bert", or "Roberta", which counts its positions from the tokens that are no padding.
    """
    import transformers

    untyped: Any = transformers
    torch.manual_seed(0)
    words = untyped.AutoTokenizer.from_pretrained(encoder_folder(DEFAULT_ENCODER))
    words.save_pretrained(folder)
    config = getattr(untyped, f"{kind}Config")(
        vocab_size=len(words),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=80,
        pad_token_id=words.pad_token_id,
    )
    getattr(untyped, f"{kind}Model")(config).save_pretrained(folder)
    modules = {"Transformer": "", "Pooling": "1_Pooling"}
    (folder / "modules.json").write_text(
        json.dumps(
            [
                {"idx": n, "name": str(n), "path": path, "type": f"sentence_transformers.models.{name}"}
                for n, (name, path) in enumerate(modules.items())
            ]
        )
    )
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 64, "do_lower_case": false}')
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(
        json.dumps({"word_embedding_dimension": 32, f"pooling_mode_{pooling}": True})
    )
    return str(folder)


def face_weights(folder: Path) -> Path:
    """A tiny face encoder as files."""
    torch.manual_seed(0)
    path = folder / "face.safetensors"
    face_encoder.save(path, FaceEncoder(FACE).eval(), FACE_META)
    return path
