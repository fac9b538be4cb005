"""CMU-MOSI, two classes: words through our text encoder and the set's audio features, fused by CMATH.

    python -m bench.experiments.mosi --data DATA

The set's own text and visual features were fitted on the training labels, so inside it they can only be
reported, with settings fixed beforehand.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.experiments.common import Answered, arguments, contrast, main_file, row
from cmath_stream.training.embedding import PlainAndTuned
from cmath_stream.training.feature_recipe import read_feature_recipe
from cmath_stream.training.feature_training import Variant, WordEncoder, cross_validate, read_for
from realtime.cache import cache_folder

FULL, CAUSAL = "CMATH, words + audio", "CMATH, words + audio, causal"
PUBLISHED = (
    ("contextual bc-LSTM", 0.803, "text, audio and visual features as provided, test part"),
    ("multi-modal multi-utterance attention", 0.823, "the same; probably chosen on test"),
)


def main() -> None:
    given = arguments(__doc__)
    torch.set_num_threads(1)
    recipe = replace(read_feature_recipe(Path("configs/train-mosi.toml")), seeds=given.seeds)
    words = PlainAndTuned(cache_folder())
    encoder = WordEncoder(words.spec, words)
    whole = read_for(recipe, given.data / recipe.features, encoder)
    provided = read_for(replace(recipe, text="provided", modalities=()), given.data / recipe.features, None)

    def run(changes: Mapping[str, Mapping[str, Any]] | None = None, **how: Any) -> Answered:
        found = cross_validate(recipe, whole, Variant(changes=changes or {}, **how))
        return Answered(found.probabilities, found.label, np.array(found.group))

    def as_given(changes: Mapping[str, Mapping[str, Any]] | None = None) -> Answered:
        found = cross_validate(
            replace(recipe, text="provided", modalities=()), provided, Variant(changes=changes or {})
        )
        return Answered(found.probabilities, found.label, np.array(found.group))

    causal = {"model": {"causal": True}}
    main_rows = {
        "majority class": run(kind="majority"),
        "concat-MLP, words + audio": run(kind="concat_mlp"),
        "concat-MLP, words": run(kind="concat_mlp", modalities=("text",)),
        "CMATH, words": run(modalities=("text",)),
        "CMATH, audio": run(modalities=("audio",)),
        FULL: run(),
        CAUSAL: run(causal),
    }
    rows = [row("main", name, found) for name, found in main_rows.items()]
    note = "leaks training labels: inside the training part this means nothing"
    rows.append(row("condition", "provided text + audio + visual", as_given(), note))
    rows.append(row("condition", "provided text + audio + visual, causal", as_given(causal), note))
    main_file(
        given.out / "mosi.json",
        set="mosi",
        title="CMU-MOSI, words and audio",
        made_by="python -m bench.experiments.mosi --data DATA",
        protocol=f"Five folds by video over the 62 training videos, {given.seeds} seeds; all of a "
        "fold's training part learns and the last epoch is taken (15 % of it choose the MLP's). Words by the "
        "encoder as published and as tuned on MELD and EmoryNLP, never on MOSI.",
        metric="accuracy",
        rows=rows,
        contrasts=[
            contrast(main_rows, FULL, other, "accuracy", "video")
            for other in ("concat-MLP, words + audio", "CMATH, words", "CMATH, audio", CAUSAL)
        ],
        published=[{"name": n, "accuracy": a, "differs": d} for n, a, d in PUBLISHED],
        shown={"text+audio": main_rows[FULL]},
        labels=whole.labels,
    )


if __name__ == "__main__":
    main()
