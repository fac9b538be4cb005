"""Training: a recipe and dialogues in, a checkpoint out. Seeded, resumable, chosen on validation only.

Everything random in an epoch comes from (seed, epoch), so a resumed run repeats the uninterrupted one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from cmath_stream.checkpoint import CheckpointMeta, ModalitySpec, save
from cmath_stream.data import MELD7, UNLABELLED, Batch, Example, collate, read_dialogues
from cmath_stream.evaluate import (
    Metrics,
    answer,
    calibration_interval,
    cross_fitted,
    fit_temperature,
    metrics,
    patterns,
    softmax,
)
from cmath_stream.losses import Losses, losses
from cmath_stream.model import CMATH
from cmath_stream.recipe import Recipe, model_config
from realtime.errors import SettingsError

Epochs = Callable[[int], list[Example]]  # the training dialogues of an epoch; grafted anew each time


@dataclass(frozen=True, slots=True)
class Fitted:
    """A trained model and its path there."""

    model: CMATH  # eval mode, the best epoch's weights
    best_epoch: int
    history: tuple[float, ...]  # validation score an epoch


def train(
    recipe: Recipe, data_dir: Path, out_dir: Path, *, cache: Path, resume: bool = False, progress: bool = True
) -> Path:
    """Train the recipe's text + voice checkpoint and write it to `out_dir`; returns the weights' path.

    `cache` keeps features between runs. `resume` goes on from the state an interrupted run left in `out_dir`.
    """
    from cmath_stream.graft import TEXT, VOICE, Graft, embed_texts, graft, voice_bank

    corpora = recipe.corpora
    written = [dialogue for name in corpora.train for dialogue in read_dialogues(data_dir / name)]
    judged = read_dialogues(data_dir / corpora.validation)
    texts = sorted({line.text for dialogue in written + judged for line in dialogue.lines})
    embedded = dict(zip(texts, embed_texts(texts, cache), strict=True))
    voices = voice_bank(data_dir / corpora.voices, cache, corpora.noise_db).of_actors(corpora.train_actors)
    clean = voice_bank(data_dir / corpora.voices, cache).of_actors(corpora.validation_actors)
    how = Graft(disagree=corpora.disagree, absent=corpora.absent)
    validation = graft(judged, embedded, clean, replace(how, absent=0.0), seed=0)
    fitted = fit(
        recipe,
        [(spec.modality, spec.dim) for spec in (TEXT, VOICE)],
        lambda epoch: graft(written, embedded, voices, how, seed=recipe.schedule.seed * 1_000 + epoch),
        validation,
        out_dir,
        resume=resume,
        progress=progress,
    )
    path = out_dir / f"{recipe.name}.safetensors"
    save(path, fitted.model, describe(recipe, fitted, (TEXT, VOICE), validation))
    return path


def fit(
    recipe: Recipe,
    dims: Sequence[tuple[str, int]],
    epochs: Epochs,
    validation: Sequence[Example],
    out_dir: Path,
    *,
    classes: int = len(MELD7),
    resume: bool = False,
    progress: bool = True,
) -> Fitted:
    """Train on `epochs(0)`, `epochs(1)`, ..; keep the epoch of the best validation score.

    Raises SettingsError where `judged_by` names no pattern of these modalities, or `resume` finds a run of
    another recipe.
    """
    schedule = recipe.schedule
    if unknown := set(recipe.judged_by) - set(patterns([name for name, _ in dims])):
        raise SettingsError(f"judged_by: no such combination of modalities: {sorted(unknown)}")
    torch.manual_seed(schedule.seed)
    first = epochs(0)
    model = CMATH(model_config(recipe, dims, classes))
    scale = standardise(model, first)
    weights = class_weights(first, classes, schedule.class_weights)
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=schedule.learning_rate, weight_decay=schedule.weight_decay
    )
    state = _State(recipe, model, optimiser, out_dir / f"{recipe.name}.state.pt")
    start = state.restore() if resume else 0
    steps = math.ceil(len(first) / schedule.batch)
    bar = Progress(
        TextColumn("[bold]{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"), disable=not progress,
    )  # fmt: skip
    with bar:
        task = bar.add_task(recipe.name, total=schedule.epochs, completed=start, note="")
        for epoch in range(start, schedule.epochs):
            rng = np.random.default_rng((schedule.seed, epoch))
            torch.manual_seed(schedule.seed * 100_003 + epoch)
            examples = first if epoch == 0 else epochs(epoch)
            order = rng.permutation(len(examples))
            model.train()
            for step in range(steps):
                done = (epoch + step / steps) / schedule.epochs
                for group in optimiser.param_groups:
                    group["lr"] = schedule.learning_rate * one_cycle(done, schedule.warm_up)
                chosen = [examples[i] for i in order[step * schedule.batch : (step + 1) * schedule.batch]]
                batch = collate([_cropped(example, schedule.crop, rng) for example in chosen])
                risen = 1.0 if done >= schedule.warm_up else done / schedule.warm_up
                out = train_step(model, batch, recipe, weights, scale, rng, risen)
                optimiser.zero_grad()
                out.total.backward()  # type: ignore[no-untyped-call]
                torch.nn.utils.clip_grad_norm_(model.parameters(), schedule.clip)
                optimiser.step()
                state.average(schedule.ema)
            score = state.judge(validation)
            state.save(epoch + 1)
            bar.update(task, advance=1, note=f"validation {score:.4f}, best {max(state.history):.4f}")
    model.load_state_dict(state.best)
    return Fitted(model.eval(), int(np.argmax(state.history)), tuple(state.history))


def train_step(
    model: CMATH,
    batch: Batch,
    recipe: Recipe,
    weights: Tensor | None,
    scale: Sequence[NDArray[np.float32]],
    rng: np.random.Generator,
    warm_up: float,
) -> Losses:
    """Losses of one batch, with modalities dropped and noise on the features."""
    schedule = recipe.schedule
    presence = drop_modalities(batch.presence, schedule.absent, rng)
    noisy = [
        rows + schedule.feature_noise * deviation * rng.standard_normal(rows.shape, dtype=np.float32)
        for rows, deviation in zip(batch.features, scale, strict=True)
    ]
    out = model.training_pass(
        tuple(torch.from_numpy(rows) for rows in noisy),
        torch.from_numpy(presence),
        torch.from_numpy(batch.mask),
        torch.from_numpy(batch.speaker),
    )
    return losses(out, torch.from_numpy(batch.label), recipe.loss, class_weights=weights, warm_up=warm_up)


def standardise(model: CMATH, examples: Sequence[Example]) -> list[NDArray[np.float32]]:
    """Give the model the z-score statistics of its training data; returns the deviations, M x [D_m]."""
    deviations = []
    for m, compressor in enumerate(model.compressors):
        rows = np.concatenate([example.features[m][example.presence[:, m]] for example in examples])
        deviation = np.maximum(rows.std(axis=0), 1e-4).astype(np.float32)
        compressor.mean.copy_(torch.from_numpy(rows.mean(axis=0)))  # type: ignore[operator]
        compressor.std.copy_(torch.from_numpy(deviation))  # type: ignore[operator]
        deviations.append(deviation)
    return deviations


def class_weights(examples: Sequence[Example], classes: int, power: float) -> Tensor | None:
    """[C] inverse class frequency to a power, mean 1 over the data; None where the power is 0."""
    if power == 0.0:
        return None
    label = np.concatenate([example.label for example in examples])
    share = np.bincount(label[label != UNLABELLED], minlength=classes) / np.count_nonzero(label != UNLABELLED)
    weight = np.maximum(share, 1e-3) ** -power
    return torch.from_numpy((weight / (weight @ share)).astype(np.float32))


def drop_modalities(
    presence: NDArray[np.bool_], chance: float, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """[B, N, M] with modalities taken away, in half of the dialogues throughout; no row loses its last."""
    b, n, m = presence.shape
    throughout = rng.random((b, 1, 1)) < 0.5
    dropped = np.where(throughout, rng.random((b, 1, m)) < chance, rng.random((b, n, m)) < chance)
    kept = presence & ~dropped
    return np.where(kept.any(axis=2, keepdims=True), kept, presence)


def _cropped(example: Example, chance: float, rng: np.random.Generator) -> Example:
    length = len(example.label)
    start, stop = np.sort(rng.integers(0, length + 1, size=2)) if rng.random() < chance else (0, length)
    if start == stop:
        return example
    cut = slice(int(start), int(stop))
    return Example(
        tuple(rows[cut] for rows in example.features),
        example.presence[cut],
        example.speaker[cut],
        example.label[cut],
    )


def one_cycle(done: float, warm_up: float) -> float:
    """Share of the peak rate at a share of the run: a straight rise, then half a cosine down."""
    if done < warm_up:
        return 0.05 + 0.95 * done / warm_up
    return 0.5 * (1.0 + math.cos(math.pi * (done - warm_up) / (1.0 - warm_up)))


class _State:
    """What an epoch leaves for the next: averaged and best weights, scores, and all of it on disk."""

    def __init__(self, recipe: Recipe, model: CMATH, optimiser: torch.optim.Optimizer, path: Path) -> None:
        self._recipe = recipe
        self._model, self._optimiser, self._path = model, optimiser, path
        self._averaged = {key: value.clone() for key, value in model.state_dict().items()}
        self._steps = 0
        self.best: dict[str, Tensor] = {}
        self.history: list[float] = []

    def average(self, decay: float) -> None:
        """Move the averaged weights towards the current ones; quickly at first."""
        self._steps += 1
        share = 1.0 - min(decay, self._steps / (self._steps + 10.0)) if decay else 1.0
        for key, value in self._model.state_dict().items():
            self._averaged[key].lerp_(value, share)

    def judge(self, validation: Sequence[Example]) -> float:
        """Validation score of the averaged weights: weighted F1, mean over the patterns that judge."""
        current = {key: value.clone() for key, value in self._model.state_dict().items()}
        self._model.load_state_dict(self._averaged)
        self._model.eval()
        figures = by_pattern(self._model, validation)
        score = float(
            np.mean([figures[pattern].weighted_f1 for pattern in self._recipe.judged_by or figures])
        )
        self._model.load_state_dict(current)
        if score > max(self.history, default=-1.0):
            self.best = {key: value.clone() for key, value in self._averaged.items()}
        self.history.append(score)
        return score

    def save(self, epochs_done: int) -> None:
        """Leave the state for `restore`, replacing the last one as a whole."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        partial = self._path.with_suffix(".partial")
        state = {
            "recipe": repr(self._recipe),
            "epochs_done": epochs_done,
            "model": self._model.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "averaged": self._averaged,
            "steps": self._steps,
            "best": self.best,
            "history": self.history,
        }
        torch.save(state, partial)
        partial.replace(self._path)

    def restore(self) -> int:
        """Epochs already done, 0 where no run left a state."""
        if not self._path.exists():
            return 0
        state = torch.load(self._path, weights_only=True)
        if state["recipe"] != repr(self._recipe):
            raise SettingsError(f"{self._path}: left by another recipe; train without resuming")
        self._model.load_state_dict(state["model"])
        self._optimiser.load_state_dict(state["optimiser"])
        self._averaged, self._steps = state["averaged"], state["steps"]
        self.best, self.history = state["best"], state["history"]
        return int(state["epochs_done"])


