"""Acted clips with voice and face (RAVDESS): voice posterior and facial action units, fused by CMATH.

What a face does at rest differs more between people than what an emotion adds, so action units are taken as
the distance from the mean of what the same person showed before: a running normalisation that needs no look
ahead. An actor's clips, shuffled by their names' hash, stand for a session; its first clips know no mean yet.
Letters: n clips, U action units.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cmath_stream.calibration import describe
from cmath_stream.checkpoint import Checkpoint, ModalitySpec, save
from cmath_stream.data import DataError, Example, Floats
from cmath_stream.recipe import Recipe
from cmath_stream.train import fit
from workers.voice_encoder import features_of

LABELS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")
PRIOR_COUNT = 4.0  # clips' weight that everybody's mean has beside the person's own


@dataclass(frozen=True, slots=True)
class Acted:
    """Clips by key, in any order."""

    key: tuple[str, ...]
    posterior: Floats  # [n, 8] of the voice encoder, which never heard the actor
    units: Floats  # [n, U]
    emotion: NDArray[np.int64]  # [n], index into LABELS
    actor: NDArray[np.int64]  # [n]


def read_units(path: Path) -> tuple[tuple[str, ...], Floats]:
    """Keys [n] and action units [n, U] of an npz with `key` and `visual`. Raises DataError."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return tuple(map(str, file["key"])), file["visual"].astype(np.float32)
    except (OSError, KeyError, ValueError) as error:
        raise DataError(f"{path}: no action units by key: {error}") from error


def joined(
    keys: tuple[str, ...], posterior: Floats, emotion: NDArray[np.int64], actor: NDArray[np.int64], units: Path
) -> Acted:
    """The clips that have both a voice and action units. Raises DataError where none has."""
    names, rows = read_units(units)
    place = {name: at for at, name in enumerate(names)}
    both = np.array([at for at, key in enumerate(keys) if key in place], dtype=np.int64)
    if not len(both):
        raise DataError(f"{units}: no clip of the audio folder is in it")
    found = rows[[place[keys[at]] for at in both]]
    return Acted(tuple(keys[at] for at in both), posterior[both], found, emotion[both], actor[both])


def sessions(acted: Acted, everybody: Floats) -> list[Example]:
    """One session an actor, of (audio [8 + 8], visual [2 U]): as it is, and from the person's running mean.

    `everybody` [8 + U] is the mean over the people a model was trained on.
    """
    order = np.array(sorted(range(len(acted.key)), key=lambda at: _hash(acted.key[at])))
    voice = features_of(acted.posterior)
    examples = []
    for person in np.unique(acted.actor):
        rows = order[acted.actor[order] == person]
        both = np.concatenate([voice[rows], acted.units[rows]], axis=1)
        apart = both - running_mean(both, everybody)
        heard = np.concatenate([voice[rows], apart[:, : voice.shape[1]]], axis=1)
        seen = np.concatenate([acted.units[rows], apart[:, voice.shape[1] :]], axis=1)
        examples.append(
            Example(
                features=(heard, seen),
                presence=np.ones((len(rows), 2), np.bool_),
                speaker=np.zeros(len(rows), np.int64),
                label=acted.emotion[rows],
            )
        )
    return examples


def running_mean(rows: Floats, prior: Floats) -> Floats:
    """[n, D] for each row the mean of the rows before it, drawn towards a prior [D] while they are few."""
    before = np.cumsum(rows, axis=0) - rows
    count = np.arange(len(rows), dtype=np.float32)[:, None]
    mean: Floats = (before + PRIOR_COUNT * prior) / (count + PRIOR_COUNT)
    return mean


def everybody(acted: Acted) -> Floats:
    """[8 + U], the mean over clips."""
    mean: Floats = np.concatenate([features_of(acted.posterior).mean(axis=0), acted.units.mean(axis=0)])
    return mean


def everybody_of(checkpoint: Checkpoint) -> Floats:
    """The same of the people a checkpoint was trained on: its z-score statistics hold it."""
    halves = [compressor.mean.numpy() for compressor in checkpoint.model.compressors]  # [16], [2 U]
    mean: Floats = np.concatenate([half[: len(half) // 2] for half in halves])
    return mean


def specs(units: int) -> tuple[ModalitySpec, ModalitySpec]:
    """What `sessions` gives."""
    return (
        ModalitySpec("audio", "voice-cnn, from the running mean too", "1", 2 * len(LABELS)),
        ModalitySpec("visual", "action units, from the running mean too", "1", 2 * units),
    )


def of_actors(acted: Acted, actors: NDArray[np.bool_]) -> Acted:
    """The clips of a mask."""
    keys = tuple(key for key, kept in zip(acted.key, actors, strict=True) if kept)
    return Acted(keys, acted.posterior[actors], acted.units[actors], acted.emotion[actors], acted.actor[actors])


def train_acted(recipe: Recipe, data_dir: Path, out_dir: Path, *, resume: bool = False, progress: bool = True) -> Path:
    """Train on the out-of-fold voices that training of the voice encoder left in `out_dir`, and the action
    units below `data_dir`; returns the checkpoint's path. Raises CmathStreamError."""
    voices = out_dir / recipe.acted.voices
    try:
        with np.load(voices, allow_pickle=False) as file:
            keys, posterior = tuple(map(str, file["key"])), file["posterior"][0]
            emotion, actor = file["emotion"].astype(np.int64), file["actor"].astype(np.int64)
    except (OSError, KeyError, ValueError) as error:
        raise DataError(f"{voices}: no out-of-fold voices: train the voice first, configs/train-voice.toml") from error
    clips = joined(keys, posterior, emotion, actor, data_dir / recipe.acted.units)
    judging = np.isin(clips.actor, recipe.acted.validation_actors)
    training = of_actors(clips, ~judging)
    mean = everybody(training)
    learned_from, judged = sessions(training, mean), sessions(of_actors(clips, judging), mean)
    inputs = specs(clips.units.shape[1])
    fitted = fit(
        recipe, [(spec.modality, spec.dim) for spec in inputs], lambda epoch: learned_from, judged, out_dir,
        classes=len(LABELS), resume=resume, progress=progress,
    )
    meta = describe(
        recipe, fitted.model, inputs, judged, label_set="ravdess8", labels=LABELS,
        judged_on=f"actors {', '.join(map(str, recipe.acted.validation_actors))}", best_epoch=fitted.best_epoch,
    )
    path = out_dir / f"{recipe.name}.safetensors"
    save(path, fitted.model, meta)
    return path


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
