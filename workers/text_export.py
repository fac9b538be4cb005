"""A sentence encoder made into a graph for onnxruntime, once, and kept in the cache.

What is exported is the encoder with its adapter folded in, mean pooling and the unit length inside the graph.
It is taken only if it gives torch's vectors on `PROBES`; int8 only if it stays close to fp32 on them.
A folder of the cache is named by the fingerprint of encoder, adapter and format, and appears whole or not at
all. Where it is there, nothing here imports torch.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from realtime.errors import ModelUnavailable
from workers import text_adapter, text_onnx
from workers.text_encoder import TorchEmbedder, adapter_path, encoder_folder, load_embedder
from workers.text_onnx import FORMAT, GRAPH, INPUTS, OUTPUT, TOKENIZER, OnnxEmbedder, Precision, padded

log = logging.getLogger(__name__)

TOLERANCE = 1e-4  # largest difference of a number of fp32 to torch's
LEAST_COSINE = 0.97  # of int8 to fp32, on the worst of PROBES

PROBES = (
    "",
    "Oh.",
    "No!",
    "Okay, see you later.",
    "I am so happy for you two!",
    "WHY would you DO that to me?",
    "Well, that went better than expected.",
    "I can't believe she's gone, I just can't.",
    "Leave me alone, I said leave me ALONE!",
    "Ew, that is disgusting, get it away from me.",
    "What was that noise? Is somebody there?",
    "The invoice is due on Friday, 14 March, at 09:30.",
    "You know what, fine, do whatever you want, I really don't care any more.",
    "Yeah, yeah, right, sure... as if that had ever worked for anybody.",
    "Thank you, thank you, thank you - you have no idea how much this means to me!",
    "So I told him that we would think about it, and then he hung up, and that was that.",
    "Café, naïve, façade, señor: ÀÉÎÕÜ ß",
    "C'est la vie 😢💔 lol 😂😂😂",
    "我不知道。 Я не знаю. どうして",
    "a\tb\n c\u200bd\u00a0e",
    "http://example.org/?q=1&r=2 #tag @someone",
    "supercalifragilisticexpialidocious" * 6,
    "and then she said that he said that we said " * 60,
)


class NotExportable(ModelUnavailable):
    """An encoder that cannot be had as a graph here, though torch may run it."""


def open_or_export(
    encoder: str, adapter: str, precision: Precision, cache: Path, threads: int
) -> OnnxEmbedder:
    """The export of an encoder, from the cache or made now. Raises NotExportable, ModelUnavailable."""
    changes = adapter_path(encoder, adapter)
    folder = encoder_folder(encoder)
    made: TorchEmbedder | None = None
    if folder is None:  # torch fetches it
        made = load_embedder(encoder, adapter, "cpu")
        folder = encoder_folder(encoder)
    if folder is None:
        raise NotExportable(f"the files of text encoder {encoder!r} are not found on this machine")
    name = Path(encoder).name
    place = cache / "text" / f"{name}-{fingerprint(name, folder, changes)[:16]}"
    if precision == "fp32":
        return _full(encoder, adapter, place, threads, made)
    small = place.with_name(f"{place.name}-int8")
    found = text_onnx.load(small, threads)
    if found is None:
        found = _quantised(_full(encoder, adapter, place, threads, made), place, small, threads)
    if found.card.cosine >= LEAST_COSINE:
        return found
    log.info("text: int8 is too far from fp32 (cosine %.3f), so fp32 is used", found.card.cosine)
    return _full(encoder, adapter, place, threads, made)


def fingerprint(name: str, folder: Path, adapter: Path | None) -> str:
    """SHA-256 of all that decides an export: format, the features' name, the encoder's files, the adapter."""
    digest = hashlib.sha256(f"{FORMAT}\n{name}\n".encode())
    for path in sorted(path for path in folder.rglob("*") if path.suffix in _PARTS and _is_own(path, folder)):
        with path.open("rb") as file:
            digest.update(f"{path.relative_to(folder).as_posix()}\n".encode())
            digest.update(hashlib.file_digest(file, "sha256").digest())
    if adapter is not None:
        digest.update(text_adapter.digest(adapter).encode())
    return digest.hexdigest()


_PARTS = frozenset({".json", ".txt", ".model", ".safetensors", ".bin"})


def _is_own(path: Path, folder: Path) -> bool:
    """Not one of the conversions that the hub keeps beside the weights."""
    return path.is_file() and path.relative_to(folder).parts[0] not in ("onnx", "openvino")


def _full(encoder: str, adapter: str, place: Path, threads: int, made: TorchEmbedder | None) -> OnnxEmbedder:
    found = text_onnx.load(place, threads)
    if found is None:
        found = export(made or load_embedder(encoder, adapter, "cpu"), place, threads)
    return found


def export(source: TorchEmbedder, place: Path, threads: int) -> OnnxEmbedder:
    """Make `place` the export of a torch encoder. Raises NotExportable; then there is nothing at `place`."""
    began_s = time.perf_counter()
    _check(source.model)
    with _at_once(place) as folder:
        tokenizer = _tokenizer(source.model)
        (folder / TOKENIZER).write_text(tokenizer.to_str(), "utf-8")
        tokenizer.no_padding()
        tokens = [tokenizer.encode(text).ids for text in PROBES[1:4]]
        _trace(source.model, padded(tokens, source.model.tokenizer.pad_token_id), folder / GRAPH)
        text_onnx.seal(folder, source.spec, "fp32", 1.0)
        made = text_onnx.load(folder, threads)
        assert made is not None
        apart = float(np.abs(made(PROBES) - source(PROBES)).max())
        if not apart <= TOLERANCE:
            raise NotExportable(f"its graph gives other vectors than torch, by up to {apart:.1g}")
    log.info("text: encoder exported in %.0f s, kept in %s", time.perf_counter() - began_s, place)
    return made


def _quantised(full: OnnxEmbedder, source: Path, place: Path, threads: int) -> OnnxEmbedder:
    """Make `place` the int8 form of the export in `source`: the weights of its MatMul, per channel."""
    with _at_once(place) as folder:
        shutil.copyfile(source / TOKENIZER, folder / TOKENIZER)
        _quantise(source / GRAPH, folder / GRAPH)
        text_onnx.seal(folder, full.spec, "int8", 0.0)
        trial = text_onnx.load(folder, threads)
        assert trial is not None
        cosine = float((trial(PROBES) * full(PROBES)).sum(axis=1).min())
        text_onnx.seal(folder, full.spec, "int8", round(cosine, 4))
        made = text_onnx.load(folder, threads)
        assert made is not None
    return made


def _check(model: Any) -> None:
    """Only what the graph imitates: a transformer, the mean of its tokens, perhaps unit length."""
    kinds = [type(module).__name__ for module in model]
    if kinds[:2] != ["Transformer", "Pooling"] or kinds[2:] not in ([], ["Normalize"]):
        raise NotExportable(f"its layers are {', '.join(kinds)}, not a transformer with mean pooling")
    text_adapter.transformer(model)
    if getattr(model.tokenizer, "backend_tokenizer", None) is None:
        raise NotExportable("its tokenizer is not a fast one")


def _tokenizer(model: Any) -> Any:
    """A copy of the tokenizer with the truncation and the padding that torch's path asks of it."""
    from tokenizers import Tokenizer

    given = model.tokenizer
    tokenizer = Tokenizer.from_str(given.backend_tokenizer.to_str())
    tokenizer.enable_padding(pad_id=given.pad_token_id, pad_token=given.pad_token)
    tokenizer.enable_truncation(max_length=int(model.max_seq_length))
    return tokenizer


