"""Honest comparison: folds that keep groups whole, baselines, and differences with their uncertainty.

Pure functions of arrays and examples; torch only for the baseline network.
Letters: n utterances, C classes, S seeds, G groups (dialogues, actors), D draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import nn
from torch.nn import functional as F

from cmath_stream.training.data import UNLABELLED, Example
from cmath_stream.training.evaluate import Labels, Probabilities, metrics, softmax
from cmath_stream.training.learning import one_cycle
from cmath_stream.training.train import class_weights

Metric = Literal["accuracy", "weighted_f1"]


def folds_by_group(groups: Sequence[str], folds: int, seed: int) -> NDArray[np.int64]:
    """[n] fold of every row: whole groups, about as many rows in each fold, the same for the same seed.

    Groups come in an order of chance, the largest first; each goes where the fewest rows are.
    Raises ValueError where there are fewer groups than folds.
    """
    names, group, rows = np.unique(np.asarray(groups), return_inverse=True, return_counts=True)
    if not 1 < folds <= len(names):
        raise ValueError(f"{len(names)} groups make no {folds} folds")
    shuffled = np.random.default_rng(seed).permutation(len(names))
    filled = np.zeros(folds, dtype=np.int64)
    place = np.zeros(len(names), dtype=np.int64)
    for each in shuffled[np.argsort(-rows[shuffled], kind="stable")]:
        place[each] = np.argmin(filled)
        filled[place[each]] += rows[each]
    return np.asarray(place[group], dtype=np.int64)


def held_out(groups: Sequence[str], share: float, seed: int) -> NDArray[np.bool_]:
    """[n] True for about `share` of the rows, in whole groups: a validation part. Raises ValueError."""
    folds = min(max(2, round(1.0 / share)), len(set(groups)))
    return np.asarray(folds_by_group(groups, folds, seed) == 0, dtype=np.bool_)


def paired_bootstrap(
    answers_a: ArrayLike,
    answers_b: ArrayLike,
    label: ArrayLike,
    groups: Sequence[str],
    metric: Metric = "accuracy",
    *,
    draws: int = 2000,
    seed: int = 0,
) -> tuple[float, float, float]:
    """How much better a is than b: the difference of the metric, and its 95 % interval over groups.

    Answers are classes [n] or [S, n], or probabilities [S, n, C] (one seed: [1, n, C]); with several seeds
    each draw averages the metric over them. Whole groups are drawn, since their rows err together.
    """
    truth = np.asarray(label, dtype=np.int64)
    _, group = np.unique(np.asarray(groups), return_inverse=True)
    count = int(group.max()) + 1
    said = [_said(answers) for answers in (answers_a, answers_b)]
    classes = 1 + max(int(truth.max()), *(int(each.max()) for each in said))
    tables = [_tables(each, truth, group, classes) for each in said]  # [S, G, 3, C]
    rng = np.random.default_rng(seed)
    times = rng.multinomial(count, np.full(count, 1.0 / count), size=draws)  # [D, G]
    times = np.concatenate([np.ones((1, count), dtype=times.dtype), times])  # first: the data itself
    a, b = (_score(times, table, metric) for table in tables)
    low, high = np.percentile((a - b)[1:], (2.5, 97.5))
    return float((a - b)[0]), float(low), float(high)


def _said(answers: ArrayLike) -> Labels:
    """[S, n] classes."""
    array = np.asarray(answers)
    said = array.argmax(axis=2) if array.ndim == 3 else np.atleast_2d(array)
    return np.asarray(said, dtype=np.int64)


def _tables(said: Labels, truth: Labels, group: Labels, classes: int) -> NDArray[np.int64]:
    """[S, G, 3, C]: hits, rows that are, and rows called, of each class in each group."""
    groups = int(group.max()) + 1

    def counted(of: Labels, rows: NDArray[np.bool_] | None = None) -> NDArray[np.int64]:  # [G, C]
        cell = group * classes + of
        cell = cell if rows is None else cell[rows]
        return np.bincount(cell, minlength=groups * classes).reshape(groups, classes)

    return np.stack(
        [np.stack([counted(truth, each == truth), counted(truth), counted(each)], axis=1) for each in said]
    )


def _score(times: NDArray[np.int64], table: NDArray[np.int64], metric: Metric) -> NDArray[np.float64]:
    """[D] mean over seeds of the metric, each group counted so many times."""
    hits, truly, called = np.moveaxis(np.tensordot(times, table, axes=(1, 1)), 2, 0)  # [D, S, C] each
    rows = truly.sum(axis=2)
    if metric == "accuracy":
        score = hits.sum(axis=2) / rows
    else:
        score = (2.0 * hits / np.maximum(truly + called, 1) * truly).sum(axis=2) / rows
    return np.asarray(score.mean(axis=1), dtype=np.float64)


def majority(train: Sequence[Example], test: Sequence[Example], classes: int) -> Probabilities:
    """[n, C] the shares of the classes in the training data, for every labelled row of `test`."""
    label = _labels(train)
    share = np.bincount(label[label != UNLABELLED], minlength=classes) / (label != UNLABELLED).sum()
    return np.tile(share, (int((_labels(test) != UNLABELLED).sum()), 1))


def concat_mlp(
    train: Sequence[Example],
    validation: Sequence[Example],
    test: Sequence[Example],
    classes: int,
    seed: int,
    *,
    hidden: int = 256,
    epochs: int = 40,
    batch: int = 64,
    learning_rate: float = 1e-3,
    weight_decay: float = 1e-2,
    dropout: float = 0.5,
    balance: float = 0.0,
) -> Probabilities:
    """[n, C] of the baseline every table carries: an utterance's features side by side, one hidden layer.

    It knows no context. Features are z-scored by the training part, absent ones are zeros; the epoch is
    chosen by weighted F1 on `validation`. `balance` is the power of the inverse class frequency. Rows: the
    labelled ones of `test`.
    """
    dims = [rows.shape[1] for rows in train[0].features]
    scales = [_scale([each.features[m][each.presence[:, m]] for each in train]) for m in range(len(dims))]
    (x, y), (x_judged, y_judged), (x_test, _) = (_flat(part, scales) for part in (train, validation, test))
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Linear(sum(dims), hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, classes)
    )
    weights = class_weights(train, classes, balance)
    optimiser = torch.optim.AdamW(net.parameters(), lr=learning_rate, weight_decay=weight_decay)
    steps = -(-len(y) // batch)
    best, chosen = -1.0, np.zeros((len(x_test), classes))
    for epoch in range(epochs):
        net.train()
        for step, rows in enumerate(torch.split(torch.randperm(len(y)), batch)):
            for group in optimiser.param_groups:
                group["lr"] = learning_rate * one_cycle((epoch + step / steps) / epochs, 0.2)
            loss = F.cross_entropy(net(x[rows]), y[rows], weight=weights)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        net.eval()
        with torch.inference_mode():
            judged = softmax(net(x_judged).numpy())
            score = metrics(judged, y_judged.numpy()).weighted_f1
            if score > best:
                best, chosen = score, softmax(net(x_test).numpy())
    return chosen


def _labels(examples: Sequence[Example]) -> Labels:
    return np.concatenate([example.label for example in examples])


def _scale(present: Sequence[NDArray[np.float32]]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and deviation, [D_m] each; of nothing, 0 and 1."""
    rows = np.concatenate(present)
    if not len(rows):
        return np.zeros(rows.shape[1], dtype=np.float32), np.ones(rows.shape[1], dtype=np.float32)
    return rows.mean(axis=0), np.maximum(rows.std(axis=0), 1e-4)


def _flat(
    examples: Sequence[Example], scales: Sequence[tuple[NDArray[np.float32], NDArray[np.float32]]]
) -> tuple[torch.Tensor, torch.Tensor]:
    """[n, sum of D_m] z-scored features and [n] labels of the labelled rows."""
    label = _labels(examples)
    columns = []
    for m, (mean, deviation) in enumerate(scales):
        rows = np.concatenate([each.features[m] for each in examples])
        present = np.concatenate([each.presence[:, m] for each in examples])[:, None]
        columns.append(np.where(present, (np.where(present, rows, 0.0) - mean) / deviation, 0.0))
    kept = label != UNLABELLED
    x = np.concatenate(columns, axis=1)[kept].astype(np.float32).clip(-8.0, 8.0)
    return torch.from_numpy(x), torch.from_numpy(label[kept])
