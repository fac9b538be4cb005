"""CMATH on features: a recipe and dialogues in, a fitted model out, chosen on validation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cmath_stream.model import CMATH
from cmath_stream.training.data import MELD7, UNLABELLED, Batch, Example, collate
from cmath_stream.training.evaluate import Metrics, answer, metrics, patterns, softmax
from cmath_stream.training.learning import Rng, learn, put
from cmath_stream.training.losses import Losses, losses
from cmath_stream.training.recipe import Recipe, model_config
from realtime.errors import SettingsError

Epochs = Callable[[int], list[Example]]  # the training dialogues of an epoch; grafted anew each time


@dataclass(frozen=True, slots=True)
class Fitted:
    """A trained model and its path there."""

    model: CMATH  # eval mode, the best epoch's weights
    best_epoch: int
    history: tuple[float, ...]  # validation score an epoch


def fit(
    recipe: Recipe,
    dims: Sequence[tuple[str, int]],
    epochs: Epochs,
    validation: Sequence[Example],
    out_dir: Path | None,
    *,
    classes: int = len(MELD7),
    initial: Mapping[str, Tensor] | None = None,
    resume: bool = False,
    progress: bool = True,
) -> Fitted:
    """Train on `epochs(0)`, `epochs(1)`, ..; keep the epoch of the best validation score.

    Without validation all epochs are run and the last is kept.
    `initial` holds weights to begin with, by the names of the model's state; what it does not name begins at
    random. `out_dir` keeps what `resume` needs; None keeps nothing.
    Raises SettingsError where `judged_by` names no pattern of these modalities, or `resume` finds a run of
    another recipe.
    """
    if unknown := set(recipe.judged_by) - set(patterns([name for name, _ in dims])):
        raise SettingsError(f"judged_by: no such combination of modalities: {sorted(unknown)}")
    torch.manual_seed(recipe.schedule.seed)
    model = CMATH(model_config(recipe, dims, classes))
    learner = FeatureLearner(recipe, model, epochs, validation)
    if initial is not None:
        state = model.state_dict()
        put({key: state[key] for key in initial}, initial)
    path = None if out_dir is None else out_dir / f"{recipe.name}.state.pt"
    learned = learn(
        learner, recipe.schedule, path, repr(recipe), title=recipe.name, resume=resume, progress=progress
    )
    return Fitted(model, learned.best_epoch, learned.history)


class FeatureLearner(nn.Module):
    """CMATH over features that lie ready; modalities are dropped and noise is put on them."""

    def __init__(self, recipe: Recipe, model: CMATH, epochs: Epochs, validation: Sequence[Example]) -> None:
        super().__init__()
        self.recipe, self.model = recipe, model
        self._epochs, self._validation = epochs, validation
        self._first: list[Example] = epochs(0)
        self._scale = standardise(model, self._first)
        self._weights = class_weights(self._first, model.config.classes, recipe.schedule.class_weights)

    def learned(self) -> Mapping[str, Tensor]:
        """Weights and z-score statistics."""
        return self.model.state_dict()

    def batches(self, epoch: int, rng: Rng) -> list[list[Example]]:
        """The epoch's dialogues in random order; a batch is cut and padded when it is its turn."""
        examples = self._first if epoch == 0 else self._epochs(epoch)
        order, size = rng.permutation(len(examples)), self.recipe.schedule.batch
        return [[examples[i] for i in order[at : at + size]] for at in range(0, len(order), size)]

    def loss(self, batch: Sequence[Example], rng: Rng, risen: float) -> Tensor:
        """R21 of a batch."""
        chance = self.recipe.schedule.crop
        padded = collate([cut(example, *stretch(len(example.label), chance, rng)) for example in batch])
        return train_step(self.model, padded, self.recipe, self._weights, self._scale, rng, risen).total

    def judge(self) -> float:
        """Weighted F1, mean over the patterns that judge; 0 where there is nothing to judge on."""
        if not self._validation:
            return 0.0
        figures = by_pattern(self.model, self._validation)
        return float(np.mean([figures[each].weighted_f1 for each in self.recipe.judged_by or figures]))


