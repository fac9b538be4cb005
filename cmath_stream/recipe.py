"""What a training run is made of, and how it is read from TOML. Knows numbers and names; trains nothing."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cmath_stream.data import MELD7
from cmath_stream.losses import LossWeights
from cmath_stream.model import CMATHConfig
from realtime.errors import SettingsError


@dataclass(frozen=True, slots=True)
class Corpora:
    """What is read, relative to the data folder, and how voices are grafted on it."""

    train: tuple[str, ...] = ("meld/train.jsonl",)
    validation: str = "meld/dev.jsonl"
    voices: str = "ravdess"
    train_actors: tuple[int, ...] = tuple(range(1, 17))
    validation_actors: tuple[int, ...] = (17, 18, 19, 20)
    noise_db: tuple[float, ...] = ()  # training voices once more in noise so far below the speech
    disagree: float = 0.15  # share of grafted voices with another emotion than the words
    absent: float = 0.35  # share of training utterances without a voice


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
    """One training run; `configs/train-*.toml` holds its differences from the defaults."""

    name: str
    version: str = "1"
    licence: str = ""
    data_sources: tuple[str, ...] = ()
    judged_by: tuple[str, ...] = ()  # presence patterns, as "text+audio", that choose the epoch; empty = all
    answered: float = 0.9  # share of validation utterances that get a label; sets the abstain threshold
    model: Mapping[str, Any] = field(default_factory=dict)  # CMATHConfig without dims and classes
    loss: LossWeights = LossWeights()
    corpora: Corpora = Corpora()
    schedule: Schedule = Schedule()


def read_recipe(path: Path) -> Recipe:
    """Read a recipe TOML. Raises SettingsError for what is no TOML or no key of a recipe."""
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"{path}: {error}") from error
    try:
        recipe = Recipe(
            **_tuples(raw)
            | {
                "model": raw.get("model", {}),
                "loss": LossWeights(**raw.get("loss", {})),
                "corpora": Corpora(**_tuples(raw.get("corpora", {}))),
                "schedule": Schedule(**raw.get("schedule", {})),
            }
        )
        model_config(recipe, (("probe", 8),))
    except (TypeError, ValueError) as error:
        raise SettingsError(f"{path}: {str(error).replace('.__init__()', '')}") from error
    return recipe


def model_config(recipe: Recipe, dims: Sequence[tuple[str, int]], classes: int = len(MELD7)) -> CMATHConfig:
    """The recipe's model for these modalities."""
    return CMATHConfig(dims=tuple(dims), classes=classes, **_tuples(recipe.model))


def _tuples(table: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in table.items()}
