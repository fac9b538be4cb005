"""Voice encoders that heard three of five folds: what a nested figure of the fusion needs (`acted`).

    python -m bench.experiments.voice_pairs --data DATA --work OUT

For each two folds an encoder of one member, half as long trained as the shipped one, hears the two; what it
says goes to OUT/voice-pairs/IJ.npz. A finished pair is kept. About three minutes a pair on one core.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import torch

from bench.experiments.common import arguments
from workers.training.ravdess import read_clips
from workers.training.recipes import read_recipe
from workers.training.voice_folds import OutOfFold, fold_of, save_out_of_fold
from workers.training.voice_learning import Bank, Recipe, fill_bank, heard_as, judge, train
from workers.voice_encoder import features

FOLDS = 5


def main() -> None:
    given = arguments(__doc__)
    torch.set_num_threads(1)
    shipped = read_recipe(Recipe, Path("configs/train-voice.toml"), "voice")
    recipe = replace(
        shipped,
        network=replace(shipped.network, band_norms=(0.75,), embedding=64),
        schedule=replace(shipped.schedule, epochs=shipped.schedule.epochs // 2),
    )
    clips = read_clips(given.data / "ravdess")
    bank, clean = fill_bank(clips, recipe, seed=1), heard_as(clips, recipe, "clean")
    fold = np.array([fold_of(clip.actor, FOLDS) for clip in clips])
    for pair in combinations(range(FOLDS), 2):
        path = given.work / "voice-pairs" / f"{pair[0]}{pair[1]}.npz"
        if path.exists():
            continue
        outside = np.flatnonzero(np.isin(fold, pair))
        inside = np.flatnonzero(~np.isin(fold, pair))
        known = Bank(tuple(bank.frames[at] for at in inside))
        model = train(recipe, [clips[at] for at in inside], known, seed=0, title=f"without {pair}")
        heard = features(judge(model, clean, outside.tolist())).numpy()
        save_out_of_fold(path, [clips[at] for at in outside], OutOfFold({"clean": heard}, fold[outside]))


if __name__ == "__main__":
    main()
