"""Honest figures of the voice encoder: cross-validation over actors, so that a voice judged is a new one."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workers.training.ravdess import Clip
from workers.training.voice_learning import Bank, Recipe, judge, train
from workers.voice_encoder import EMOTIONS, FEATURES


@dataclass(frozen=True, slots=True)
class OutOfFold:
    """What models said of every clip, each clip by a model that never heard its actor. One seed."""

    features: Mapping[str, NDArray[np.float32]]  # by condition, [n, 8]: `VoiceEncoder.features`
    fold: NDArray[np.int64]  # [n]

    def said(self, condition: str) -> NDArray[np.int64]:
        """[n] the likeliest of EMOTIONS."""
        likeliest: NDArray[np.int64] = self.features[condition][:, : len(EMOTIONS)].argmax(axis=1)
        return likeliest


def fold_of(actor: int, folds: int) -> int:
    """Pairs of actors are dealt out, so that every fold has as many women as men."""
    return (actor - 1) // 2 % folds


def cross_validate(
    recipe: Recipe,
    clips: Sequence[Clip],
    bank: Bank,
    heard: Mapping[str, Bank],
    *,
    folds: int = 5,
    seed: int = 0,
    keep: Path | None = None,
    resume: bool = True,
    progress: bool = True,
) -> OutOfFold:
    """Train a model a fold on the other folds' actors and ask it about its own, under every condition.

    With `keep`, a finished fold is written there, and taken from there by a later run of the same recipe
    unless `resume` is False.
    """
    fold = np.array([fold_of(clip.actor, folds) for clip in clips])
    answers = {condition: np.zeros((len(clips), FEATURES), np.float32) for condition in heard}
    mark = hashlib.sha256(repr((recipe, folds, [clip.key for clip in clips])).encode()).hexdigest()[:8]
    for number in range(folds):
        inside = np.flatnonzero(fold != number).tolist()
        outside = np.flatnonzero(fold == number).tolist()
        path = keep / f"features-{mark}-seed{seed}-fold{number}.npz" if keep else None
        if path is not None and resume and path.exists():
            with np.load(path) as found:
                part = dict(found)
        else:
            title = f"seed {seed}, fold {number + 1} of {folds}"
            chosen = [clips[i] for i in inside]
            model = train(recipe, chosen, bank.of(inside), seed=seed, title=title, progress=progress)
            part = {name: judge(model, heard[name].of(outside)) for name in heard}
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
                np.savez(path, **part)
        for condition, rows in part.items():
            answers[condition][outside] = rows
    return OutOfFold(answers, fold)


def figures(clips: Sequence[Clip], runs: Sequence[OutOfFold]) -> dict[str, Any]:
    """What the model card reports: means over folds and seeds, in per cent where not said otherwise."""
    label = np.array([clip.emotion for clip in clips])
    male = np.array([clip.actor % 2 == 1 for clip in clips])
    actor = np.array([clip.actor for clip in clips])
    hits = {
        condition: np.array([run.said(condition) == label for run in runs])  # [seeds, n]
        for condition in runs[0].features
    }
    clean, fold = hits["clean"], runs[0].fold
    by_fold = [[_percent(hit[fold == number]) for number in np.unique(fold)] for hit in clean]
    confusion = np.zeros((len(EMOTIONS), len(EMOTIONS)))
    for run in runs:
        np.add.at(confusion, (label, run.said("clean")), 1.0 / len(runs))
    recall = {name: _percent(clean[:, label == number]) for number, name in enumerate(EMOTIONS)}
    return {
        "clips": len(clips),
        "actors": len(np.unique(actor)),
        "folds": len(np.unique(fold)),
        "seeds": len(runs),
        "accuracy": {condition: _percent(hit) for condition, hit in hits.items()},
        "mean_over_folds": round(float(np.mean(by_fold)), 2),
        "by_seed": [_percent(hit) for hit in clean],
        "by_fold": by_fold,
        "worst_and_best_actor": [
            function([_percent(clean[:, actor == number]) for number in np.unique(actor)])
            for function in (min, max)
        ],
        "women": {condition: _percent(hit[:, ~male]) for condition, hit in hits.items()},
        "men": {condition: _percent(hit[:, male]) for condition, hit in hits.items()},
        "recall": recall,
        "macro_recall": round(float(np.mean(list(recall.values()))), 2),
        "confusion": {
            name: dict(zip(EMOTIONS, np.round(row, 1).tolist(), strict=True))
            for name, row in zip(EMOTIONS, confusion, strict=True)
        },
    }


def _percent(hits: NDArray[np.bool_]) -> float:
    return round(100.0 * float(hits.mean()), 2)


def save_out_of_fold(path: Path, clips: Sequence[Clip], run: OutOfFold) -> None:
    """As npz: key, actor, emotion and fold [n] of the clips, and `features` [conditions, n, 8]."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(
        path,
        key=np.array([clip.key for clip in clips]),
        actor=np.array([clip.actor for clip in clips]),
        emotion=np.array([clip.emotion for clip in clips]),
        fold=run.fold,
        features=np.stack(list(run.features.values())),
    )
