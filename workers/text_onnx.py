"""The sentence encoder without torch: a graph that was made once, run by onnxruntime on the CPU.

An export is a folder: `encoder.onnx` (tokens and their mask in, unit vectors out), `tokenizer.json` (with the
encoder's own truncation and padding) and `card.json`, which says what it gives and holds the SHA-256 of the
other two. Knows exports; how one is made is `workers.text_export`.
Letters: N texts, B texts of one pass, T tokens of its longest, D numbers of an embedding.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from workers.extractor import FeatureSpec
from workers.text_encoder import Floats

log = logging.getLogger(__name__)

FORMAT = "cmath-stream/text-onnx/1"
GRAPH, TOKENIZER, CARD = "encoder.onnx", "tokenizer.json", "card.json"
INPUTS, OUTPUT = ("ids", "mask"), "vectors"  # int64 [B, T] each -> float32 [B, D]

Precision = Literal["fp32", "int8"]
Tokens = NDArray[np.int64]

_BATCH = 32  # texts of one pass, all of similar length


@dataclass(frozen=True, slots=True)
class ExportCard:
    """`card.json`."""

    name: str  # of the features, as in FeatureSpec
    version: str
    dim: int
    precision: Precision
    cosine: float  # to the vectors of fp32, the worst of the probes; 1 for fp32 itself
    sha256: Mapping[str, str]  # of the other files


class OnnxEmbedder:
    """An export, ready to run; all calls from one thread.

    A text gives the same vector alone and in company. In fp32 padding is masked; int8 scales its activations
    by the largest of a pass, so there each text runs by itself (and a batch would hardly be faster).
    """

    def __init__(self, card: ExportCard, graph: bytes, tokenizer: bytes, threads: int) -> None:
        import onnxruntime
        from tokenizers import Tokenizer

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        # A thread that spins until its next piece of work takes the core from whoever has work: on a busy
        # machine two threads would then take twice the time of one.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.card = card
        self.spec = FeatureSpec(card.name, card.version, card.dim)
        self._session: Any = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        self._tokenizer = Tokenizer.from_buffer(tokenizer)
        padding = self._tokenizer.padding
        self._pad = int(padding["pad_id"]) if padding else 0
        self._tokenizer.no_padding()  # a pass is as long as its own longest text
        self._batch = _BATCH if card.precision == "fp32" else 1

    def __call__(self, texts: Sequence[str]) -> Floats:
        """Texts -> float32 [N, D], unit length."""
        tokens: list[list[int]] = [found.ids for found in self._tokenizer.encode_batch_fast(list(texts))]
        vectors = np.empty((len(texts), self.spec.dim), np.float32)
        order = sorted(range(len(texts)), key=lambda n: len(tokens[n]))
        for start in range(0, len(order), self._batch):
            chosen = order[start : start + self._batch]
            given = dict(zip(INPUTS, padded([tokens[n] for n in chosen], self._pad), strict=True))
            (vectors[chosen],) = self._session.run([OUTPUT], given)
        return vectors


def padded(tokens: Sequence[Sequence[int]], pad: int) -> tuple[Tokens, Tokens]:
    """Tokens of B texts -> ids and mask, each [B, T]."""
    longest = max(map(len, tokens))
    ids, mask = np.full((len(tokens), longest), pad, np.int64), np.zeros((len(tokens), longest), np.int64)
    for row, text in enumerate(tokens):
        ids[row, : len(text)] = text
        mask[row, : len(text)] = 1
    return ids, mask


def load(folder: Path, threads: int) -> OnnxEmbedder | None:
    """The export in `folder`; None where there is none, or where it is not what its card says."""
    if not folder.exists():
        return None
    try:
        record = json.loads((folder / CARD).read_bytes())
        if record.pop("format", None) == FORMAT:
            card = ExportCard(**record)
            files = {name: (folder / name).read_bytes() for name in (GRAPH, TOKENIZER)}
            if _digests(files) == card.sha256:
                return OnnxEmbedder(card, files[GRAPH], files[TOKENIZER], threads)
    except (OSError, ValueError, TypeError, AttributeError):  # no file, no JSON, no card, no table
        pass
    log.warning("text: the exported encoder in %s is damaged or of another format: made again", folder)
    return None


def seal(folder: Path, spec: FeatureSpec, precision: Precision, cosine: float) -> None:
    """Write the card of an export whose other files are there."""
    sha256 = _digests({name: (folder / name).read_bytes() for name in (GRAPH, TOKENIZER)})
    card = ExportCard(spec.name, spec.version, spec.dim, precision, cosine, sha256)
    (folder / CARD).write_text(json.dumps({"format": FORMAT, **asdict(card)}, indent=2) + "\n", "utf-8")


def _digests(files: Mapping[str, bytes]) -> dict[str, str]:
    return {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
