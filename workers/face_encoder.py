"""Face encoder: a grey face, 48 x 48, in; a vector of its expression and what a crowd would call it, out.

Config, blocks, network, then the files it lives in: `NAME.safetensors` (half precision) and `NAME.json` (all
the rest, with the fingerprint of the weights). Knows pixels; not where faces come from, nor how it learned.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load as tensors_from_bytes
from safetensors.torch import save as tensors_to_bytes
from torch import Tensor, nn
from torch.nn import functional as F

from realtime.errors import ModelUnavailable

FORMAT = 1
FACE_PX = 48
# The order of the FER+ votes, and of the posterior.
LABELS = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt")
_CHUNK = 128  # faces of one call, so that a long list costs no more memory

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class FaceNetConfig:
    """Shape of the network; the map is halved by the stem and by every stage but the first."""

    stem: int = 64  # channels
    widths: tuple[int, ...] = (64, 128, 256)  # channels of a stage
    depths: tuple[int, ...] = (1, 2, 1)  # blocks of a stage
    squeeze: int = 8  # channels are gated through so many times fewer
    dim: int = 128  # of the embedding
    dropout: float = 0.3  # of the embedding, before the labels

    def __post_init__(self) -> None:
        if not self.widths or len(self.widths) != len(self.depths):
            raise ValueError("widths and depths must name the same stages")


class SqueezeExcite(nn.Module):
    """Channels gated by the mean of the whole map (Hu et al. 2018)."""

    def __init__(self, width: int, reduction: int) -> None:
        super().__init__()
        self.down = nn.Linear(width, width // reduction)
        self.up = nn.Linear(width // reduction, width)

    def forward(self, x: Tensor) -> Tensor:  # [B, C, H, W]
        gate = torch.sigmoid(self.up(F.relu(self.down(x.mean(dim=(2, 3))))))
        return x * gate[:, :, None, None]


class Block(nn.Module):
    """Residual block of two 3 x 3 convolutions; a halving one averages on its skip path (ResNet-D)."""

    def __init__(self, inputs: int, width: int, stride: int, squeeze: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        nn.init.zeros_(self.norm2.weight)  # every block starts as its skip path
        self.gate = SqueezeExcite(width, squeeze)
        halve = nn.AvgPool2d(2, ceil_mode=True, count_include_pad=False) if stride == 2 else nn.Identity()
        match = nn.Conv2d(inputs, width, 1, bias=False) if inputs != width else nn.Identity()
        self.skip = nn.Sequential(halve, match)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.norm1(self.conv1(x)), inplace=True)
        h = self.gate(self.norm2(self.conv2(h)))
        return F.relu(h + self.skip(x), inplace=True)


class FaceEncoder(nn.Module):
    """Grey [B, 1, H, W], any scale of brightness, H and W even -> embedding [B, dim], posterior [B, 8]."""

    def __init__(self, config: FaceNetConfig = FaceNetConfig()) -> None:
        super().__init__()
        self.config = config
        self.stem = nn.Conv2d(
            4, config.stem, 3, 1, 1, bias=False
        )  # on 2 x 2 pixels: a 6 x 6 filter, stride 2
        self.norm = nn.BatchNorm2d(config.stem)
        blocks, inputs = [], config.stem
        for stage, (width, depth) in enumerate(zip(config.widths, config.depths, strict=True)):
            for place in range(depth):
                stride = 2 if stage > 0 and place == 0 else 1
                blocks.append(Block(inputs, width, stride, config.squeeze))
                inputs = width
        self.blocks = nn.Sequential(*blocks)
        self.power = nn.Parameter(torch.tensor(3.0))  # of the generalised mean: 1 = mean, infinite = maximum
        self.project = nn.Linear(inputs, config.dim, bias=False)
        self.spread = nn.BatchNorm1d(config.dim)
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(config.dim, len(LABELS))

    def trunk(self, grey: Tensor) -> Tensor:
        """Grey -> map [B, C, h, w]: standardised, then convolved."""
        x = F.pixel_unshuffle(standardise(grey), 2)
        x = F.relu(self.norm(self.stem(x)), inplace=True)
        return self.blocks(x)  # type: ignore[no-any-return]

    def embed(self, maps: Tensor) -> Tensor:
        """Map -> embedding [B, dim], each number of about zero mean and unit deviation over faces."""
        power = self.power.clamp(1.0, 8.0)
        pooled = maps.clamp(min=1e-3).pow(power).mean(dim=(2, 3)).pow(1.0 / power)
        return self.spread(self.project(pooled))  # type: ignore[no-any-return]

    def logits(self, embedding: Tensor) -> Tensor:
        """Embedding -> [B, 8] before the softmax."""
        return self.head(self.dropout(embedding))  # type: ignore[no-any-return]

    def forward(self, grey: Tensor) -> tuple[Tensor, Tensor]:
        embedding = self.embed(self.trunk(grey))
        return embedding, torch.softmax(self.logits(embedding), dim=1)


def standardise(grey: Tensor) -> Tensor:
    """Each picture to zero mean and unit deviation, so exposure and contrast cancel; a flat one to zeros."""
    x = grey.float()
    x = x - x.mean(dim=(2, 3), keepdim=True)
    return x / (x.square().mean(dim=(2, 3), keepdim=True).sqrt() + 1.0)  # one grey level of noise


class Faces(NamedTuple):
    """What the encoder says of n faces."""

    embedding: Floats  # [n, dim]
    posterior: Floats  # [n, 8], rows sum to 1, the order of LABELS


@torch.inference_mode()
def encode(model: FaceEncoder, faces: NDArray[np.uint8]) -> Faces:
    """Grey uint8 [n, 48, 48] -> embedding and posterior, each the mean of the face and its mirror image."""
    embedding = np.zeros((len(faces), model.config.dim), np.float32)
    posterior = np.zeros((len(faces), len(LABELS)), np.float32)
    for first in range(0, len(faces), _CHUNK):
        rows = slice(first, first + _CHUNK)
        grey = torch.from_numpy(np.ascontiguousarray(faces[rows, None]))
        as_seen, mirrored = model(grey), model(grey.flip(3))
        embedding[rows] = ((as_seen[0] + mirrored[0]) / 2).numpy()
        posterior[rows] = ((as_seen[1] + mirrored[1]) / 2).numpy()
    return Faces(embedding, posterior)


@dataclass(frozen=True, slots=True)
class FaceMeta:
    """`NAME.json`."""

    name: str
    version: str
    config: FaceNetConfig
    licence: str
    data_sources: tuple[str, ...]
    training: Mapping[str, Any]  # how it was made, and its figures; for people
    labels: tuple[str, ...] = LABELS


def save(path: Path, model: FaceEncoder, meta: FaceMeta) -> None:
    """Write `path` (.safetensors) and the JSON beside it."""
    state = {
        key: (tensor.half() if tensor.is_floating_point() else tensor).contiguous()
        for key, tensor in model.state_dict().items()
    }
    packed = tensors_to_bytes(state, metadata={"format": f"cmath-stream-face/{FORMAT}"})
    fingerprint = hashlib.sha256(packed).hexdigest()
    record = {"format": FORMAT, **asdict(meta), "dim": meta.config.dim, "weights_sha256": fingerprint}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(packed)
    path.with_suffix(".json").write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", "utf-8")


def load(path: Path) -> tuple[FaceEncoder, FaceMeta]:
    """Read an encoder, in eval mode. Raises ModelUnavailable, in one line, for anything but a whole one."""
    card = path.with_suffix(".json")
    try:
        packed, record = path.read_bytes(), json.loads(card.read_bytes())
        if record["format"] != FORMAT:
            raise ModelUnavailable(f"{card}: format {record['format']!r}, this program reads {FORMAT}")
        if hashlib.sha256(packed).hexdigest() != record["weights_sha256"]:
            raise ModelUnavailable(f"{path}: damaged, or not the weights {card.name} belongs to")
        config = record["config"]
        shape = config | {key: tuple(config[key]) for key in ("widths", "depths")}
        meta = FaceMeta(
            name=record["name"],
            version=record["version"],
            config=FaceNetConfig(**shape),
            licence=record["licence"],
            data_sources=tuple(record["data_sources"]),
            training=record["training"],
            labels=tuple(record["labels"]),
        )
        if meta.labels != LABELS:
            raise ModelUnavailable(f"{card}: labels this program does not know")
        model = FaceEncoder(meta.config)
        model.load_state_dict(tensors_from_bytes(packed))
    except OSError as error:
        raise ModelUnavailable(f"{error.filename}: {error.strerror}") from error
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, SafetensorError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelUnavailable(f"{card}: not a usable face encoder: {reason}") from error
    return model.eval().requires_grad_(False), meta


def shipped() -> Path:
    """The encoder inside this package."""
    return Path(__file__).parent / "weights" / "face.safetensors"