def train_step(
    model: CMATH,
    batch: Batch,
    recipe: Recipe,
    weights: Tensor | None,
    scale: Sequence[NDArray[np.float32]],
    rng: Rng,
    warm_up: float,
) -> Losses:
    """Losses of one batch, with modalities dropped and noise on the features."""
    schedule = recipe.schedule
    presence = drop_modalities(batch.presence, schedule.absent, rng)
    noisy = [
        rows + schedule.feature_noise * deviation * rng.standard_normal(rows.shape, dtype=np.float32)
        for rows, deviation in zip(batch.features, scale, strict=True)
    ]
    out = model.training_pass(
        tuple(torch.from_numpy(rows) for rows in noisy),
        torch.from_numpy(presence),
        torch.from_numpy(batch.mask),
        torch.from_numpy(batch.speaker),
    )
    return losses(out, torch.from_numpy(batch.label), recipe.loss, class_weights=weights, warm_up=warm_up)


def standardise(model: CMATH, examples: Sequence[Example]) -> list[NDArray[np.float32]]:
    """Give the model the z-score statistics of its training data; returns the deviations, M x [D_m]."""
    deviations = []
    for m, compressor in enumerate(model.compressors):
        rows = np.concatenate([example.features[m][example.presence[:, m]] for example in examples])
        deviation = np.maximum(rows.std(axis=0), 1e-4).astype(np.float32)
        compressor.mean.copy_(torch.from_numpy(rows.mean(axis=0)))  # type: ignore[operator]
        compressor.std.copy_(torch.from_numpy(deviation))  # type: ignore[operator]
        deviations.append(deviation)
    return deviations


def class_weights(examples: Sequence[Example], classes: int, power: float) -> Tensor | None:
    """[C] inverse class frequency to a power, mean 1 over the data; None where the power is 0."""
    if power == 0.0:
        return None
    label = np.concatenate([example.label for example in examples])
    share = np.bincount(label[label != UNLABELLED], minlength=classes) / np.count_nonzero(label != UNLABELLED)
    weight = np.maximum(share, 1e-3) ** -power
    return torch.from_numpy((weight / (weight @ share)).astype(np.float32))


def drop_modalities(presence: NDArray[np.bool_], chance: float, rng: Rng) -> NDArray[np.bool_]:
    """[B, N, M] with modalities taken away, in half of the dialogues throughout; no row loses its last."""
    b, n, m = presence.shape
    throughout = rng.random((b, 1, 1)) < 0.5
    dropped = np.where(throughout, rng.random((b, 1, m)) < chance, rng.random((b, n, m)) < chance)
    kept = presence & ~dropped
    return np.where(kept.any(axis=2, keepdims=True), kept, presence)


def stretch(length: int, chance: float, rng: Rng) -> tuple[int, int]:
    """A random stretch of a dialogue, as a window that opens mid-way and closes early; else all of it."""
    if rng.random() >= chance:
        return 0, length
    start, stop = np.sort(rng.integers(0, length + 1, size=2))
    return (int(start), int(stop)) if start < stop else (0, length)


def cut(example: Example, start: int, stop: int) -> Example:
    """The utterances of a stretch."""
    rows = slice(start, stop)
    return Example(
        tuple(features[rows] for features in example.features),
        example.presence[rows],
        example.speaker[rows],
        example.label[rows],
    )


def by_pattern(model: CMATH, validation: Sequence[Example]) -> dict[str, Metrics]:
    """Uncalibrated figures for every subset of modalities, keyed by their names joined by `+`."""
    result = {}
    for pattern, subset in patterns(model.config.names).items():
        answers = answer(model, validation, subset)
        result[pattern] = metrics(softmax(answers.logits), answers.label)
    return result
