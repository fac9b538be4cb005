"""RAVDESS, unseen actors: voice posterior and action units, fused by CMATH, beside each alone.

Nested: for the actors of fold i, the fusion learns from the other folds' clips, each heard by a voice encoder
that knew neither its fold nor fold i; the clips of fold i are heard by the one of cross-validation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.raw_results import calibration_curve, confusion, risk_curve, score, write_raw
from cmath_stream.acted import LABELS, Acted, everybody, joined, of_actors, sessions
from cmath_stream.crossval import concat_mlp, majority, paired_bootstrap
from cmath_stream.data import Example, Floats
from cmath_stream.evaluate import Answers, answer, fit_temperature, softmax
from cmath_stream.recipe import Recipe
from cmath_stream.train import fit

FOLDS = 5
MODALITIES = ("audio", "visual")
FULL = "CMATH, voice + face"


def posteriors(work: Path) -> tuple[tuple[str, ...], dict[str, NDArray[Any]], dict[tuple[int, int], Floats]]:
    """Keys, the arrays of cross-validation, and by (i, j) the posterior [n, 8] of encoders that heard neither
    fold i nor fold j (rows of other folds mean nothing)."""
    with np.load(work / "voice-out-of-fold.npz") as file:
        single = {name: file[name] for name in file.files}
    keys = tuple(map(str, single["key"]))
    place = {key: at for at, key in enumerate(keys)}
    pairs = {}
    for i in range(FOLDS):
        for j in range(i + 1, FOLDS):
            with np.load(work / "voice-pairs" / f"{i}{j}.npz") as file:
                rows = np.zeros((len(keys), len(LABELS)), np.float32)
                rows[[place[str(key)] for key in file["key"]]] = file["posterior"]
            pairs[i, j] = pairs[j, i] = rows
    return keys, single, pairs


def folds(work: Path, units: Path) -> list[tuple[Acted, Acted, Acted]]:
    """For every fold what is learned from, what chooses the epoch, and what is judged."""
    keys, single, pairs = posteriors(work)
    fold = (single["actor"] - 1) // 2 % FOLDS
    parts = []
    for i in range(FOLDS):
        posterior = single["posterior"][0].copy()
        for j in set(range(FOLDS)) - {i}:
            posterior[fold == j] = pairs[i, j][fold == j]
        clips = joined(keys, posterior, single["emotion"].astype(np.int64), single["actor"].astype(np.int64), units)
        of = (clips.actor - 1) // 2 % FOLDS
        choosing = (i + 1) % FOLDS
        parts.append(tuple(of_actors(clips, of_mask) for of_mask in ((of != i) & (of != choosing), of == choosing, of == i)))
    return parts  # type: ignore[return-value]


def run(recipe: Recipe, parts: Sequence[tuple[Acted, Acted, Acted]], seeds: Sequence[int], keep: Sequence[int] = (0, 1)) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Probabilities [seeds, n, C], labels [n] and actors [n], fold by fold."""
    out: list[list[NDArray[np.float64]]] = [[] for _ in seeds]
    label, actor = [], []
    for training, choosing, judged in parts:
        mean = everybody(training)
        examples = [[_only(each, keep) for each in sessions(part, mean)] for part in (training, choosing, judged)]
        dims = [(MODALITIES[m], examples[0][0].features[place].shape[1]) for place, m in enumerate(keep)]
        for place, seed in enumerate(seeds):
            seeded = replace(recipe, schedule=replace(recipe.schedule, seed=seed), judged_by=("+".join(MODALITIES[m] for m in keep),))
            fitted = fit(seeded, dims, lambda epoch: examples[0], examples[1], None, classes=len(LABELS), progress=False)
            chosen, found = answer(fitted.model, examples[1]), answer(fitted.model, examples[2])
            out[place].append(softmax(found.logits, fit_temperature(chosen.logits, chosen.label)))
        label.append(np.concatenate([each.label for each in examples[2]]))
        actor.append(np.concatenate([np.full(len(e.label), a) for e, a in zip(examples[2], np.unique(judged.actor), strict=True)]))
    return np.stack([np.concatenate(rows) for rows in out]), np.concatenate(label), np.concatenate(actor)


def _only(example: Example, keep: Sequence[int]) -> Example:
    return replace(example, features=tuple(example.features[m] for m in keep), presence=example.presence[:, list(keep)])
