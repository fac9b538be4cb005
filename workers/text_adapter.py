"""Our emotion adapter for the sentence encoder: low-rank changes to its linear layers, folded in at load.

`NAME.safetensors` holds, for each changed layer, `LAYER.up` [out, rank] and `LAYER.down` [rank, in], float16:
its weight becomes W + up @ down, so a sentence costs what it cost before. `NAME.json` says the rest, with the
fingerprints of both the factors and the encoder they were made for. Nothing here is pickled.
An adapted embedding still has unit length: similarities are cosines, and now follow emotion more than topic.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as arrays_from_bytes
from safetensors.numpy import save as arrays_to_bytes

from realtime.errors import ModelUnavailable
from workers.extractor import FeatureSpec

if TYPE_CHECKING:
    from torch import nn

FORMAT = "cmath-stream/text-adapter/1"

Factor = NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True)
class AdapterMeta:
    """`NAME.json`."""

    name: str  # of the features, as "all-MiniLM-L6-v2+emotion"
    version: str
    dim: int  # numbers of an embedding
    base: str  # the encoder it changes
    base_sha256: str  # see `fingerprint`
    licence: str
    data_sources: tuple[str, ...]
    validation: Mapping[str, Any]  # figures; for people


def shipped() -> Path:
    """The adapter inside this package."""
    return Path(__file__).parent / "weights" / "text.safetensors"


def apply(encoder: Any, path: Path) -> FeatureSpec:
    """Fold the adapter at `path` into a sentence-transformers encoder, once; returns what it gives now.

    Raises ModelUnavailable, in one line and before anything is changed, for files that are no whole adapter
    of this format, and for one that was made for another encoder.
    """
    import torch  # not above: a caller that only names an adapter must not pay for it

    meta, factors = read(path)
    if meta.base_sha256 != fingerprint(encoder):
        raise ModelUnavailable(f"text adapter {path}: made for {meta.base}, not for this encoder")
    layers = dict(transformer(encoder).named_modules())
    deltas: list[tuple[torch.Tensor, NDArray[np.float32]]] = []
    for name in sorted({key.rpartition(".")[0] for key in factors}):
        layer, up, down = layers.get(name), factors.get(f"{name}.up"), factors.get(f"{name}.down")
        if not isinstance(layer, torch.nn.Linear) or up is None or down is None:
            raise ModelUnavailable(f"text adapter {path}: not a usable adapter: layer {name!r}")
        if (up.shape[0], down.shape[1]) != layer.weight.shape or up.shape[1] != down.shape[0]:
            raise ModelUnavailable(f"text adapter {path}: not a usable adapter: shape of {name!r}")
        deltas.append((layer.weight, up.astype(np.float32) @ down.astype(np.float32)))
    with torch.no_grad():
        for weight, delta in deltas:
            weight += torch.from_numpy(delta).to(weight)
    return FeatureSpec(meta.name, meta.version, meta.dim)


def read(path: Path) -> tuple[AdapterMeta, dict[str, Factor]]:
    """An adapter by the path of one of its files or their stem. Raises ModelUnavailable as `apply` does."""
    weights, card = _pair(path)
    try:
        packed, record = weights.read_bytes(), json.loads(card.read_bytes())
    except OSError as error:
        raise ModelUnavailable(f"text adapter {error.filename}: {error.strerror}") from error
    except ValueError as error:
        raise ModelUnavailable(f"text adapter {card}: no JSON in it") from error
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise ModelUnavailable(f"text adapter {card}: not of format {FORMAT}")
    if hashlib.sha256(packed).hexdigest() != record.get("weights_sha256"):
        raise ModelUnavailable(f"text adapter {weights}: damaged, or not the weights {card.name} belongs to")
    fields = {key: value for key, value in record.items() if key not in ("format", "weights_sha256")}
    try:
        meta = AdapterMeta(**fields | {"data_sources": tuple(record["data_sources"])})
        return meta, arrays_from_bytes(packed)
    except (KeyError, TypeError, SafetensorError) as error:
        raise ModelUnavailable(f"text adapter {card}: not a usable adapter: {error}") from error


def digest(path: Path) -> str:
    """SHA-256 of both files of an adapter, known without reading the factors. Raises ModelUnavailable."""
    try:
        return hashlib.sha256(b"".join(file.read_bytes() for file in _pair(path))).hexdigest()
    except OSError as error:
        raise ModelUnavailable(f"text adapter {error.filename}: {error.strerror}") from error


def save(path: Path, factors: Mapping[str, Factor], meta: AdapterMeta) -> None:
    """Write both files, factors as float16; the weights first, so that no half pair loads."""
    weights, card = _pair(path)
    weights.parent.mkdir(parents=True, exist_ok=True)
    packed = arrays_to_bytes({key: np.ascontiguousarray(value, np.float16) for key, value in factors.items()})
    record = {"format": FORMAT, **asdict(meta), "weights_sha256": hashlib.sha256(packed).hexdigest()}
    _replace(weights, packed)
    _replace(card, (json.dumps(record, indent=2, ensure_ascii=False) + "\n").encode())


def transformer(encoder: Any) -> nn.Module:
    """The transformer inside a sentence-transformers encoder. Raises ModelUnavailable where there is none."""
    from torch import nn

    inner = getattr(encoder[0], "auto_model", None)
    if not isinstance(inner, nn.Module):
        raise ModelUnavailable("this text encoder has no transformer that an adapter could change")
    return inner


def fingerprint(encoder: Any) -> str:
    """SHA-256 of the biases and norms: small, in every layer, and never changed by an adapter."""
    digest = hashlib.sha256()
    for name, value in sorted(transformer(encoder).named_parameters()):
        if value.ndim == 1:
            digest.update(name.encode())
            digest.update(value.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()


def _pair(path: Path) -> tuple[Path, Path]:
    stem = path.name.removesuffix(".safetensors").removesuffix(".json")
    return path.with_name(f"{stem}.safetensors"), path.with_name(f"{stem}.json")


def _replace(path: Path, content: bytes) -> None:
    partial = path.with_name(f"{path.name}.partial")
    partial.write_bytes(content)
    os.replace(partial, path)
