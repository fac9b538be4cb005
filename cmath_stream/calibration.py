"""What a fitted model becomes before it is shipped: calibrated, its doubt and its failings set down."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from cmath_stream.checkpoint import CheckpointMeta, ModalitySpec
from cmath_stream.data import Example
from cmath_stream.evaluate import (
    Metrics,
    answer,
    calibration_interval,
    cross_fitted,
    fit_temperature,
    metrics,
    patterns,
)
from cmath_stream.model import CMATH
from cmath_stream.recipe import Recipe


def describe(
    recipe: Recipe,
    model: CMATH,
    modalities: Sequence[ModalitySpec],
    validation: Sequence[Example],
    *,
    label_set: str,
    labels: tuple[str, ...],
    judged_on: str,
    best_epoch: int,
) -> CheckpointMeta:
    """Calibrate on validation, a temperature a presence pattern, and set down what the checkpoint is.

    Reported calibration is cross-fitted by dialogue; the stored temperatures use all of validation.
    """
    temperatures, figures, confidence = {}, {}, []
    for pattern, subset in patterns(model.config.names).items():
        answers = answer(model, validation, subset)
        chances = cross_fitted(answers)
        temperatures[pattern] = round(fit_temperature(answers.logits, answers.label), 4)
        low, high, floor = calibration_interval(chances, answers.label)
        figures[pattern] = rounded(metrics(chances, answers.label)) | {
            "ece_95": [round(low, 4), round(high, 4)],
            "ece_of_a_perfect_model": round(floor, 4),
        }
        confidence.append(chances.max(axis=1))
    return CheckpointMeta(
        name=recipe.name,
        version=recipe.version,
        label_set=label_set,
        labels=labels,
        modalities=tuple(modalities),
        config=model.config,
        temperatures=temperatures,
        abstain_below=round(float(np.quantile(np.concatenate(confidence), 1.0 - recipe.answered)), 4),
        reliability={name: figures[name]["accuracy"] for name in model.config.names},
        licence=recipe.licence,
        data_sources=recipe.data_sources,
        validation={"set": judged_on, "best_epoch": best_epoch, "patterns": figures},
    )


def rounded(figures: Metrics) -> dict[str, Any]:
    """As plain data, shares with four decimals."""

    def short(value: Any) -> Any:
        if isinstance(value, tuple):
            return [short(each) for each in value]
        return round(value, 4) if isinstance(value, float) else value

    return {key: short(value) for key, value in asdict(figures).items()}
