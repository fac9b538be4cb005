"""Text extractor: the words of an utterance, given or recognised, as one sentence embedding.

Knows jobs, words and encoders; not where captions come from. Without a speech recogniser it still serves
every utterance whose words are given, and says of the others why they are missing.
"""

from __future__ import annotations

import ctypes
import logging
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from realtime.cache import cache_folder
from realtime.errors import ModelUnavailable
from realtime.messages import Answer, Features, FeaturesMissing, Job, Modality, Segment
from workers.extractor import FeatureSpec
from workers.text_encoder import DEFAULT_ENCODER, Embedder, Floats, load_embedder
from workers.text_export import NotExportable, open_or_export
from workers.text_onnx import Precision
from workers.transcribe import Spoken, TranscribeConfig, Transcriber

log = logging.getLogger(__name__)

Runtime = Literal["auto", "onnx", "torch"]


@dataclass(frozen=True, slots=True)
class TextConfig:
    """Which encoder and which recogniser."""

    encoder: str = DEFAULT_ENCODER  # any sentence-transformers model, by name or folder
    adapter: str = (
        "auto"  # what makes it hear emotion: a path, "none", or the shipped one for its own encoder
    )
    languages: tuple[str, ...] = ("en",)  # what the encoder understands, ISO 639-1; empty = anything
    whisper: str = "base"  # size, hub id or folder; "none" = words are always given
    device: str = "auto"
    runtime: Runtime = "auto"  # of the encoder; onnx on a CPU where it can be exported, torch elsewhere
    precision: Precision = "fp32"  # of onnx; "int8" is faster and is taken only where it stays close
    cache: str = ""  # folder of what onnx runs, made at the first start; "" = $XDG_CACHE_HOME/cmath-stream
    threads: int = 2


@dataclass(frozen=True, slots=True)
class _Utterance:
    """Words that may be embedded."""

    text: str
    language: str | None
    quality: float  # 0..1


@dataclass(frozen=True, slots=True)
class _Missing:
    """Why there is nothing to embed; words that were known all the same."""

    reason: str
    text: str | None = None
    language: str | None = None


class TextExtractor:
    """Sentence embedding of an utterance's words, L2-normalised, float32 [D]."""

    modality: Modality = "text"
    needs_pictures = False

    def __init__(self, config: TextConfig) -> None:
        self._config = config
        self._encoder: Embedder | None = None
        self._transcriber: Transcriber | None = None

    @property
    def needs_pcm(self) -> bool:
        """True once a recogniser is loaded."""
        return self._transcriber is not None

    @property
    def spec(self) -> FeatureSpec | None:
        """Known after `load`."""
        return None if self._encoder is None else self._encoder.spec

    def load(self) -> None:
        """Read the encoder and, where it can be had, the recogniser. Raises ModelUnavailable."""
        self._encoder = open_embedder(self._config)
        if self._config.whisper != "none":
            self._load_transcriber()

    def _load_transcriber(self) -> None:
        config = TranscribeConfig(
            model=self._config.whisper, device=self._config.device, threads=self._config.threads
        )
        transcriber = Transcriber(config)
        try:
            transcriber.load()
        except ModelUnavailable as error:
            log.warning("text: only given words are used: %s", error)
        else:
            self._transcriber = transcriber

    def warm_up(self) -> None:
        """One sentence, and both windows of the recogniser."""
        self._embed(["Well, that went better than expected."])
        if self._transcriber is not None:
            self._transcriber.warm_up()

    def extract(self, jobs: Sequence[Job]) -> list[Answer | None]:
        """Embeddings, or why there is none; None for a Segment whose words come later as a Transcript."""
        began_s = time.perf_counter()
        heard = self._recognised(jobs)
        found = [heard[row] if row in heard else self._given(job) for row, job in enumerate(jobs)]
        texts = [words.text for words in found if isinstance(words, _Utterance)]
        vectors = iter(self._embed(texts)) if texts else iter(())
        took_ms = round((time.perf_counter() - began_s) * 1000)
        answers: list[Answer | None] = []
        for job, words in zip(jobs, found, strict=True):
            ids = (job.session_id, job.utterance_id, self.modality)
            if words is None:
                answers.append(None)
            elif isinstance(words, _Missing):
                answers.append(FeaturesMissing(*ids, words.reason, took_ms, words.text, words.language))
            else:
                spec, vector = self.spec, next(vectors)
                assert spec is not None
                answers.append(
                    Features(*ids, spec.id, vector, words.quality, took_ms, words.text, words.language)
                )
        return answers

    def _given(self, job: Job) -> _Utterance | _Missing | None:
        """Words that came with the job, or why there are none, or None where they come later."""
        if job.text is not None:
            return self._usable(job.text, job.language, 1.0)
        if not isinstance(job, Segment):
            return _Missing("no_caption")  # the worker turns it into a Segment where speech can be recognised
        return None if job.captions_pending else _Missing("no_transcriber")

    def _recognised(self, jobs: Sequence[Job]) -> dict[int, _Utterance | _Missing]:
        """Words of the jobs that bring speech alone, by row; all of them together."""
        if self._transcriber is None:
            return {}
        rows = {
            row: Spoken(job.pcm, primary(job.language))
            for row, job in enumerate(jobs)
            if isinstance(job, Segment) and job.text is None and not job.captions_pending
        }
        heard = self._transcriber.recognise(list(rows.values()))
        return {
            row: self._usable(words.text, words.language, words.quality)
            if words.reliable
            else _Missing("low_quality")
            for row, words in zip(rows, heard, strict=True)
        }

    def _usable(self, text: str, language: str | None, quality: float) -> _Utterance | _Missing:
        if not text.strip():
            return _Missing("no_words")
        spoken = primary(language)
        if spoken and self._config.languages and spoken not in self._config.languages:
            return _Missing("unsupported_language", text, language)
        return _Utterance(text.strip(), language, quality)

    def _embed(self, texts: list[str]) -> Floats:  # [N, D]
        assert self._encoder is not None, "load() comes first"
        return self._encoder(texts)


def primary(language: str | None) -> str | None:
    """Primary subtag of a BCP 47 tag, the form that encoders and Whisper speak: "pt-BR" → "pt"."""
    return language.replace("_", "-").partition("-")[0].lower() if language else None


def open_embedder(config: TextConfig) -> Embedder:
    """The encoder in the runtime that the settings ask for. Raises ModelUnavailable."""
    if config.runtime == "onnx" or (config.runtime == "auto" and not uses_gpu(config.device)):
        cache = Path(config.cache) if config.cache else cache_folder()
        try:
            return open_or_export(config.encoder, config.adapter, config.precision, cache, config.threads)
        except NotExportable as error:
            if config.runtime == "onnx":
                raise
            log.info("text: torch runs the encoder: %s", error)
    import torch

    torch.set_num_threads(config.threads)
    return load_embedder(config.encoder, config.adapter, config.device)


def uses_gpu(device: str) -> bool:
    """Whether torch would put an encoder on something else than the CPU.

    "auto" means an NVIDIA card. Without its driver torch need not be asked, and takes no seconds to import.
    """
    if device != "auto":
        return device != "cpu"
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    import torch

    return torch.cuda.is_available()