def _trace(model: Any, example: tuple[Any, Any], path: Path) -> None:
    """Write the graph of transformer, mean pooling and unit length. Raises NotExportable."""
    import torch

    class Sentences(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = text_adapter.transformer(model)

        def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:  # [B, T] -> [B, D]
            hidden: torch.Tensor = self.inner(input_ids=ids, attention_mask=mask)[0]  # [B, T, D]
            real = mask.unsqueeze(2).to(hidden.dtype)
            # [CLS] and [SEP] are real, so that no text is without a token.
            return torch.nn.functional.normalize((hidden * real).sum(1) / real.sum(1), dim=1)

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # tracing warns of every shape it meets; PROBES have many
            # The newer exporter (dynamo) gives the same graph for eight times the time and another package.
            torch.onnx.export(
                Sentences().eval(),
                tuple(torch.from_numpy(each) for each in example),
                str(path),
                input_names=list(INPUTS),
                output_names=[OUTPUT],
                dynamic_axes={name: {0: "texts", 1: "tokens"} for name in INPUTS},
                opset_version=17,
                dynamo=False,
            )
    except Exception as error:  # tracing fails in as many ways as there are models; none may stop the worker
        reason = str(error).strip().partition("\n")[0]
        raise NotExportable(f"torch.onnx.export: {reason}") from error


def _quantise(source: Path, target: Path) -> None:
    try:
        from onnxruntime.quantization import QuantType, quantize_dynamic, shape_inference
    except ImportError as error:
        raise NotExportable(f"int8 needs a package: {error}") from error
    prepared = target.with_suffix(".prepared")
    shape_inference.quant_pre_process(source, prepared, skip_optimization=True, skip_symbolic_shape=True)
    quantize_dynamic(
        prepared, target, op_types_to_quantize=["MatMul"], per_channel=True, weight_type=QuantType.QInt8
    )
    prepared.unlink()


@contextmanager
def _at_once(place: Path) -> Iterator[Path]:
    """A folder to fill that becomes `place` at the end, if all goes well."""
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".partial-", dir=place.parent) as partial:
            folder = Path(partial, place.name)
            folder.mkdir()
            yield folder
            if place.exists():  # damaged, or just made by another worker: either way as good as what comes
                os.replace(place, Path(partial, "before"))
            os.replace(folder, place)
    except OSError as error:
        raise NotExportable(f"it cannot be kept in {place.parent}: {error.strerror or error}") from error
