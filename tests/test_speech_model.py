"""Pretrained speech models: loaded from a folder, exact in a batch, and clear about why one cannot be had."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from realtime.errors import ModelUnavailable
from realtime.messages import Features, Pcm
from tests.conftest import make_segment
from workers import speech_model
from workers.audio import VoiceExtractor, VoiceExtractorConfig
from workers.extractor import FeatureSpec
from workers.speech_model import SpeechModel, frames_of, load_speech_model

hub: Any = transformers  # hardly typed


def tiny(folder: Path, norm: str = "layer") -> Path:
    """A random wav2vec2 of two layers, in a folder as the hub would have it."""
    torch.manual_seed(0)
    config = hub.Wav2Vec2Config(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16,
        conv_dim=(8, 8, 8), conv_kernel=(10, 8, 4), conv_stride=(5, 8, 8), feat_extract_norm=norm,
        num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=2, vocab_size=8,
        do_stable_layer_norm=norm == "layer",
    )  # fmt: skip
    hub.Wav2Vec2Model(config).save_pretrained(folder)
    hub.Wav2Vec2FeatureExtractor(return_attention_mask=norm == "layer").save_pretrained(folder)
    return folder


def speech(seconds: float, seed: int = 0) -> Pcm:
    return np.random.default_rng(seed).normal(0.0, 0.1, int(seconds * 16_000)).astype(np.float32)


@pytest.fixture(scope="module", params=["layer", "group"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> SpeechModel:
    return load_speech_model(
        str(tiny(tmp_path_factory.mktemp(request.param) / "small", request.param)), "cpu"
    )


def test_it_says_what_it_is(model: SpeechModel) -> None:
    assert model.spec == FeatureSpec("small", "1", 16)


def test_a_batch_says_what_each_says_alone(model: SpeechModel) -> None:
    utterances = [speech(0.9), speech(0.21, 1), speech(1.4, 2)]
    together = model.vectors(utterances)
    assert together.shape == (3, 16)
    assert together.dtype == np.float32
    for row, pcm in zip(together, utterances, strict=True):
        np.testing.assert_allclose(row, model.vectors([pcm])[0], atol=1e-4)
    assert np.abs(together[0] - together[2]).max() > 1e-3


def test_the_mean_is_taken_over_real_frames_only(model: SpeechModel) -> None:
    pcm = speech(0.5)
    given = torch.from_numpy((pcm - pcm.mean()) / np.sqrt(pcm.var() + 1e-7))[None]
    with torch.inference_mode():
        hidden = model._model(given).last_hidden_state[0]
    assert len(hidden) == int(frames_of(torch.tensor([len(pcm)]), model._model.config)[0])
    np.testing.assert_allclose(model.vectors([pcm])[0], hidden.mean(0).numpy(), atol=1e-4)


def test_gain_changes_nothing(model: SpeechModel) -> None:
    pcm = speech(0.5)
    np.testing.assert_allclose(model.vectors([pcm]), model.vectors([0.25 * pcm]), atol=1e-3)


def test_it_serves_as_the_audio_extractor(tmp_path: Path) -> None:
    extractor = VoiceExtractor(VoiceExtractorConfig(encoder=str(tiny(tmp_path / "small")), device="cpu"))
    extractor.load()
    extractor.warm_up()
    (answer,) = extractor.extract([make_segment(seconds=0.5)])
    assert isinstance(answer, Features)
    assert answer.extractor == "small/1"
    assert answer.vector.shape == (16,)


def test_half_precision_says_the_same(tmp_path: Path) -> None:
    """As on a card, where it is the default."""
    folder = str(tiny(tmp_path / "small"))
    half = SpeechModel(folder, *speech_model._find(folder, torch.float16), torch.device("cpu"))
    made = half.vectors([speech(0.9), speech(0.3, 1)])
    assert made.dtype == np.float32
    np.testing.assert_allclose(
        made, load_speech_model(folder, "cpu").vectors([speech(0.9), speech(0.3, 1)]), atol=2e-2
    )


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA card here")
@pytest.mark.gpu
def test_half_precision_on_a_card(tmp_path: Path) -> None:
    folder = str(tiny(tmp_path / "small"))
    utterances = [speech(0.9), speech(0.3, 1)]
    there = load_speech_model(folder).vectors(utterances)
    np.testing.assert_allclose(there, load_speech_model(folder, "cpu").vectors(utterances), atol=2e-2)


# ---- why there is none ---------------------------------------------------------------------------


def refused(name: str) -> str:
    with pytest.raises(ModelUnavailable) as caught:
        load_speech_model(name, "cpu")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_neither_here_nor_to_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speech_model, "hub_answers", lambda: False)
    said = refused("nobody/no-such-model")
    assert "neither on this machine nor can the model hub be reached" in said
    assert "own" in said


def test_a_hub_that_does_not_know_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(name: str, dtype: torch.dtype, *, local: bool) -> None:
        raise OSError(f"{name} is not a known model\nand much advice")

    monkeypatch.setattr(speech_model, "hub_answers", lambda: True)
    monkeypatch.setattr(speech_model, "_read", read)
    assert "cannot be downloaded: nobody/no-such-model is not a known model" in refused(
        "nobody/no-such-model"
    )


def test_a_folder_that_holds_no_model(tmp_path: Path) -> None:
    assert "does not load" in refused(str(tmp_path))
    (tiny(tmp_path / "cut") / "model.safetensors").write_bytes(b"cut")
    assert "does not load" in refused(str(tmp_path / "cut"))


def test_another_rate_and_another_kind_of_model(tmp_path: Path) -> None:
    card = tiny(tmp_path / "slow") / "preprocessor_config.json"
    card.write_text(json.dumps(json.loads(card.read_text()) | {"sampling_rate": 8_000}))
    assert "wants 8000 Hz" in refused(str(card.parent))
    shape = {
        "d_model": 8,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "encoder_ffn_dim": 8,
        "decoder_ffn_dim": 8,
    }
    heads = {"encoder_attention_heads": 1, "decoder_attention_heads": 1, "vocab_size": 60_000}
    hub.WhisperModel(hub.WhisperConfig(**shape, **heads)).save_pretrained(tmp_path / "mel")
    hub.WhisperFeatureExtractor().save_pretrained(tmp_path / "mel")
    assert "takes no waveform" in refused(str(tmp_path / "mel"))
