"""Pretrained speech models of the Hugging Face hub as voice encoders: the mean of what they hear.

Any model that `transformers` loads as AutoModel and that takes a waveform will do: wav2vec2, HuBERT, WavLM
and what was trained on them. It brings its own preparation of the samples. Knows waveforms; not segments.
Letters: B utterances, S samples, T frames, D hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from realtime.errors import ModelUnavailable
from realtime.messages import SAMPLE_RATE_HZ, Pcm
from workers.extractor import FeatureSpec
from workers.transcribe import hub_answers

# What is raised of a model that is not there, or not whole.
_BROKEN = (OSError, ValueError, RuntimeError, SafetensorError)


class SpeechModel:
    """A loaded model and its preparation; all calls from one thread."""

    def __init__(self, name: str, prepare: Any, model: Any, device: torch.device) -> None:
        self.spec = FeatureSpec(Path(name).name, "1", int(model.config.hidden_size))
        self._prepare = prepare
        self._model = model.to(device).eval().requires_grad_(False)
        self._device = device
        # A model whose first layer is normalised over the whole recording hears padding in any case, mask or
        # not, so that its utterances go one by one. The others are exact in a batch.
        self._batches = getattr(model.config, "feat_extract_norm", "layer") != "group"

    def vectors(self, utterances: Sequence[Pcm]) -> Pcm:
        """Utterances, each at least 25 ms -> float32 [B, D], the mean of the last layer over real frames."""
        groups = [utterances] if self._batches else [[pcm] for pcm in utterances]
        means: Pcm = torch.cat([self._means(group) for group in groups]).cpu().numpy()
        return means

    @torch.inference_mode()
    def _means(self, utterances: Sequence[Pcm]) -> Tensor:
        given = self._prepare(
            list(utterances),
            sampling_rate=SAMPLE_RATE_HZ,
            padding=True,
            return_attention_mask=True,
            return_tensors="pt",
        )
        wave = given["input_values"].to(self._device, self._model.dtype)  # [B, S]
        mask = given["attention_mask"].to(self._device)
        hidden = self._model(wave, attention_mask=mask if self._batches else None).last_hidden_state.float()
        frames = frames_of(mask.sum(1), self._model.config)
        real = torch.arange(hidden.shape[1], device=self._device) < frames[:, None]  # [B, T]
        total: Tensor = hidden.masked_fill(~real.unsqueeze(2), 0.0).sum(1)
        return total / frames.unsqueeze(1)


def frames_of(samples: Tensor, config: Any) -> Tensor:
    """[B] samples -> [B] frames that the model's convolutions, which have no padding, make of them."""
    for kernel, stride in zip(config.conv_kernel, config.conv_stride, strict=True):
        samples = torch.div(samples - kernel, stride, rounding_mode="floor") + 1
    return samples


def load_speech_model(name: str, device: str = "auto") -> SpeechModel:
    """A model from a folder, the cache or the hub; in half precision on a card. Raises ModelUnavailable."""
    chosen = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
    prepare, model = _find(name, torch.float16 if chosen.type == "cuda" else torch.float32)
    if not hasattr(model.config, "conv_stride") or "input_values" not in prepare.model_input_names:
        raise ModelUnavailable(f"voice encoder {name!r} takes no waveform: give a wav2vec2-like model")
    if prepare.sampling_rate != SAMPLE_RATE_HZ:
        raise ModelUnavailable(
            f"voice encoder {name!r} wants {prepare.sampling_rate} Hz, not {SAMPLE_RATE_HZ}"
        )
    return SpeechModel(name, prepare, model, chosen)


def _find(name: str, dtype: torch.dtype) -> tuple[Any, Any]:
    try:
        return _read(name, dtype, local=True)
    except _BROKEN as error:
        if Path(name).is_dir():
            raise ModelUnavailable(f"voice encoder {name!r} does not load: {_first_line(error)}") from error
    if not hub_answers():
        raise ModelUnavailable(
            f"voice encoder {name!r} is neither on this machine nor can the model hub be reached; "
            'the default "own" needs no download'
        )
    try:
        return _read(name, dtype, local=False)
    except _BROKEN as error:
        raise ModelUnavailable(
            f"voice encoder {name!r} cannot be downloaded: {_first_line(error)}"
        ) from error


def _read(name: str, dtype: torch.dtype, *, local: bool) -> tuple[Any, Any]:
    import transformers

    untyped: Any = transformers
    prepare = untyped.AutoFeatureExtractor.from_pretrained(name, local_files_only=local)
    return prepare, untyped.AutoModel.from_pretrained(name, local_files_only=local, dtype=dtype)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
