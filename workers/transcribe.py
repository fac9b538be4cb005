"""Speech to words with faster-whisper, utterances of many calls together, doubtful words marked.

Knows PCM and words, nothing of jobs. The segmenter has already cut silence away, so there is no VAD here.
An utterance is first decoded from a window little longer than itself: Whisper was trained on 30 s windows and
takes short ones at a tenth of the cost, but now and then loops on them; what fails the gates is therefore
decoded once more from the full window, and what fails again is reported as unreliable instead of as text
(hallucinations on noise: faster-whisper#506, #1208). Windows have whole seconds, so that those of one length
are decoded in one pass and what an utterance is padded to never depends on its neighbours. (The library's own
batches are pieces of one file.)
"""

from __future__ import annotations

import logging
import math
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from realtime.errors import ModelUnavailable
from realtime.messages import SAMPLE_RATE_HZ, Pcm

log = logging.getLogger(__name__)

HUB_TIMEOUT_S = 5.0
WINDOW_FRAMES = 3000  # of 10 ms: the window Whisper was trained on, and the longest it takes

_TAIL_SAMPLES = SAMPLE_RATE_HZ // 2  # silence after the last word, so that the decoder sees it end
_STEP_FRAMES = 100  # 1 s: windows are a multiple of it long
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
    batch: int = 8  # utterances of one pass
    min_logprob: float = -1.0  # average per token
    max_no_speech: float = 0.6  # believed only where the words are doubtful too
    max_compression: float = 2.4  # repetition


@dataclass(frozen=True, slots=True)
class Spoken:
    """One utterance to recognise."""

    pcm: Pcm  # float32 [T]
    language: str | None = None  # ISO 639-1; None: as it is heard


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
        self._decode(mel[None], ["en"])
        self._decode(_padded(mel, WINDOW_FRAMES)[None], ["en"])

    def recognise(self, utterances: Sequence[Spoken]) -> list[Words]:
        """Words of utterances of at most 29 s each, in their order."""
        mels = [self._mel(spoken.pcm) for spoken in utterances]
        words: dict[int, Words] = {}
        self._decode_all(utterances, mels, range(len(mels)), words)
        doubtful = [
            row for row, mel in enumerate(mels) if not words[row].reliable and mel.shape[1] < WINDOW_FRAMES
        ]
        full = [_padded(mel, WINDOW_FRAMES) for mel in mels]
        self._decode_all(utterances, full, doubtful, words)
        return [words[row] for row in range(len(mels))]

    def _mel(self, pcm: Pcm) -> Pcm:  # [80 or 128, frames]
        mel: Pcm = self._model.feature_extractor(pcm, padding=_TAIL_SAMPLES)
        return _padded(mel[:, :WINDOW_FRAMES], -(-mel.shape[1] // _STEP_FRAMES) * _STEP_FRAMES)

    def _decode_all(
        self, utterances: Sequence[Spoken], mels: Sequence[Pcm], rows: Iterable[int], words: dict[int, Words]
    ) -> None:
        """Decode rows by windows of one length, as many together as the settings allow."""
        for _, alike in groupby(sorted(rows, key=lambda row: mels[row].shape[1]), lambda r: mels[r].shape[1]):
            same = list(alike)
            for first in range(0, len(same), self._config.batch):
                chosen = same[first : first + self._config.batch]
                heard = self._decode(
                    np.stack([mels[row] for row in chosen]), [utterances[row].language for row in chosen]
                )
                words.update(zip(chosen, heard, strict=True))

    def _decode(self, mels: Pcm, languages: Sequence[str | None]) -> list[Words]:
        """One pass over windows of one length, [B, 80 or 128, frames]."""
        from faster_whisper.transcribe import get_suppressed_tokens

        whisper = self._model
        encoded = whisper.encode(mels)
        spoken = self._spoken(encoded, languages)
        tokenizers = [self._tokenizer(language) for language in spoken]
        prompts = [whisper.get_prompt(each, [], without_timestamps=True) for each in tokenizers]
        limit = len(prompts[0]) + 16 + int(mels.shape[2] / 100 * _TOKENS_PER_S)
        results = whisper.model.generate(
            encoded,
            prompts,
            beam_size=self._config.beam,
            max_length=min(limit, whisper.max_length),
            suppress_tokens=list(get_suppressed_tokens(tokenizers[0], [-1])),
            return_scores=True,
            return_no_speech_prob=True,
        )
        words = []
        for result, tokenizer, language in zip(results, tokenizers, spoken, strict=True):
            tokens = result.sequences_ids[0]
            # The score is a mean over the tokens; the end token, which counts too, is not among them.
            logprob = result.scores[0] * len(tokens) / (len(tokens) + 1)
            text = tokenizer.decode(tokens).strip()
            words.append(self._judge(text, language, logprob, result.no_speech_prob))
        return words

    def _spoken(self, encoded: Any, languages: Sequence[str | None]) -> list[str]:
        """The language of each: as given where the model knows it, else as it hears."""
        whisper = self._model
        if not whisper.model.is_multilingual:
            return ["en"] * len(languages)
        if all(language in whisper.supported_languages for language in languages):
            return [str(language) for language in languages]
        heard = whisper.model.detect_language(encoded)
        return [
            str(language) if language in whisper.supported_languages else odds[0][0].strip("<|>")
            for language, odds in zip(languages, heard, strict=True)
        ]

    def _tokenizer(self, language: str) -> Any:
        from faster_whisper.tokenizer import Tokenizer

        whisper = self._model
        return Tokenizer(
            whisper.hf_tokenizer, whisper.model.is_multilingual, task="transcribe", language=language
        )

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


def _padded(mel: Pcm, frames: int) -> Pcm:
    frames = min(frames, WINDOW_FRAMES)
    return np.pad(mel, ((0, 0), (0, frames - mel.shape[1])))
