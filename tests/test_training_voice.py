"""The voice encoder by recipe: from recordings to weights that load, figures, and answers to judge."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from realtime.errors import MediaError, ModelUnavailable, SettingsError
from tests.encoders import voice_weights
from tests.voices import clips, recorded
from workers.training.recipes import read_recipe
from workers.training.voice import judge_voice, train_voice
from workers.training.voice_learning import Recipe
from workers.voice_encoder import EMOTIONS, VoiceEncoderConfig
from workers.voice_file import load

RECIPE = """kind = "voice"
[network]
mels = 32
stem = 8
widths = [12, 12]
frame = 16
heads = 2
embedding = 12
[augmentation]
versions = 1
opus = 0.0
[schedule]
epochs = 1
batch = 8
crop = 32
[prosody]
versions = 1
"""


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return recorded(tmp_path_factory.mktemp("ravdess"), clips())


def test_recordings_in_weights_and_figures_out(tmp_path: Path, spoken: Path) -> None:
    recipe, out = tmp_path / "recipe.toml", tmp_path / "out"
    recipe.write_text(RECIPE)
    told = train_voice(recipe, spoken, out, folds=2, seeds=2, progress=False)
    assert (told["cross_validation"]["folds"], told["cross_validation"]["seeds"]) == (2, 2)
    model, meta = load(Path(told["weights"]))
    assert (meta.name, model.config.embedding) == ("voice-cnn", 12)
    assert meta.training["cross_validation"] == told["cross_validation"]
    with np.load(out / "voice-out-of-fold.npz") as found:
        assert found["features"].shape == (4, 32, 8)
    judged = judge_voice(spoken, out / "voice.safetensors", progress=False)
    assert judged.checkpoint == "voice-cnn-2"


def test_without_cross_validation(tmp_path: Path, spoken: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE)
    assert train_voice(recipe, spoken, tmp_path, folds=0, progress=False)["cross_validation"] == {}
    assert (tmp_path / "voice.safetensors").is_file()
    assert not (tmp_path / "folds").exists()


def test_judging_gives_a_posterior_a_clip(tmp_path: Path, spoken: Path) -> None:
    judged = judge_voice(spoken, voice_weights(tmp_path), progress=False)
    assert judged.probabilities.shape == (32, 8)
    np.testing.assert_allclose(judged.probabilities.sum(axis=1), 1.0, atol=1e-6)
    keys = sorted(clip.key for clip in clips())
    assert judged.label.tolist() == [int(key.split("-")[2]) - 1 for key in keys]
    assert (judged.labels, judged.checkpoint, judged.also) == (EMOTIONS, "voice-small-2", {})
    assert "32 clips of 4 actors" in judged.protocol


def test_what_is_not_there_is_said(tmp_path: Path, spoken: Path) -> None:
    with pytest.raises(MediaError):
        judge_voice(tmp_path, voice_weights(tmp_path / "weights"), progress=False)
    with pytest.raises(ModelUnavailable):
        judge_voice(spoken, tmp_path / "none.safetensors", progress=False)


def test_the_recipe_of_the_shipped_encoder(tmp_path: Path) -> None:
    """The network's shape is what its weights have; what its training is made of has a name of its own."""
    path = Path(__file__).parent.parent / "configs" / "train-voice.toml"
    recipe = read_recipe(Recipe, path, "voice")
    assert recipe.network == VoiceEncoderConfig()
    assert not recipe.schedule.half
    with pytest.raises(SettingsError, match="kind 'voice', not 'face'"):
        read_recipe(Recipe, path, "face")
    (tmp_path / "bare.toml").write_text("[schedule]\nepochs = 3")
    assert read_recipe(Recipe, tmp_path / "bare.toml", "voice").schedule.epochs == 3
