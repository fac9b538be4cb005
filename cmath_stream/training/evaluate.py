"""How well a model does: metrics as pure numpy functions, and the runs over dialogues they are computed from.

Letters: n utterances, C classes, M modalities.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from numpy.typing import NDArray

from cmath_stream.checkpoint import Checkpoint
from cmath_stream.model import CMATH
from cmath_stream.training.data import UNLABELLED, Example, collate

BINS = 15

Labels = NDArray[np.int64]
Probabilities = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Metrics:
    """Figures over labelled utterances, shares of 1."""

    utterances: int
    accuracy: float
    weighted_f1: float  # by support
    macro_f1: float
    ece: float  # expected calibration error, 15 bins of equal width
    f1: tuple[float, ...]  # [C]
    recall: tuple[float, ...]  # [C]
    support: tuple[int, ...]  # [C]


@dataclass(frozen=True, slots=True)
class Answers:
    """Raw answers on the labelled utterances of some dialogues."""

    logits: NDArray[np.float32]  # [n, C]
    label: Labels  # [n]
    presence: NDArray[np.bool_]  # [n, M]
    dialogue: Labels  # [n], which dialogue a row is of


def metrics(probabilities: Probabilities, label: Labels) -> Metrics:
    """All figures of [n, C] probabilities against [n] labels; a class without rows scores 0."""
    classes = probabilities.shape[1]
    said = probabilities.argmax(axis=1)
    counts = np.zeros((classes, classes), dtype=np.int64)  # [true, said]
    np.add.at(counts, (label, said), 1)
    hits, support = counts.diagonal(), counts.sum(axis=1)
    f1 = 2.0 * hits / np.maximum(support + counts.sum(axis=0), 1)
    return Metrics(
        utterances=len(label),
        accuracy=float(hits.sum() / max(len(label), 1)),
        weighted_f1=float(f1 @ support / max(len(label), 1)),
        macro_f1=float(f1.mean()),
        ece=calibration_error(probabilities, label),
        f1=tuple(f1.tolist()),
        recall=tuple((hits / np.maximum(support, 1)).tolist()),
        support=tuple(support.tolist()),
    )


def calibration_error(probabilities: Probabilities, label: Labels, bins: int = BINS) -> float:
    """Expected calibration error: distance of confidence and accuracy, averaged over bins of confidence."""
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == label
    place = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    gaps = np.bincount(place, weights=right - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / max(len(label), 1))


def calibration_interval(
    probabilities: Probabilities, label: Labels, *, draws: int = 200, seed: int = 0
) -> tuple[float, float, float]:
    """95 % bootstrap interval of the ECE, and the ECE that a perfectly calibrated model shows at this n."""
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, len(label), size=(draws, len(label)))
    errors = [calibration_error(probabilities[row], label[row]) for row in rows]
    cumulative = probabilities.cumsum(axis=1)
    perfect = [
        calibration_error(
            probabilities,
            np.minimum((rng.random((len(label), 1)) > cumulative).sum(axis=1), probabilities.shape[1] - 1),
        )
        for _ in range(draws // 4)
    ]
    low, high = np.percentile(errors, (2.5, 97.5))
    return float(low), float(high), float(np.mean(perfect))


def risk_coverage(probabilities: Probabilities, label: Labels) -> NDArray[np.float64]:
    """[n, 2]: share answered and share of errors among them, most confident first."""
    order = np.argsort(-probabilities.max(axis=1), kind="stable")
    wrong = (probabilities.argmax(axis=1) != label)[order]
    answered = np.arange(1, len(label) + 1)
    return np.stack([answered / len(label), wrong.cumsum() / answered], axis=1)


def softmax(logits: NDArray[np.float32], temperature: float = 1.0) -> Probabilities:
    """[n, C] -> [n, C]."""
    scaled = logits.astype(np.float64) / temperature
    odds = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    result: Probabilities = odds / odds.sum(axis=1, keepdims=True)
    return result


def fit_temperature(logits: NDArray[np.float32], label: Labels) -> float:
    """The temperature of least log loss, between 0.25 and 8, by golden section on its logarithm."""

    def loss(log_temperature: float) -> float:
        chances = softmax(logits, float(np.exp(log_temperature)))
        return float(-np.log(chances[np.arange(len(label)), label] + 1e-12).mean())

    low, high = np.log(0.25), np.log(8.0)
    golden = (np.sqrt(5.0) - 1.0) / 2.0
    for _ in range(40):
        left, right = high - golden * (high - low), low + golden * (high - low)
        low, high = (low, right) if loss(left) < loss(right) else (left, high)
    return float(np.exp((low + high) / 2.0))


def cross_fitted(answers: Answers, folds: int = 5) -> Probabilities:
    """[n, C] probabilities whose temperature was fitted on other dialogues than the row's own."""
    fold = answers.dialogue % folds
    result = np.zeros(answers.logits.shape, dtype=np.float64)
    for k in range(folds):
        inside = fold == k
        temperature = fit_temperature(answers.logits[~inside], answers.label[~inside])
        result[inside] = softmax(answers.logits[inside], temperature)
    return result


def patterns(names: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Every non-empty subset of modalities, as positions, by the names joined by `+`: seven for three."""
    subsets = [
        subset for size in range(1, len(names) + 1) for subset in combinations(range(len(names)), size)
    ]
    return {"+".join(names[m] for m in subset): subset for subset in subsets}


@torch.inference_mode()
def answer(
    model: CMATH, examples: Sequence[Example], keep: Sequence[int] | None = None, batch: int = 64
) -> Answers:
    """Whole dialogues through the model (put it in eval mode), with only the modalities `keep` present.

    Rows without a label, and rows of which nothing is left, are not counted.
    """
    parts: list[tuple[NDArray[np.float32], Labels, NDArray[np.bool_], Labels]] = []
    for start in range(0, len(examples), batch):
        padded = collate(examples[start : start + batch])
        presence = padded.presence.copy()
        if keep is not None:
            presence[..., [m for m in range(presence.shape[2]) if m not in keep]] = False
        logits = model(
            tuple(torch.from_numpy(rows) for rows in padded.features),
            torch.from_numpy(presence),
            torch.from_numpy(padded.mask),
            torch.from_numpy(padded.speaker),
        ).numpy()
        counted = (padded.label != UNLABELLED) & presence.any(axis=2)
        dialogue = np.broadcast_to(np.arange(len(counted))[:, None] + start, counted.shape)
        parts.append((logits[counted], padded.label[counted], presence[counted], dialogue[counted]))
    logits_, label, presence_, dialogue_ = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Answers(logits_, label, presence_, dialogue_)


def joined(parts: Sequence[Answers]) -> Answers:
    """Answers about different dialogues as one."""
    before = np.cumsum([0, *(each.dialogue.max(initial=-1) + 1 for each in parts[:-1])])
    return Answers(
        np.concatenate([each.logits for each in parts]),
        np.concatenate([each.label for each in parts]),
        np.concatenate([each.presence for each in parts]),
        np.concatenate([each.dialogue + first for each, first in zip(parts, before, strict=True)]),
    )


def evaluate(
    checkpoint: Checkpoint, examples: Sequence[Example], keep: Sequence[int] | None = None
) -> Metrics:
    """Calibrated figures of a checkpoint on dialogues, with only the modalities `keep` present."""
    answers = answer(checkpoint.model, examples, keep)
    return metrics(checkpoint.probabilities(answers.logits, answers.presence), answers.label)
