"""A trained CMATH on disk: `NAME.safetensors` (weights, z-score statistics) and `NAME.json` (all the rest).

Knows files. Nothing here is pickled, and the JSON carries the fingerprint of its weights, so that a foreign,
damaged or half-copied checkpoint is one clear line instead of a wrong answer.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load as tensors_from_bytes
from safetensors.torch import save as tensors_to_bytes

from cmath_stream.checkpoint_files import CheckpointError, pair
from cmath_stream.model import CMATH, CMATHConfig

FORMAT = 1
_DECODER = "rebuilders."  # training only, never written


class Identity(Protocol):
    """What an extractor says of itself."""

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def dim(self) -> int: ...


@dataclass(frozen=True, slots=True)
class ModalitySpec:
    """The features one input of the model was trained on."""

    modality: str  # "text", "audio", "visual"
    name: str  # of the extractor
    version: str
    dim: int  # of what the extractor gives
    running: bool = False  # the model takes it twice: as it is, and from the person's running mean

    @property
    def inputs(self) -> int:
        """Numbers that the model takes."""
        return 2 * self.dim if self.running else self.dim


@dataclass(frozen=True, slots=True)
class CheckpointMeta:
    """`NAME.json`. Temperatures are keyed by the present modalities in model order, joined by `+`."""

    name: str
    version: str
    label_set: str
    labels: tuple[str, ...]  # [C], the order of the logits
    modalities: tuple[ModalitySpec, ...]  # [M], the order of `features`
    config: CMATHConfig
    temperatures: Mapping[str, float]
    abstain_below: float  # calibrated probability of the best label under which no label is given
    reliability: Mapping[str, float]  # by modality: accuracy on validation where it is all there is
    licence: str
    data_sources: tuple[str, ...]
    validation: Mapping[str, Any]  # figures by presence pattern; for people

    def pattern(self, presence: NDArray[np.bool_]) -> str:
        """[M] bool -> the key of `temperatures`; empty where nothing is present."""
        return "+".join(spec.modality for spec, there in zip(self.modalities, presence, strict=True) if there)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model in eval mode, without its decoder, and what belongs to it."""

    model: CMATH
    meta: CheckpointMeta

    def require(self, extractors: Mapping[str, Identity]) -> None:
        """Check extractors, by modality, against the features the model was trained on.

        A modality the model knows and nobody extracts is absent for good; one the model does not know is
        ignored.
        Raises CheckpointError naming the first extractor that does not fit.
        """
        for spec in self.meta.modalities:
            have = extractors.get(spec.modality)
            if have is None:
                continue
            if (have.name, have.version, have.dim) != (spec.name, spec.version, spec.dim):
                raise CheckpointError(
                    f"checkpoint {self.meta.name!r} was trained on {spec.modality} features "
                    f"{spec.name}/{spec.version} [{spec.dim}], the extractor gives "
                    f"{have.name}/{have.version} [{have.dim}]"
                )

    def everybody(self) -> dict[str, NDArray[np.float32]]:
        """By modality that is taken from the running mean: the mean [D] over all training data.

        It is the z-score statistic of the half that is taken as it is.
        """
        compressors = zip(self.meta.modalities, self.model.compressors, strict=True)
        return {
            spec.modality: compressor.mean[: spec.dim].numpy()  # type: ignore[index]
            for spec, compressor in compressors
            if spec.running
        }

    def probabilities(self, logits: NDArray[np.float32], presence: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Calibrated probabilities of rows: logits [n, C], presence [n, M] -> [n, C], each summing to 1."""
        temperature = np.array([self.meta.temperatures.get(self.meta.pattern(row), 1.0) for row in presence])
        scaled = logits.astype(np.float64) / temperature[:, None]
        odds = np.exp(scaled - scaled.max(axis=1, keepdims=True))
        result: NDArray[np.float64] = odds / odds.sum(axis=1, keepdims=True)
        return result


def save(path: Path, model: CMATH, meta: CheckpointMeta) -> None:
    """Write both files beside each other; the weights first, so that a crash leaves no pair that loads."""
    weights, card = pair(path)
    weights.parent.mkdir(parents=True, exist_ok=True)
    state = {
        key: tensor.contiguous() for key, tensor in model.state_dict().items() if not key.startswith(_DECODER)
    }
    packed = tensors_to_bytes(state, metadata={"format": f"cmath-stream/{FORMAT}"})
    record = {"format": FORMAT, **asdict(meta), "weights_sha256": hashlib.sha256(packed).hexdigest()}
    _replace(weights, packed)
    _replace(card, (json.dumps(record, indent=2, ensure_ascii=False) + "\n").encode())


def load(path: Path) -> Checkpoint:
    """Read a checkpoint by the path of either of its files, or by their common stem.

    Raises CheckpointError, in one line, for anything that is not a whole checkpoint of this format.
    """
    weights, card = pair(path)
    try:
        packed, record = weights.read_bytes(), json.loads(card.read_bytes())
    except OSError as error:
        raise CheckpointError(f"{error.filename}: {error.strerror}") from error
    except ValueError as error:
        raise CheckpointError(f"{card}: not a checkpoint: no JSON in it") from error
    if not isinstance(record, dict) or "weights_sha256" not in record:
        raise CheckpointError(f"{card}: not a checkpoint")
    if record.get("format") != FORMAT:
        raise CheckpointError(f"{card}: format {record.get('format')!r}, this program reads {FORMAT}")
    if hashlib.sha256(packed).hexdigest() != record["weights_sha256"]:
        raise CheckpointError(f"{weights}: damaged, or not the weights {card.name} belongs to")
    try:
        meta = _meta(record)
        model = CMATH(meta.config, decoder=False)
        model.load_state_dict(tensors_from_bytes(packed))
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, SafetensorError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{card}: not a usable checkpoint: {reason}") from error
    return Checkpoint(model.eval().requires_grad_(False), meta)


def _meta(record: Mapping[str, Any]) -> CheckpointMeta:
    config = dict(record["config"])
    config["dims"] = tuple((str(name), int(dim)) for name, dim in config["dims"])
    config["centres"] = tuple(config["centres"])
    meta = CheckpointMeta(
        name=record["name"],
        version=record["version"],
        label_set=record["label_set"],
        labels=tuple(record["labels"]),
        modalities=tuple(ModalitySpec(**spec) for spec in record["modalities"]),
        config=CMATHConfig(**config),
        temperatures={str(key): float(value) for key, value in record["temperatures"].items()},
        abstain_below=float(record["abstain_below"]),
        reliability={str(key): float(value) for key, value in record["reliability"].items()},
        licence=record["licence"],
        data_sources=tuple(record["data_sources"]),
        validation=record["validation"],
    )
    if meta.config.dims != tuple((spec.modality, spec.inputs) for spec in meta.modalities):
        raise ValueError("modalities and config disagree")
    if meta.config.classes != len(meta.labels) or min(meta.temperatures.values(), default=1.0) <= 0.0:
        raise ValueError("labels or temperatures make no sense")
    return meta


def _replace(path: Path, content: bytes) -> None:
    partial = path.with_name(f"{path.name}.partial")
    partial.write_bytes(content)
    os.replace(partial, path)
