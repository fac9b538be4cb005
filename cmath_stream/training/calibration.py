"""What a checkpoint says of its own certainty: temperatures, figures, a threshold, all from validation.

Works for any labels. Knows answers about rows that were not learned from; not whose they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np

from cmath_stream.checkpoint import CheckpointMeta, ModalitySpec
from cmath_stream.model import CMATH
from cmath_stream.training.evaluate import (
    Answers,
    Metrics,
    calibration_interval,
    cross_fitted,
    fit_temperature,
    metrics,
    patterns,
)

_DIGITS = 4

Ask = Callable[[Sequence[int]], Answers]  # about validation, with only these modalities present


@dataclass(frozen=True, slots=True)
class Calibration:
    """By presence pattern, as "text+audio"."""

    temperatures: Mapping[str, float]
    figures: Mapping[str, Mapping[str, Any]]  # for a checkpoint's card
    abstain_below: float


class Recipe(Protocol):
    """What a checkpoint takes from the recipe it was trained by."""

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def licence(self) -> str: ...
    @property
    def data_sources(self) -> tuple[str, ...]: ...
    @property
    def answered(self) -> float: ...


def describe(
    recipe: Recipe,
    model: CMATH,
    modalities: Sequence[ModalitySpec],
    ask: Ask,
    *,
    label_set: str,
    labels: tuple[str, ...],
    judged_on: str,
    best_epoch: int,
) -> CheckpointMeta:
    """Calibrate on validation and set down what the checkpoint is."""
    found = calibrate(model.config.names, ask, recipe.answered)
    return CheckpointMeta(
        name=recipe.name,
        version=recipe.version,
        label_set=label_set,
        labels=labels,
        modalities=tuple(modalities),
        config=model.config,
        temperatures=found.temperatures,
        abstain_below=found.abstain_below,
        reliability={
            name: found.figures[name]["accuracy"] for name in model.config.names if name in found.figures
        },
        licence=recipe.licence,
        data_sources=recipe.data_sources,
        validation={"set": judged_on, "best_epoch": best_epoch, "patterns": found.figures},
    )


def calibrate(modalities: Sequence[str], ask: Ask, answered: float) -> Calibration:
    """Temperatures from all of validation; figures cross-fitted by dialogue; `answered` of the rows pass.

    A pattern that no validation row can show is left out.
    """
    temperatures: dict[str, float] = {}
    figures: dict[str, Mapping[str, Any]] = {}
    confidence = []
    for pattern, subset in patterns(modalities).items():
        answers = ask(subset)
        if len(np.unique(answers.dialogue)) < 2:
            continue
        chances = cross_fitted(answers)
        temperatures[pattern] = round(fit_temperature(answers.logits, answers.label), _DIGITS)
        low, high, floor = calibration_interval(chances, answers.label)
        figures[pattern] = _rounded(metrics(chances, answers.label)) | {
            "ece_95": [round(low, _DIGITS), round(high, _DIGITS)],
            "ece_of_a_perfect_model": round(floor, _DIGITS),
        }
        confidence.append(chances.max(axis=1))
    threshold = float(np.quantile(np.concatenate(confidence), 1.0 - answered))
    return Calibration(temperatures, figures, round(threshold, _DIGITS))


def _rounded(figures: Metrics) -> dict[str, Any]:
    return {
        key: [round(each, _DIGITS) for each in value] if isinstance(value, tuple) else round(value, _DIGITS)
        for key, value in asdict(figures).items()
    }
