"""What a training run on a feature set is made of, and how it is read from TOML. Trains nothing."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from cmath_stream.training.feature_files import MODALITIES
from cmath_stream.training.feature_sets import Text
from cmath_stream.training.losses import LossWeights
from cmath_stream.training.recipe import Recipe, Schedule, model_config
from realtime.errors import SettingsError
from realtime.settings import build

# The schedule of a set of whole, complete conversations: nothing is dropped or cut unless the recipe asks.
_SCHEDULE = Schedule(warm_up=0.3, ema=0.0, absent=0.0, crop=0.0, feature_noise=0.0)


@dataclass(frozen=True, slots=True)
class FeatureRecipe:
    """One run; `configs/train-*.toml` of `kind = "features"` hold the differences from these defaults."""

    name: str
    features: str  # the file, relative to the data folder
    kind: Literal["features"] = "features"
    version: str = "1"
    licence: str = ""
    data_sources: tuple[str, ...] = ()
    label_set: str = ""  # as the checkpoint calls it; empty = name and number of classes, as "mosi2"
    text: Text = "provided"
    modalities: tuple[str, ...] = ()  # as ("text", "audio"); empty = all the set has
    judged_by: tuple[str, ...] = ()  # presence patterns that choose the epoch; empty = everything present
    answered: float = 0.9  # share of validation utterances that get a label; sets the abstain threshold
    folds: int = 5  # of a cross-validation
    # Rows, in whole dialogues, that choose the epoch where the set names none; 0 = all learn, the last epoch.
    validation_share: float = 0.15
    seeds: int = 5  # 1, 2, .. of a cross-validation
    loss: LossWeights = LossWeights()
    schedule: Schedule = _SCHEDULE
    model: Mapping[str, Any] = field(default_factory=dict)  # CMATHConfig without dims and classes

    def __post_init__(self) -> None:
        if self.folds < 2 or self.seeds < 1 or not 0.0 <= self.validation_share <= 0.5:
            raise ValueError("folds is at least 2, seeds at least 1, validation_share at most .5")


def read_feature_recipe(path: Path) -> FeatureRecipe:
    """Read a recipe TOML. Raises SettingsError for what is no TOML or no key of a recipe."""
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: {error}") from error
    try:
        return feature_recipe(raw)
    except SettingsError as error:
        raise SettingsError(f"{path}: {error}") from error


def feature_recipe(raw: Mapping[str, Any]) -> FeatureRecipe:
    """A recipe from plain data. Raises SettingsError."""
    values = {key: value for key, value in raw.items() if key not in ("model", "schedule", "loss")}
    if missing := {"name", "features"} - set(values):
        raise SettingsError(f"no setting {sorted(missing)[0]}")
    return varied(
        build(FeatureRecipe, values), {key: raw.get(key, {}) for key in ("model", "schedule", "loss")}
    )


def varied(recipe: FeatureRecipe, changes: Mapping[str, Mapping[str, Any]]) -> FeatureRecipe:
    """The recipe with keys of its tables `model`, `schedule` and `loss` changed: a variant for an ablation.

    Raises SettingsError for another table, an unknown key, or a model that cannot be.
    """
    if unknown := set(changes) - {"model", "schedule", "loss"}:
        raise SettingsError(f"unknown table {sorted(unknown)[0]}; known here: loss, model, schedule")
    schedule = {**asdict(recipe.schedule), **changes.get("schedule", {})}
    loss = {**asdict(recipe.loss), **changes.get("loss", {})}
    result = replace(
        recipe,
        model={**recipe.model, **changes.get("model", {})},
        schedule=build(Schedule, schedule, "schedule."),
        loss=build(LossWeights, loss, "loss."),
    )
    check_model(result, [(name, 8) for name in MODALITIES])
    return result


def check_model(recipe: FeatureRecipe, dims: Sequence[tuple[str, int]]) -> None:
    """Raises SettingsError where the recipe's model cannot take these modalities."""
    try:
        model_config(cmath_recipe(recipe, 1), dims, 2)
    except (TypeError, ValueError) as error:
        raise SettingsError(f"model: {str(error).replace('CMATHConfig.__init__() ', '')}") from error


def cmath_recipe(recipe: FeatureRecipe, seed: int, judged_by: tuple[str, ...] = ()) -> Recipe:
    """The trainer's view of a recipe, for one seed."""
    return Recipe(
        name=recipe.name,
        version=recipe.version,
        licence=recipe.licence,
        data_sources=recipe.data_sources,
        judged_by=judged_by,
        answered=recipe.answered,
        model=recipe.model,
        loss=recipe.loss,
        schedule=replace(recipe.schedule, seed=seed),
    )
