"""A checkpoint comes back as it was saved, or is refused in one clear line."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cmath_stream.checkpoint import Checkpoint, CheckpointMeta, ModalitySpec, load, save
from cmath_stream.checkpoint_files import CheckpointError, shipped
from cmath_stream.model import CMATH, CMATHConfig
from cmath_stream.training.data import MELD7
from cmath_stream.training.live import voice_and_face
from realtime.errors import CmathStreamError
from workers import text_adapter, voice_file

TEXT, AUDIO = ModalitySpec("text", "words", "2", 6), ModalitySpec("audio", "voice", "1", 5)
CONFIG = CMATHConfig(dims=(("text", 6), ("audio", 5)), width=8, heads=2, window=4, centres=("text", "audio"))
META = CheckpointMeta(
    name="tiny",
    version="3",
    label_set="meld7",
    labels=MELD7,
    modalities=(TEXT, AUDIO),
    config=CONFIG,
    temperatures={"text": 2.0, "audio": 1.5, "text+audio": 1.0},
    abstain_below=0.3,
    reliability={"text": 0.6, "audio": 0.5},
    licence="none",
    data_sources=("noise",),
    validation={"set": "none"},
)


@dataclass(frozen=True, slots=True)
class Extractor:
    name: str
    version: str
    dim: int


@pytest.fixture
def model() -> CMATH:
    torch.manual_seed(0)
    return CMATH(CONFIG).eval()


@pytest.fixture
def path(tmp_path: Path, model: CMATH) -> Path:
    save(tmp_path / "tiny", model, META)
    return tmp_path / "tiny.safetensors"


def test_it_comes_back_as_it_was(path: Path, model: CMATH) -> None:
    back = load(path)
    assert back.meta == META
    assert not back.model.training
    assert back.model.rebuilders is None
    rows = (torch.randn(2, 5, 6), torch.randn(2, 5, 5))
    real, speaker = torch.ones(2, 5, dtype=torch.bool), torch.zeros(2, 5, dtype=torch.int64)
    presence = torch.ones(2, 5, 2, dtype=torch.bool)
    assert torch.equal(back.model(rows, presence, real, speaker), model(rows, presence, real, speaker))


@pytest.mark.parametrize("name", ["tiny", "tiny.json", "tiny.safetensors"])
def test_either_file_or_the_stem_names_it(path: Path, name: str) -> None:
    assert load(path.with_name(name)).meta.name == "tiny"


def test_a_dot_in_the_name_survives(tmp_path: Path, model: CMATH) -> None:
    save(tmp_path / "tiny.v2", model, META)
    assert load(tmp_path / "tiny.v2").meta == META


def edit(change: Callable[[dict[str, object]], object]) -> Callable[[Path], object]:
    def damage(path: Path) -> None:
        card = path.with_suffix(".json")
        record = json.loads(card.read_text())
        change(record)
        card.write_text(json.dumps(record))

    return damage


DAMAGE: dict[str, Callable[[Path], object]] = {
    "weights missing": lambda path: path.unlink(),
    "card missing": lambda path: path.with_suffix(".json").unlink(),
    "weights cut short": lambda path: path.write_bytes(path.read_bytes()[:-9]),
    "weights empty": lambda path: path.write_bytes(b""),
    "one bit wrong": lambda path: path.write_bytes(path.read_bytes()[:-1] + b"\x55"),
    "card cut short": lambda path: path.with_suffix(".json").write_text('{"format": 1,'),
    "card not text": lambda path: path.with_suffix(".json").write_bytes(b"\xff\xfe\x00"),
    "card of something else": lambda path: path.with_suffix(".json").write_text('{"architectures": []}'),
    "card no object": lambda path: path.with_suffix(".json").write_text("[1]"),
    "format of tomorrow": edit(lambda record: record.update(format=99)),
    "no labels": edit(lambda record: record.pop("labels")),
    "too few labels": edit(lambda record: record.update(labels=["joy"])),
    "other modalities": edit(lambda record: record.update(modalities=[])),
    "temperature zero": edit(lambda record: record.update(temperatures={"text": 0.0})),
    "config of nothing": edit(lambda record: record.update(config={"dims": []})),
    "config of another model": edit(lambda record: record["config"].update(width=16)),  # type: ignore[attr-defined]
    "config no table": edit(lambda record: record.update(config=7)),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_anything_else_is_one_clear_line(path: Path, damage: Callable[[Path], object]) -> None:
    damage(path)
    with pytest.raises(CheckpointError) as caught:
        load(path)
    assert "\n" not in str(caught.value)
    assert "tiny" in str(caught.value)
    assert isinstance(caught.value, CmathStreamError)


def test_require_names_the_extractor_that_does_not_fit(path: Path) -> None:
    checkpoint = load(path)
    words, voice = Extractor("words", "2", 6), Extractor("voice", "1", 5)
    checkpoint.require({"text": words, "audio": voice})
    checkpoint.require({"text": words})  # no voice at all: absent for good
    checkpoint.require({"text": words, "visual": Extractor("face", "1", 9)})
    for wrong in (replace(voice, name="prosody"), replace(voice, version="2"), replace(voice, dim=4)):
        with pytest.raises(CheckpointError, match="audio features voice/1"):
            checkpoint.require({"text": words, "audio": wrong})


def test_temperature_follows_what_is_present(model: CMATH) -> None:
    checkpoint = Checkpoint(model, META)
    logits = np.tile(np.arange(7, dtype=np.float32), (4, 1))
    presence = np.array([[True, True], [True, False], [False, True], [False, False]])
    chances = checkpoint.probabilities(logits, presence)
    np.testing.assert_allclose(chances.sum(axis=1), 1.0)
    assert chances[0, 6] > chances[2, 6] > chances[1, 6]
    np.testing.assert_array_equal(chances[3], chances[0])  # nothing present: uncalibrated
    assert [META.pattern(row) for row in presence] == ["text+audio", "text", "audio", ""]


@pytest.mark.parametrize("name", ["live-small", "words", "ravdess", "mosi", "mosi-provided"])
def test_what_is_shipped_loads_and_has_its_card(name: str) -> None:
    checkpoint = load(shipped(name))
    assert checkpoint.meta.name == name
    assert checkpoint.meta.licence and checkpoint.meta.data_sources
    assert set(checkpoint.meta.reliability) == set(checkpoint.meta.config.names)
    assert shipped(name).with_suffix(".md").exists()
    with pytest.raises(CheckpointError, match="nonesuch"):
        shipped("nonesuch")


def test_the_live_checkpoint_takes_what_the_shipped_encoders_give() -> None:
    meta = load(shipped()).meta
    assert meta.labels == MELD7
    assert meta.config.causal and meta.config.window == 16
    words = text_adapter.read(text_adapter.shipped())[0]
    assert meta.modalities == (
        ModalitySpec("text", words.name, words.version, words.dim), *voice_and_face()
    )  # fmt: skip
    assert len(meta.temperatures) == 7


def test_all_that_is_shipped_is_small() -> None:
    folders = (shipped().parent, voice_file.shipped().parent)
    weights = [path for folder in folders for path in folder.glob("*.safetensors")]
    assert len(weights) >= 7
    assert sum(path.stat().st_size for path in weights) <= 30_000_000
