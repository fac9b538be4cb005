"""A voice encoder on disk: its weights (safetensors) and, beside them, JSON that says what they are.

Knows the two files; not what the network makes of a voice.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as tensors_from_bytes
from safetensors.torch import save as tensors_to_bytes

from realtime.errors import ModelUnavailable
from workers.voice_encoder import EMOTIONS, VoiceEncoder, VoiceEncoderConfig

FORMAT = 2


@dataclass(frozen=True, slots=True)
class VoiceMeta:
    """`NAME.json`: what the weights beside it are."""

    name: str
    version: str
    config: VoiceEncoderConfig
    normalisation: str  # for people: what the embedding does not depend on
    licence: str
    data_sources: tuple[str, ...]
    training: Mapping[str, Any]  # recipe and figures; for people


def save(path: Path, model: VoiceEncoder, meta: VoiceMeta) -> None:
    """Write `path` (.safetensors) and the JSON beside it."""
    state = {key: tensor.contiguous() for key, tensor in model.state_dict().items()}
    packed = tensors_to_bytes(state, metadata={"format": f"cmath-stream-voice/{FORMAT}"})
    record = {"format": FORMAT, **asdict(meta), "dim": meta.config.embedding, "labels": EMOTIONS}
    record["weights_sha256"] = hashlib.sha256(packed).hexdigest()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(packed)
    path.with_suffix(".json").write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", "utf-8")


def load(path: Path) -> tuple[VoiceEncoder, VoiceMeta]:
    """Read an encoder, in eval mode. Raises ModelUnavailable, in one line, for anything but a whole one."""
    card = path.with_suffix(".json")
    try:
        packed, record = path.read_bytes(), json.loads(card.read_bytes())
        if record["format"] != FORMAT:
            raise ModelUnavailable(f"{card}: format {record['format']!r}, this program reads {FORMAT}")
        if hashlib.sha256(packed).hexdigest() != record["weights_sha256"]:
            raise ModelUnavailable(f"{path}: damaged, or not the weights {card.name} belongs to")
        shape: dict[str, Any] = {
            key: tuple(v) if isinstance(v, list) else v for key, v in record["config"].items()
        }
        texts = {key: record[key] for key in ("name", "version", "normalisation", "licence", "training")}
        sources = tuple(record["data_sources"])
        meta = VoiceMeta(config=VoiceEncoderConfig(**shape), data_sources=sources, **texts)
        if tuple(record["labels"]) != EMOTIONS:
            raise ModelUnavailable(f"{card}: labels this program does not know")
        model = VoiceEncoder(meta.config)
        model.load_state_dict(tensors_from_bytes(packed))
    except (OSError, KeyError, TypeError, ValueError, AttributeError, RuntimeError, SafetensorError) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ModelUnavailable(f"{card}: not a usable voice encoder: {reason}") from error
    return model.eval().requires_grad_(False), meta


def shipped() -> Path:
    """The encoder inside this package."""
    return Path(__file__).parent / "weights" / "voice.safetensors"
