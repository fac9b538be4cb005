"""Grafted conversations: words, voice and face fused by CMATH, every pattern of what is there, and conflicts.

    python -m bench.experiments.grafted --data DATA --work OUT

OUT is where the voice encoder was trained. Trains configs/train-live.toml once a seed and keeps the
checkpoints in OUT/grafted; one graft of MELD dev with voices of unseen actors and unseen pictures judges all.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from bench.experiments.common import Answered, Arguments, arguments, contrast, main_file, row
from cmath_stream.checkpoint import Checkpoint, load
from cmath_stream.training.crossval import concat_mlp, majority
from cmath_stream.training.data import MELD7, UNLABELLED, Example
from cmath_stream.training.embedding import Words
from cmath_stream.training.evaluate import answer, cross_fitted, patterns
from cmath_stream.training.live import open_set, train_live
from cmath_stream.training.recipe import Recipe, read_recipe
from realtime.cache import cache_folder

NAMES = ("text", "audio", "visual")
FULL = "CMATH, words + voice + face"
SAID = {"text": "words", "audio": "voice", "visual": "face"}
WINDOWS = (1, 4, 8, 16, 32, None)


def trained(recipe: Recipe, given: Arguments) -> list[Checkpoint]:
    """A checkpoint a seed; what an earlier call trained is read."""
    found = []
    for seed in range(1, given.seeds + 1):
        folder = given.work / "grafted" / str(seed)
        path = folder / f"{recipe.name}.safetensors"
        if not path.exists():
            seeded = replace(recipe, schedule=replace(recipe.schedule, seed=seed))
            train_live(seeded, given.data, folder, made=given.work, cache=cache_folder())
        found.append(load(path))
    return found


def with_window(checkpoint: Checkpoint, window: int | None) -> Checkpoint:
    """The same weights with another window."""
    model = checkpoint.model
    model.config = replace(model.config, window=window)
    return checkpoint


def ask(
    checkpoints: list[Checkpoint], examples: list[Example], keep: tuple[int, ...] | None = None
) -> Answered:
    """Calibrated answers, the temperature cross-fitted by dialogue."""
    answers = [answer(each.model, examples, keep) for each in checkpoints]
    probabilities = np.stack([cross_fitted(each) for each in answers])
    return Answered(probabilities, answers[0].label, answers[0].dialogue)


def only(examples: list[Example], keep: tuple[int, ...]) -> list[Example]:
    """The utterances of which something is left, by these modalities alone."""
    result = []
    for example in examples:
        presence = np.zeros_like(example.presence)
        presence[:, list(keep)] = example.presence[:, list(keep)]
        label = np.where(presence.any(axis=1), example.label, UNLABELLED)
        result.append(replace(example, presence=presence, label=label))
    return result


def main() -> None:
    given = arguments(__doc__)
    torch.set_num_threads(1)
    recipe = read_recipe(Path("configs/train-live.toml"))
    checkpoints = trained(recipe, given)
    cache, live = cache_folder(), recipe.live
    words = Words(cache, live.encoder, live.adapter)
    validation = open_set(live.validation, given.data, given.work, words, cache)
    usual = checkpoints[0].everybody()["audio"]
    judged = validation.draw(live.validation.seed, usual)
    learning = open_set(live.train, given.data, given.work, words, cache).draw(1_000, usual)

    main_rows = {"majority class": _repeat(majority(learning, judged, 7), judged, given.seeds)}
    for pattern in ("text", "text+audio+visual"):
        keep = patterns(NAMES)[pattern]
        parts = [only(examples, keep) for examples in (learning, judged)]
        said = np.stack([concat_mlp(parts[0], parts[1], parts[1], 7, seed) for seed in range(given.seeds)])
        main_rows[f"concat-MLP, {_name(pattern)}"] = _repeat(said, parts[1], given.seeds)
    by_pattern: dict[str, Answered] = {}
    for pattern, keep in reversed(patterns(NAMES).items()):
        by_pattern[pattern] = main_rows[f"CMATH, {_name(pattern)}"] = ask(checkpoints, judged, keep)
    rows = [row("main", name, found) for name, found in main_rows.items()]
    whole = only_rows(judged, [np.asarray(example.presence.all(axis=1)) for example in judged])
    together = {_name(pattern): ask(checkpoints, whole, keep) for pattern, keep in patterns(NAMES).items()}
    note = "the same utterances for all: those of which words, voice and face are there"
    rows += [row("modalities", f"CMATH, {name}", found, note) for name, found in together.items()]
    for window in WINDOWS:
        changed = [with_window(each, window) for each in checkpoints]
        rows.append(row("window", f"CMATH, {window or 'full'}", ask(changed, judged)))
    for each in checkpoints:
        with_window(each, 16)
    for odd in NAMES:
        found = ask(checkpoints, validation.draw(live.validation.seed, usual, odd))
        rows.append(row("conflict", f"{SAID[odd]} contradicts the two others", found,
                        "accuracy = how often the answer is what the two show"))  # fmt: skip
    pairs = ("words + voice", "words + face", "voice + face")
    better: dict[str, tuple[str, ...]] = {"words + voice + face": pairs}
    better |= {pair: tuple(pair.split(" + ")) for pair in pairs}
    contrasts = [
        contrast(together, more, less, "weighted_f1", "dialogue")
        for more, fewer in better.items()
        for less in fewer
    ]
    main_file(
        given.out / "grafted.json",
        set="grafted",
        title="Grafted conversations: words, voice and face",
        made_by="python -m bench.experiments.grafted --data DATA --work OUT",
        protocol="Learned from MELD and EmoryNLP train, voices grafted (RAVDESS actors 1-16, out of fold) "
        f"and faces (two thirds of FER+ validation), {given.seeds} seeds; judged on MELD dev with voices of "
        "actors 17-20 and the other third of the faces, which also chose the epoch, for concat-MLP too. 15 % "
        "of voices and of faces show another emotion than the words, 25 % of utterances have no voice, 45 % "
        "no face. A row of the first table counts the utterances of which something is left.",
        metric="weighted_f1",
        rows=rows,
        contrasts=contrasts,
        shown=by_pattern,
        labels=MELD7,
    )


def _name(pattern: str) -> str:
    return " + ".join(SAID[name] for name in pattern.split("+"))


def _repeat(said: np.ndarray, examples: list[Example], seeds: int) -> Answered:
    label = np.concatenate([example.label for example in examples])
    group = np.concatenate([np.full(len(e.label), at) for at, e in enumerate(examples)])
    probabilities = said if said.ndim == 3 else np.stack([said] * seeds)
    return Answered(probabilities, label[label != UNLABELLED], group[label != UNLABELLED])


def only_rows(examples: list[Example], kept: list[np.ndarray]) -> list[Example]:
    """The same conversations, in which only some utterances are judged."""
    return [
        replace(example, label=np.where(rows, example.label, UNLABELLED))
        for example, rows in zip(examples, kept, strict=True)
    ]


if __name__ == "__main__":
    main()
