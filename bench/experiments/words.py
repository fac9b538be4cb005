"""MELD, words alone: the encoder and CMATH that learned together, beside the plain encoder.

    python -m bench.experiments.words --data DATA

Judges the shipped checkpoint `words`; what stands beside it is trained here, a model a seed.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from bench.experiments.common import Answered, arguments, contrast, main_file, row
from cmath_stream.checkpoint import Checkpoint, load, shipped
from cmath_stream.training.crossval import concat_mlp, majority
from cmath_stream.training.data import MELD7, UNLABELLED, Dialogue, Example, read_dialogues
from cmath_stream.training.embedding import Words
from cmath_stream.training.evaluate import answer, cross_fitted
from cmath_stream.training.recipe import Recipe, read_recipe
from cmath_stream.training.tasks import cache_folder
from cmath_stream.training.train import fit
from cmath_stream.training.words import bare

OURS = "CMATH, words, learned with its encoder"
WINDOWS = (1, 4, 8, 16, 32, None)


def embedded(dialogues: list[Dialogue], words: Words) -> list[Example]:
    """Dialogues as CMATH sees them."""
    return [replace(bare(each), features=(words([line.text for line in each.lines]),)) for each in dialogues]


def answered(checkpoint: Checkpoint, examples: list[Example], window: int | None = 16) -> np.ndarray:
    """[n, C], the temperature cross-fitted by dialogue."""
    checkpoint.model.config = replace(checkpoint.model.config, window=window)
    return cross_fitted(answer(checkpoint.model, examples))


def retrained(recipe: Recipe, learning: list[Example], judged: list[Example], seeds: int) -> np.ndarray:
    """[S, n, C] of CMATH on embeddings that stay as they are."""
    said = []
    for seed in range(1, seeds + 1):
        schedule = replace(recipe.schedule, seed=seed, epochs=12, batch=16, crop=0.5)
        seeded = replace(recipe, schedule=schedule)
        dims = (("text", judged[0].features[0].shape[1]),)
        model = fit(seeded, dims, lambda epoch: learning, judged, None, progress=False).model
        said.append(cross_fitted(answer(model, judged)))
    return np.stack(said)


def main() -> None:
    given = arguments(__doc__)
    torch.set_num_threads(1)
    recipe = read_recipe(Path("configs/train-words.toml"))
    cache = cache_folder()
    written = [each for name in recipe.words.train for each in read_dialogues(given.data / name)]
    dev = read_dialogues(given.data / recipe.words.validation)
    plain = Words(cache, adapter="none")
    learning, judged = embedded(written, plain), embedded(dev, plain)
    adapted = embedded(dev, Words(cache))
    label = np.concatenate([each.label for each in judged])
    group = np.concatenate([np.full(len(each.label), at) for at, each in enumerate(judged)])
    ours = load(shipped("words"))

    def found(said: np.ndarray) -> Answered:
        said = said if said.ndim == 3 else said[None]
        return Answered(said, label[label != UNLABELLED], group[label != UNLABELLED])

    mlp = np.stack([concat_mlp(learning, judged, judged, 7, seed) for seed in range(given.seeds)])
    main_rows = {
        "majority class": found(majority(learning, judged, 7)),
        "concat-MLP, words, plain encoder, no context": found(mlp),
        "CMATH, words, plain encoder": found(retrained(recipe, learning, judged, given.seeds)),
        OURS: found(answered(ours, adapted)),
    }
    rows = [row("main", name, each) for name, each in main_rows.items()]
    rows += [
        row("window", f"{OURS}, {window or 'full'}", found(answered(ours, adapted, window)))
        for window in WINDOWS
    ]
    main_file(
        given.out / "meld-words.json",
        set="meld-words",
        title="MELD, words alone",
        made_by="python -m bench.experiments.words --data DATA",
        protocol=f"Learned from MELD and EmoryNLP train, judged on MELD dev, which also chose the epoch; "
        f"{given.seeds} seeds, but one of what learned with its encoder (40 minutes a run). Causal window of "
        "16 utterances; the window rows are the same weights, asked with another one.",
        metric="weighted_f1",
        rows=rows,
        contrasts=[
            contrast(main_rows, OURS, other, "weighted_f1", "dialogue")
            for other in ("concat-MLP, words, plain encoder, no context", "CMATH, words, plain encoder")
        ],
        published=[
            {"name": name, "weighted_f1": f1, "differs": differs}
            for name, f1, differs in (
                ("DialogueRNN", 0.587, "test; text, audio; often chosen on test"),
                ("MMGCN", 0.5865, "test; text, audio, visual; often chosen on test"),
                (
                    "SDT (79.7 M parameters)",
                    0.6660,
                    "test; RoBERTa-large text, audio, visual; chosen on test",
                ),
                ("MultiEMO", 0.6674, "test; RoBERTa text, audio, visual; chosen on test"),
                ("M3Net", 0.6705, "test; RoBERTa text, audio, visual; chosen on test"),
            )
        ],
        shown={"text": main_rows[OURS]},
        labels=MELD7,
    )


if __name__ == "__main__":
    main()
