"""The face encoder as the command line makes and judges it: pictures in, weights and figures out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from workers.face_encoder import LABELS, encode, load, shipped
from workers.training.face_learning import Recipe, train
from workers.training.ferplus import PROTOCOLS, Floats, Votes, read_votes
from workers.training.judged import Judged
from workers.training.recipes import read_recipe

KIND = "face"  # of recipes


def train_face(
    recipe_path: Path,
    data: Path,
    out: Path,
    *,
    threads: int = 1,
    resume: bool = True,
    progress: bool = True,
) -> dict[str, Any]:
    """Train on train.npz, choose the epoch on valid.npz; writes `out`/face.safetensors and its JSON.

    `data` is the folder of these two files, or the one in which their folder `ferplus` lies.
    Returns {"weights": path, "validation": figures}. Raises SettingsError.
    """
    torch.set_num_threads(threads)
    recipe = read_recipe(Recipe, recipe_path, KIND)
    folder = data / "ferplus" if (data / "ferplus").is_dir() else data
    training, validation = read_votes(folder / "train.npz"), read_votes(folder / "valid.npz")
    meta = train(recipe, training, validation, out, resume=resume, progress=progress)
    return {"weights": str(out / "face.safetensors"), "validation": meta.training["validation"]}


def judge_face(npz: Path, weights: Path | None = None) -> Judged:
    """An encoder (None: the shipped one) on a file of FER+ pictures and votes, mirror images averaged.

    The majority protocol is the main one, as in the FER+ authors' figures; `also` has the plurality.
    Raises ModelUnavailable, SettingsError.
    """
    model, meta = load(weights or shipped())
    data = read_votes(npz)
    posterior = encode(model, data.image).posterior
    checkpoint = f"{meta.name}-{meta.version}"
    plurality = _under("plurality", data, posterior, checkpoint)
    return _under("majority", data, posterior, checkpoint, {"plurality": plurality})


def _under(
    protocol: str, data: Votes, posterior: Floats, checkpoint: str, also: dict[str, Judged] | None = None
) -> Judged:
    counted: NDArray[np.bool_] = data.judged(protocol)
    chances = posterior[counted].astype(np.float64)
    return Judged(
        probabilities=chances / chances.sum(axis=1, keepdims=True),
        label=data.votes[counted].argmax(axis=1).astype(np.int64),
        labels=LABELS,
        checkpoint=checkpoint,
        protocol=f"FER+ {protocol}: {PROTOCOLS[protocol]}; {int(counted.sum())} pictures",
        also=also or {},
    )
