"""Speech to words with faster-whisper, one utterance at a time, words that cannot be trusted marked.

Knows PCM and words, nothing of jobs. The segmenter has already cut silence away, so there is no VAD here.
An utterance is first decoded from a window as short as itself: Whisper was trained on 30 s windows and takes
short ones at a tenth of the cost, but now and then loops on them; what fails the gates is therefore decoded
once more from the full window, and what fails again is reported as unreliable instead of as text
(hallucinations on noise: faster-whisper#506, #1208).
"""

from __future__ import annotations

import logging
import math
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from realtime.errors import ModelUnavailable
from realtime.messages import SAMPLE_RATE_HZ, Pcm

log = logging.getLogger(__name__)

HUB_TIMEOUT_S = 5.0
WINDOW_FRAMES = 3000  # of 10 ms: the window Whisper was trained on, and the longest it takes

_TAIL_SAMPLES = SAMPLE_RATE_HZ // 2  # silence after the last word, so that the decoder sees it end
_TOKENS_PER_S = 12  # faster than anybody speaks: a loop stops here
_PROBE = "openai/whisper-tiny"  # asked for its card, to learn whether the hub can be reached


@dataclass(frozen=True, slots=True)
class TranscribeConfig:
    """Which Whisper, where, and what is believed of it. The gates are those of the Whisper paper, §4.5."""

    model: str = "base"  # a size, a hub id, or the folder of a CTranslate2 conversion
    device: str = "auto"
    compute_type: str = "auto"  # the fastest the device has
    threads: int = 2
    beam: int = 1
    min_logprob: float = -1.0  # average per token
    max_no_speech: float = 0.6  # believed only where the words are doubtful too
    max_compression: float = 2.4  # repetition


@dataclass(frozen=True, slots=True)
class Words:
    """What was recognised. Not `reliable`: noise, a loop or a guess; do not use the text."""

    text: str
    language: str
    quality: float  # 0..1
    reliable: bool


class Transcriber:
    """One loaded Whisper; all calls from one thread."""

    def __init__(self, config: TranscribeConfig) -> None:
        self._config = config
        self._model: Any = None

    def load(self) -> None:
        """Read the weights from a folder, the local cache or the hub. Raises ModelUnavailable."""
        from faster_whisper import WhisperModel

        config = self._config
        try:
            self._model = WhisperModel(
                find_model(config.model),
                device=config.device,
                compute_type=config.compute_type,
                cpu_threads=config.threads,
            )
        except (RuntimeError, ValueError, OSError) as error:  # CTranslate2 and tokenizers, on a bad folder
            reason = str(error).partition("\n")[0]
            raise ModelUnavailable(f"speech recogniser {config.model!r} does not load: {reason}") from error

    def warm_up(self) -> None:
        """Both windows once."""
        noise = np.random.default_rng(0).normal(0.0, 0.01, SAMPLE_RATE_HZ).astype(np.float32)
        mel = self._mel(noise)
        self._decode(mel, "en", 1.0)
        self._decode(_full_window(mel), "en", 1.0)

    def recognise(self, pcm: Pcm, language: str | None = None) -> Words:
        """Words of one utterance, float32 [T] of at most 29 s; `language` (ISO 639-1) is detected if None."""
        mel = self._mel(pcm)
        seconds = len(pcm) / SAMPLE_RATE_HZ
        words = self._decode(mel, language, seconds)
        if not words.reliable and mel.shape[1] < WINDOW_FRAMES:
            words = self._decode(_full_window(mel), language, seconds)
        return words

    def _mel(self, pcm: Pcm) -> Pcm:  # [80 or 128, frames]
        mel: Pcm = self._model.feature_extractor(pcm, padding=_TAIL_SAMPLES)
        return mel[:, :WINDOW_FRAMES]

    def _decode(self, mel: Pcm, language: str | None, seconds: float) -> Words:
        from faster_whisper.tokenizer import Tokenizer
        from faster_whisper.transcribe import get_suppressed_tokens

        whisper = self._model
        encoded = whisper.encode(mel)
        multilingual = whisper.model.is_multilingual
        if not multilingual:
            spoken = "en"
        elif language in whisper.supported_languages:
            spoken = str(language)
        else:
            spoken = whisper.model.detect_language(encoded)[0][0][0].strip("<|>")
        tokenizer = Tokenizer(whisper.hf_tokenizer, multilingual, task="transcribe", language=spoken)
        prompt = whisper.get_prompt(tokenizer, [], without_timestamps=True)
        limit = len(prompt) + 16 + int(seconds * _TOKENS_PER_S)
        result = whisper.model.generate(
            encoded,
            [prompt],
            beam_size=self._config.beam,
            max_length=min(limit, whisper.max_length),
            suppress_tokens=list(get_suppressed_tokens(tokenizer, [-1])),
            return_scores=True,
            return_no_speech_prob=True,
        )[0]
        tokens = result.sequences_ids[0]
        # The score is a mean over the tokens; the end token, which counts too, is not among them.
        logprob = result.scores[0] * len(tokens) / (len(tokens) + 1)
        return self._judge(tokenizer.decode(tokens).strip(), spoken, logprob, result.no_speech_prob)

    def _judge(self, text: str, language: str, logprob: float, no_speech: float) -> Words:
        config = self._config
        raw = text.encode("utf-8", "replace")
        loops = len(raw) / len(zlib.compress(raw)) > config.max_compression
        doubtful = no_speech > config.max_no_speech and logprob < config.min_logprob / 2
        quality = math.exp(min(logprob, 0.0)) * (1.0 - no_speech)
        reliable = logprob >= config.min_logprob and not loops and not doubtful
        return Words(text, language, max(0.0, min(1.0, quality)), reliable)


def find_model(name: str) -> str:
    """Folder of a Whisper model: itself, from the local cache, or downloaded. Raises ModelUnavailable."""
    if Path(name).is_dir():
        return name
    from faster_whisper.utils import download_model

    try:
        return str(download_model(name, local_files_only=True))
    except ValueError as error:
        raise ModelUnavailable(f"speech recogniser: {error}") from None
    except OSError:
        log.info("speech recogniser %r is not on this machine, asking the hub", name)
    if not hub_answers():
        raise ModelUnavailable(
            f"speech recogniser {name!r} is neither on this machine nor can the model hub be reached; "
            "give captions, or set `whisper` to a folder or to none"
        )
    try:
        return str(download_model(name))
    except OSError as error:
        reason = str(error).partition("\n")[0]
        raise ModelUnavailable(f"speech recogniser {name!r} cannot be downloaded: {reason}") from error


def hub_answers() -> bool:
    """Whether the model hub can be reached, known within seconds: its own client waits without limit."""
    from huggingface_hub import HfApi

    try:
        HfApi().model_info(_PROBE, timeout=HUB_TIMEOUT_S)
    except Exception as error:  # every HTTP library it ever used has its own tree; offline mode raises too
        log.debug("model hub: %s", type(error).__name__)
        return False
    return True


def _full_window(mel: Pcm) -> Pcm:
    return np.pad(mel, ((0, 0), (0, WINDOW_FRAMES - mel.shape[1])))
