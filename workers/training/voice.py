"""The voice encoder as the command line makes and judges it: recordings in, weights and figures out."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from workers.training.judged import Judged
from workers.training.progress import watched
from workers.training.ravdess import read_clips
from workers.training.recipes import read_recipe
from workers.training.voice_augment import CONDITIONS
from workers.training.voice_folds import cross_validate, figures, save_out_of_fold
from workers.training.voice_learning import Recipe, fill_bank, heard_as, train
from workers.voice_encoder import EMOTIONS, measure
from workers.voice_file import VoiceMeta, load, save, shipped

KIND = "voice"  # of recipes
NAME, VERSION = "voice-cnn", "2"
LICENCE = "CC BY-NC-SA 4.0, which RAVDESS asks of work built on it (see voice.md)"
NORMALISATION = "log-mels centred and scaled by the speech of the utterance itself: gain and pauses cancel"
DATA_SOURCES = ("RAVDESS speech, audio only, actors 1-20: Livingstone & Russo 2018 (CC BY-NC-SA 4.0)",)


def train_voice(
    recipe_path: Path,
    data: Path,
    out: Path,
    *,
    folds: int = 5,
    seeds: int = 1,
    resume: bool = True,
    progress: bool = True,
) -> dict[str, Any]:
    """Cross-validate, then train on all actors; writes voice.safetensors, its JSON and what the first seed's
    cross-validation said of each clip (voice-out-of-fold.npz), from which fusions learn.

    `data` is a folder with RAVDESS clips in it or below. `folds` 0: no cross-validation. `resume` takes the
    finished folds of an interrupted run of the same recipe from `out`/folds.
    Returns {"weights": path, "cross_validation": figures}. Raises SettingsError, MediaError.
    """
    recipe = read_recipe(Recipe, recipe_path, KIND)
    clips = read_clips(data)
    torch.set_num_threads(recipe.schedule.threads)
    bank = fill_bank(clips, recipe, progress=progress)
    runs = []
    if folds:
        heard = {condition: heard_as(clips, recipe, condition) for condition in CONDITIONS}
        for seed in range(seeds):
            run = cross_validate(
                recipe, clips, bank, heard,
                folds=folds, seed=seed, keep=out / "folds", resume=resume, progress=progress,
            )  # fmt: skip
            runs.append(run)
        save_out_of_fold(out / "voice-out-of-fold.npz", clips, runs[0])
    found = figures(clips, runs) if runs else {}
    model = train(recipe, clips, bank, seed=recipe.schedule.seed, title="all actors", progress=progress)
    training = {"recipe": asdict(recipe), "cross_validation": found}
    meta = VoiceMeta(NAME, VERSION, recipe.network, NORMALISATION, LICENCE, DATA_SOURCES, training)
    save(out / "voice.safetensors", model, meta)
    return {"weights": str(out / "voice.safetensors"), "cross_validation": found}


@torch.inference_mode()
def judge_voice(folder: Path, weights: Path | None = None, *, progress: bool = True) -> Judged:
    """An encoder (None: the shipped one) on the RAVDESS clips in or below a folder, each whole, as it is.

    Raises ModelUnavailable, MediaError.
    """
    model, meta = load(weights or shipped())
    clips = read_clips(folder)
    rows = []
    for clip in watched(clips, "listening", progress):
        voice = model(torch.from_numpy(clip.pcm)[None], torch.tensor([len(clip.pcm)]))
        said = model.features(voice, torch.from_numpy(measure(clip.pcm))[None])
        rows.append(said[0].double().softmax(0).numpy())
    actors = len({clip.actor for clip in clips})
    return Judged(
        probabilities=np.stack(rows),
        label=np.array([clip.emotion for clip in clips], np.int64),
        labels=EMOTIONS,
        checkpoint=f"{meta.name}-{meta.version}",
        key=tuple(clip.key for clip in clips),
        group=np.array([clip.actor for clip in clips], np.int64),
        protocol=f"RAVDESS speech, whole clips, eight emotions; {len(clips)} clips of {actors} actors",
    )
