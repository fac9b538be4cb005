"""Acted clips with voice and face (RAVDESS): log odds of the voice and facial action units, fused by CMATH.

An actor's clips, shuffled by their names' hash, stand for a session, in which voice and face are also taken
from the actor's running mean. Letters: n clips, U action units.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cmath_stream.checkpoint import ModalitySpec, save
from cmath_stream.running import beside_running_mean, shuffled
from cmath_stream.training.banks import read_out_of_fold
from cmath_stream.training.calibration import describe
from cmath_stream.training.data import DataError, Example, Floats
from cmath_stream.training.evaluate import answer
from cmath_stream.training.recipe import Recipe
from cmath_stream.training.train import fit
from workers.training.voice import NAME, VERSION
from workers.voice_encoder import EMOTIONS


@dataclass(frozen=True, slots=True)
class Acted:
    """Clips in any order."""

    key: tuple[str, ...]  # [n] file stems
    voice: Floats  # [n, 8] features of an encoder that never heard the actor
    face: Floats  # [n, U] action units
    emotion: NDArray[np.int64]  # [n], index into EMOTIONS
    actor: NDArray[np.int64]  # [n]

    def only(self, rows: NDArray[np.bool_]) -> Acted:
        """The clips of a mask."""
        keys = tuple(key for key, kept in zip(self.key, rows, strict=True) if kept)
        return Acted(keys, self.voice[rows], self.face[rows], self.emotion[rows], self.actor[rows])

    def everybody(self) -> dict[str, Floats]:
        """The means over clips, by modality."""
        return {"audio": self.voice.mean(axis=0), "visual": self.face.mean(axis=0)}


def joined(
    keys: Sequence[str],
    voice: Floats,
    emotion: NDArray[np.int64],
    actor: NDArray[np.int64],
    units: Path,
) -> Acted:
    """Clips [n] and their voice features [n, 8] with the action units of an npz of `key` and `visual`.

    Clips without action units are left out. Raises DataError where none has them.
    """
    try:
        with np.load(units, allow_pickle=False) as file:
            place = {take(str(key)): at for at, key in enumerate(file["key"])}
            visual = file["visual"].astype(np.float32)
    except (OSError, KeyError, ValueError) as error:
        raise DataError(f"{units}: no action units by key: {error}") from error
    both = np.array([at for at, key in enumerate(keys) if take(key) in place], dtype=np.int64)
    if not len(both):
        raise DataError(f"{units}: no clip of the audio folder is in it")
    names = tuple(keys[at] for at in both)
    face = visual[[place[take(name)] for name in names]]
    return Acted(names, voice[both], face, emotion[both], actor[both])


def take(key: str) -> str:
    """What was recorded, by the name of a file: its first field only says whether this is sound or film."""
    return key.partition("-")[2]


def sessions(acted: Acted, everybody: Mapping[str, Floats]) -> list[Example]:
    """One session an actor, of (audio [16], visual [2 U]): as it is, and from the actor's running mean.

    `everybody` has the means over the people a model was trained on.
    """
    examples = []
    for rows in shuffled(acted.key, acted.actor):
        voice = beside_running_mean(acted.voice[rows], everybody["audio"])
        face = beside_running_mean(acted.face[rows], everybody["visual"])
        present = np.ones((len(rows), 2), np.bool_)
        examples.append(Example((voice, face), present, np.zeros(len(rows), np.int64), acted.emotion[rows]))
    return examples


def specs(units: int) -> tuple[ModalitySpec, ModalitySpec]:
    """What `sessions` gives."""
    return (
        ModalitySpec("audio", NAME, VERSION, len(EMOTIONS), running=True),
        ModalitySpec("visual", "openface-action-units", "1", units, running=True),
    )


def train_acted(
    recipe: Recipe, data_dir: Path, out_dir: Path, *, resume: bool = False, progress: bool = True
) -> Path:
    """Train on the out-of-fold voices that training of the voice encoder left in `out_dir`, and the action
    units below `data_dir`; returns the checkpoint's path. Raises CmathStreamError."""
    found = read_out_of_fold(out_dir / recipe.acted.voices)
    units = data_dir / recipe.acted.units
    clips = joined(found.key, found.features[0], found.emotion, found.actor, units)
    judging = np.isin(clips.actor, recipe.acted.validation_actors)
    training = clips.only(~judging)
    everybody = training.everybody()
    learned_from, judged = sessions(training, everybody), sessions(clips.only(judging), everybody)
    inputs = specs(clips.face.shape[1])
    fitted = fit(
        recipe,
        [(spec.modality, spec.inputs) for spec in inputs],
        lambda epoch: learned_from,
        judged,
        out_dir,
        classes=len(EMOTIONS),
        resume=resume,
        progress=progress,
    )
    meta = describe(
        recipe,
        fitted.model,
        inputs,
        partial(answer, fitted.model, judged),
        label_set="ravdess8",
        labels=EMOTIONS,
        judged_on=f"actors {', '.join(map(str, recipe.acted.validation_actors))}",
        best_epoch=fitted.best_epoch,
    )
    path = out_dir / f"{recipe.name}.safetensors"
    save(path, fitted.model, meta)
    return path
