"""One tree of settings: every profile is read, every modality has its extractor."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from cmath_stream.config import Settings, load_settings, make_extractor
from realtime.errors import SettingsError
from realtime.messages import MODALITIES
from tests.encoders import face_weights, voice_weights
from workers.audio import OWN, VoiceExtractor
from workers.face import FaceExtractor
from workers.text import TextExtractor

CONFIGS = Path(__file__).parent.parent / "configs"


def test_every_modality_has_its_extractor(tmp_path: Path) -> None:
    """And each takes its own section of the settings."""
    plain = Settings()
    settings = replace(
        plain,
        audio=replace(plain.audio, weights=str(voice_weights(tmp_path))),
        visual=replace(plain.visual, weights=str(face_weights(tmp_path))),
    )
    made = [make_extractor(modality, settings) for modality in MODALITIES]
    assert [type(each) for each in made] == [TextExtractor, VoiceExtractor, FaceExtractor]
    assert [each.modality for each in made] == list(MODALITIES)
    for each, name in zip(made[1:], ("voice-small/2", "face-small/2"), strict=True):
        each.load()
        assert each.spec is not None
        assert each.spec.id == name


def test_the_large_profile_changes_the_encoders_and_asks_for_a_checkpoint() -> None:
    plain, large = Settings(), load_settings(CONFIGS / "large.toml")
    assert large.audio.encoder != OWN == plain.audio.encoder
    assert large.text.encoder != plain.text.encoder
    assert large.text.adapter == "auto"  # the shipped one belongs to the encoder that it was trained with
    assert large.fusion.checkpoint.endswith(".safetensors")
    assert large.session == plain.session


def test_a_mistyped_key_of_an_encoder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text("[audio]\nencoders = 'own'")
    with pytest.raises(SettingsError, match="audio.encoders"):
        load_settings(tmp_path / "bad.toml")
