"""What a training run is made of, and how it is read from TOML. Knows numbers and names; trains nothing."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cmath_stream.model import CMATHConfig
from cmath_stream.training.data import MELD7
from cmath_stream.training.losses import LossWeights
from realtime.errors import SettingsError
from realtime.settings import build

KINDS = ("live", "words", "acted", "features", "voice", "face")


@dataclass(frozen=True, slots=True)
class WordsData:
    """Kind "words": what is read, relative to the data folder, and how far the sentence encoder may move."""

    train: tuple[str, ...] = ("meld/train.jsonl",)
    validation: str = "meld/dev.jsonl"
    rank: int = 32  # of the changes to a linear layer
    layers: int = 6  # the last ones of the encoder are changed
    adapter_dropout: float = 0.1


@dataclass(frozen=True, slots=True)
class ActedData:
    """Kind "acted": clips of RAVDESS with voice and action units."""

    voices: str = "voice-out-of-fold.npz"  # in the folder of results: training of the voice encoder left it
    units: str = "ravdess/face_au_audio.npz"  # relative to the data folder
    validation_actors: tuple[int, ...] = (17, 18, 19, 20)


@dataclass(frozen=True, slots=True)
class GraftedData:
    """A set of grafted conversations; paths relative to the data folder."""

    dialogues: tuple[str, ...] = ("meld/dev.jsonl",)
    voices: str = "ravdess"  # folder of recordings; .npz: what training of the voice encoder left
    actors: tuple[int, ...] = ()  # whose voices are taken; empty = everybody's
    faces: str = "ferplus/valid.npz"
    pictures: tuple[float, float] = (0.0, 1.0)  # share of the pictures, from and to
    disagree: float = 0.15  # share of voices, and of faces, of another emotion than the words
    voiceless: float = 0.25  # share of utterances without a voice
    faceless: float = 0.45  # and without a face
    degraded: bool = False  # voices also as by telephone, through Opus and in noise, where there are versions
    seed: int = 0


@dataclass(frozen=True, slots=True)
class LiveData:
    """Kind "live": grafted conversations to learn from, others with other actors and faces to judge on."""

    train: GraftedData = GraftedData()
    validation: GraftedData = GraftedData()
    encoder: str = "all-MiniLM-L6-v2"  # of the words; any sentence-transformers model, by name or folder
    adapter: str = "auto"  # of the encoder: a path, "none", or the shipped one for its own encoder
    begin_with: str = ""  # shipped checkpoint over words whose weights are the start; empty = at random


@dataclass(frozen=True, slots=True)
class Schedule:
    """How the weights move. Zero switches off: ema, class_weights, feature_noise, absent, crop."""

    seed: int = 1
    epochs: int = 15
    batch: int = 16  # dialogues
    learning_rate: float = 5e-4  # peak of the one-cycle schedule
    weight_decay: float = 1e-2
    clip: float = 1.0  # gradient norm
    warm_up: float = 0.2  # share of steps in which the rate, and R18's weight, rise
    ema: float = 0.99  # decay a step of the averaged weights that are judged and kept
    class_weights: float = 0.0  # power of the inverse class frequency; 1 = balanced
    absent: float = 0.3  # chance of a modality to be dropped, of a whole dialogue or of single utterances
    crop: float = 0.5  # chance of a dialogue to be cut to a random stretch, as a window that opens mid-way
    feature_noise: float = 0.1  # deviations of the training data


@dataclass(frozen=True, slots=True)
class Recipe:
    """A run that ends in a CMATH checkpoint; `configs/train-*.toml` holds what differs from the defaults."""

    name: str
    kind: str = "live"
    version: str = "1"
    licence: str = ""
    data_sources: tuple[str, ...] = ()
    judged_by: tuple[str, ...] = ()  # presence patterns, as "text+audio", that choose the epoch; empty = all
    answered: float = 0.9  # share of validation utterances that get a label; sets the abstain threshold
    model: Mapping[str, Any] = field(default_factory=dict)  # CMATHConfig without dims and classes
    loss: LossWeights = LossWeights()
    schedule: Schedule = Schedule()
    settle: Schedule = Schedule()  # kind "words": of CMATH alone, once the encoder stays as it is
    words: WordsData = WordsData()
    live: LiveData = LiveData()
    acted: ActedData = ActedData()


def read_kind(path: Path) -> str:
    """What a recipe trains, one of KINDS. Raises SettingsError."""
    try:
        kind = _read(path).get("kind")
    except (SettingsError, ValueError) as error:
        raise SettingsError(f"{path}: {error}") from error
    if kind not in KINDS:
        raise SettingsError(f"{path}: a recipe begins with kind = one of {', '.join(KINDS)}, not {kind!r}")
    return str(kind)


def read_recipe(path: Path) -> Recipe:
    """Read the recipe of a "live" or "words" run. Raises SettingsError for no TOML or no key of a recipe."""
    try:
        recipe = build(Recipe, _read(path))
        model_config(recipe, (("probe", 8),))
    except (TypeError, ValueError) as error:
        raise SettingsError(f"{path}: {str(error).replace('.__init__()', '')}") from error
    except SettingsError as error:
        raise SettingsError(f"{path}: {error}") from error
    return recipe


def model_config(recipe: Recipe, dims: Sequence[tuple[str, int]], classes: int = len(MELD7)) -> CMATHConfig:
    """The recipe's model for these modalities."""
    return CMATHConfig(dims=tuple(dims), classes=classes, **_tuples(recipe.model))


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"cannot be read: {error.strerror}") from error


def _tuples(table: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in table.items()}
