"""RAVDESS, voice alone, unseen actors: each clip by itself and from the running mean, clean and spoiled.

    python -m bench.experiments.voice --data DATA --work OUT

Reads what `cmath-stream train configs/train-voice.toml` left in OUT; trains nothing but a baseline.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bench.experiments.common import Answered, arguments, contrast, main_file, row
from cmath_stream.running import apart
from cmath_stream.training.acted import take
from cmath_stream.training.banks import OutOfFold, read_out_of_fold
from cmath_stream.training.crossval import concat_mlp, majority
from cmath_stream.training.data import Example, Floats
from workers.training.voice_augment import CONDITIONS
from workers.voice_encoder import EMOTIONS

FOLDS = 5
ALONE, SESSION = "voice, each clip by itself", "voice, from the actor's running mean"


def alone(found: OutOfFold, version: int) -> Answered:
    """As the encoder says."""
    odds = np.exp(found.features[version].astype(np.float64))
    return Answered((odds / odds.sum(1, keepdims=True))[None], found.emotion, found.actor)


def in_session(found: OutOfFold, version: int) -> Answered:
    """An actor's clips in shuffled order, each less the running mean of those before."""
    odds = np.exp(apart(found.features[version], found.key, found.actor).astype(np.float64))
    return Answered((odds / odds.sum(1, keepdims=True))[None], found.emotion, found.actor)


def baselines(found: OutOfFold, units: Path, seeds: int) -> dict[str, Answered]:
    """Majority, and a network on the set's own sound statistics, on the same folds."""
    with np.load(units) as file:
        place = {take(str(key)): at for at, key in enumerate(file["key"])}
        statistics: Floats = file["audio"][[place[take(key)] for key in found.key]].astype(np.float32)
    fold = (found.actor - 1) // 2 % FOLDS
    said = {
        "majority class": np.zeros((seeds, len(fold), 8)),
        "concat-MLP, 259 sound statistics": np.zeros((seeds, len(fold), 8)),
    }
    for k in range(FOLDS):
        parts = [fold == (k + 1) % FOLDS, fold == k]
        learning, choosing, judged = (
            [_flat(statistics[rows], found.emotion[rows])] for rows in (~parts[0] & ~parts[1], *parts)
        )
        for seed in range(seeds):
            said["majority class"][seed, fold == k] = majority(learning, judged, 8)
            mlp = concat_mlp(learning, choosing, judged, 8, seed)
            said["concat-MLP, 259 sound statistics"][seed, fold == k] = mlp
    return {name: Answered(each, found.emotion, found.actor) for name, each in said.items()}


def _flat(rows: Floats, label: np.ndarray) -> Example:
    return Example((rows,), np.ones((len(rows), 1), np.bool_), np.zeros(len(rows), np.int64), label)


def main() -> None:
    given = arguments(__doc__)
    found = read_out_of_fold(given.work / "voice-out-of-fold.npz")
    main_rows = baselines(found, given.data / "ravdess" / "face_au_audio.npz", given.seeds)
    main_rows |= {SESSION: in_session(found, 0), ALONE: alone(found, 0)}
    rows = [row("main", name, each) for name, each in main_rows.items()]
    for version, condition in enumerate(CONDITIONS):
        rows.append(row("condition", f"{condition}, each clip by itself", alone(found, version)))
        rows.append(row("condition", f"{condition}, from the running mean", in_session(found, version)))
    for sex, odd in (("women", 0), ("men", 1)):
        for name, each in ((ALONE, alone(found, 0)), (SESSION, in_session(found, 0))):
            rows_of = found.actor % 2 == odd
            part = Answered(each.probabilities[:, rows_of], each.label[rows_of], each.group[rows_of])
            rows.append(row("condition", f"{sex}: {name}", part))
    main_file(
        given.out / "ravdess-voice.json",
        set="ravdess-voice",
        title="RAVDESS, voice alone, unseen actors",
        made_by="python -m bench.experiments.voice --data DATA --work OUT",
        protocol="Five folds by actor over all 20 actors, eight emotions; an encoder a fold, one seed (the "
        f"baselines: {given.seeds}), a fixed number of epochs: nothing is chosen. Running mean: an actor's "
        "clips in shuffled order, causal. These actors speak every emotion alike often, which a person in a "
        "call does not, so the gain of the running mean is an upper bound.",
        metric="accuracy",
        rows=rows,
        contrasts=[
            contrast(main_rows, SESSION, ALONE, "accuracy", "actor"),
        ],
        published=[
            {
                "name": "log-mel CNN with attention pooling, 380 k parameters (try-out)",
                "accuracy": 0.71,
                "differs": "one split of the actors",
            }
        ],
        shown={"clip by itself": main_rows[ALONE], "running mean": main_rows[SESSION]},
        labels=EMOTIONS,
    )


if __name__ == "__main__":
    main()