def by_pattern(model: CMATH, validation: Sequence[Example]) -> dict[str, Metrics]:
    """Uncalibrated figures for every subset of modalities, keyed by their names joined by `+`."""
    result = {}
    for pattern, subset in patterns(model.config.names).items():
        answers = answer(model, validation, subset)
        result[pattern] = metrics(softmax(answers.logits), answers.label)
    return result


def describe(
    recipe: Recipe, fitted: Fitted, modalities: Sequence[ModalitySpec], validation: Sequence[Example]
) -> CheckpointMeta:
    """Calibrate on validation, a temperature a presence pattern, and set down what the checkpoint is.

    Reported calibration is cross-fitted by dialogue; the stored temperatures use all of validation.
    """
    temperatures, figures, confidence = {}, {}, []
    for pattern, subset in patterns(fitted.model.config.names).items():
        answers = answer(fitted.model, validation, subset)
        chances = cross_fitted(answers)
        temperatures[pattern] = round(fit_temperature(answers.logits, answers.label), 4)
        low, high, floor = calibration_interval(chances, answers.label)
        figures[pattern] = _rounded(metrics(chances, answers.label)) | {
            "ece_95": [round(low, 4), round(high, 4)],
            "ece_of_a_perfect_model": round(floor, 4),
        }
        confidence.append(chances.max(axis=1))
    return CheckpointMeta(
        name=recipe.name,
        version=recipe.version,
        label_set="meld7",
        labels=MELD7,
        modalities=tuple(modalities),
        config=fitted.model.config,
        temperatures=temperatures,
        abstain_below=round(float(np.quantile(np.concatenate(confidence), 1.0 - recipe.answered)), 4),
        licence=recipe.licence,
        data_sources=recipe.data_sources,
        validation={"set": recipe.corpora.validation, "best_epoch": fitted.best_epoch, "patterns": figures},
    )


def _rounded(figures: Metrics) -> dict[str, Any]:
    def short(value: Any) -> Any:
        if isinstance(value, tuple):
            return [short(each) for each in value]
        return round(value, 4) if isinstance(value, float) else value

    return {key: short(value) for key, value in asdict(figures).items()}
