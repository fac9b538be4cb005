"""Learning of the face encoder on the FER+ crowd's votes; a face's target is the distribution of its votes.

Everything random in an epoch comes from (seed, epoch), so a resumed run repeats the uninterrupted one.
Validation chooses the epoch: the figures on it are flattered by that.
"""

from __future__ import annotations

import math
import os
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import TextColumn
from torch import Tensor
from torch.nn import functional as F

from realtime.errors import SettingsError
from workers.face_encoder import FaceEncoder, FaceMeta, FaceNetConfig, save
from workers.training.face_augment import Augmentation, augment
from workers.training.ferplus import Floats, Grey, Votes, figures, report
from workers.training.progress import bar as progress_bar

LICENCE = (
    "Weights: CC BY-NC 4.0. The FER+ labels are MIT; the FER2013 pictures were gathered from the web for "
    "research, so what was learned from them is given for research only (see face.md)"
)
DATA_SOURCES = (
    "FER2013 training pictures (research use)",
    "FER+ votes of ten people a picture (MIT)",
)


@dataclass(frozen=True, slots=True)
class Recipe:
    """One training run; `configs/train-face.toml` holds its differences from the defaults."""

    name: str = "face-cnn"
    version: str = "1"
    seed: int = 1
    epochs: int = 40
    crops_px: tuple[int, ...] = (32, 40, 44)  # sides of the crops, one after the other
    grows_at: tuple[float, ...] = (0.4, 0.85)  # shares of the run at which the next one begins
    batch: int = 128
    learning_rate: float = 0.08  # peak of the one-cycle schedule
    warm_up: float = 0.2  # share of steps in which the rate rises
    momentum: float = 0.9
    weight_decay: float = 5e-4
    ema: float = 0.998  # decay a step of the averaged weights that are judged and kept
    half: bool = False  # convolutions in bfloat16: slower where the processor has none
    until: int | None = None  # epoch after which training ends, the schedule being made for all of them
    network: FaceNetConfig = FaceNetConfig()
    augmentation: Augmentation = Augmentation()

    def __post_init__(self) -> None:
        if len(self.grows_at) + 1 != len(self.crops_px) or any(side % 2 for side in self.crops_px):
            raise ValueError("crops_px needs even sides, and grows_at one entry less")
        if self.until is not None and not 0 < self.until <= self.epochs:
            raise ValueError("until is one of the epochs")


def one_cycle(done: float, warm_up: float) -> float:
    """Share of the peak rate at a share of the run: a straight rise, then half a cosine down."""
    if done < warm_up:
        return 0.05 + 0.95 * done / warm_up
    return 0.5 * (1.0 + math.cos(math.pi * (done - warm_up) / (1.0 - warm_up)))


@torch.inference_mode()
def glance(model: FaceEncoder, image: Grey, half: bool) -> Floats:
    """Posterior [n, 8] of pictures, quickly: without mirror images, convolutions in bfloat16 where `half`."""
    rows = []
    for some in torch.split(torch.from_numpy(image[:, None]), 256):
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            maps = model.trunk(some)
        rows.append(torch.softmax(model.logits(model.embed(maps.float())), dim=1).numpy())
    return np.concatenate(rows)


def _fresh(recipe: Recipe) -> FaceEncoder:
    model = FaceEncoder(recipe.network)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # half the time of a CPU's step
    return model


class _Run:
    """Weights on their way: current, averaged, best; and all of it on disk after every epoch."""

    def __init__(self, recipe: Recipe, folder: Path) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe, self._path = recipe, folder / "face.state.pt"
        self._mark = repr(replace(recipe, until=None))  # a run that ended early is the same run
        self.model = _fresh(recipe)
        decayed = [each for each in self.model.parameters() if each.ndim > 1]
        free = [each for each in self.model.parameters() if each.ndim <= 1]
        groups: list[dict[str, Any]] = [
            {"params": decayed, "weight_decay": recipe.weight_decay},
            {"params": free},
        ]
        self.optimiser = torch.optim.SGD(groups, lr=0.0, momentum=recipe.momentum, nesterov=True)
        self.average = {key: value.clone() for key, value in self.model.state_dict().items()}
        self.best = self.average
        self.steps = 0
        self.history: list[float] = []

    def follow(self) -> None:
        """Move the averaged weights towards the current ones; quickly at first."""
        self.steps += 1
        share = 1.0 - min(self.recipe.ema, self.steps / (self.steps + 10.0))
        for key, value in self.model.state_dict().items():
            if value.is_floating_point():
                self.average[key].lerp_(value, share)

    def judge(self, data: Votes) -> float:
        """Accuracy of the averaged weights (plurality); keeps them where it is the best so far."""
        chances = glance(self.with_weights(self.average), data.image, self.recipe.half)
        score = float(figures(chances, data, "plurality")["accuracy"])
        if score > max(self.history, default=-1.0):
            self.best = {key: value.clone() for key, value in self.average.items()}
        self.history.append(score)
        return score

    def with_weights(self, weights: dict[str, Tensor]) -> FaceEncoder:
        """Another encoder of these weights, in eval mode."""
        model = _fresh(self.recipe)
        model.load_state_dict(weights)
        return model.eval()

    def save(self) -> None:
        """Leave the state for `restore`, replacing the last one as a whole."""
        partial = self._path.with_suffix(".partial")
        torch.save(
            {
                "recipe": self._mark,
                "model": self.model.state_dict(),
                "optimiser": self.optimiser.state_dict(),
                "average": self.average,
                "best": self.best,
                "steps": self.steps,
                "history": self.history,
            },
            partial,
        )
        os.replace(partial, self._path)

    def restore(self) -> None:
        """Go on from what an interrupted run left, if one did. Raises SettingsError for another recipe's."""
        if not self._path.exists():
            return
        state = torch.load(self._path, weights_only=True)
        if state["recipe"] != self._mark:
            raise SettingsError(f"{self._path}: left by another recipe; choose another folder")
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.average, self.best = state["average"], state["best"]
        self.steps, self.history = state["steps"], state["history"]


def train(
    recipe: Recipe,
    training: Votes,
    validation: Votes,
    folder: Path,
    *,
    resume: bool = True,
    progress: bool = True,
) -> FaceMeta:
    """Train; writes `folder`/face.safetensors.

    `resume` goes on where an interrupted run of this recipe in `folder` stopped; otherwise it is overwritten.
    """
    folder.mkdir(parents=True, exist_ok=True)
    run = _Run(recipe, folder)
    if resume:
        run.restore()
    kept = training.usable()
    image, target = torch.from_numpy(training.image[kept, None]), torch.from_numpy(training.target()[kept])
    bar = progress_bar(TextColumn("{task.fields[note]}"), show=progress)
    with bar:
        task = bar.add_task(recipe.name, total=recipe.epochs, completed=len(run.history), note="")
        for epoch in range(len(run.history), recipe.until or recipe.epochs):
            began_s = time.monotonic()
            loss = _epoch(run, epoch, image, target)
            score = run.judge(validation)
            run.save()
            note = f"loss {loss:.3f}, validation {score:.4f}, best {max(run.history):.4f}"
            bar.update(task, advance=1, note=f"{note}, {time.monotonic() - began_s:.0f} s")
            if progress and not bar.console.is_terminal:
                print(f"epoch {epoch + 1}: {note}, {time.monotonic() - began_s:.0f} s", flush=True)
    best = run.with_weights(run.best)
    meta = FaceMeta(
        name=recipe.name,
        version=recipe.version,
        config=recipe.network,
        licence=LICENCE,
        data_sources=DATA_SOURCES,
        training={
            "recipe": asdict(recipe),
            "pictures": int(kept.sum()),
            "epochs_done": len(run.history),
            "best_epoch": int(np.argmax(run.history)) + 1,
            "chosen_by": "accuracy (plurality) of the averaged weights on validation",
            "validation": report(best, validation),
        },
    )
    save(folder / "face.safetensors", best, meta)
    return meta


def _epoch(run: _Run, epoch: int, image: Tensor, target: Tensor) -> float:
    """One pass over the pictures; returns its mean loss."""
    recipe = run.recipe
    torch.manual_seed(recipe.seed * 100_003 + epoch)  # dropout
    rng = torch.Generator().manual_seed(recipe.seed * 100_003 + epoch)
    px = recipe.crops_px[sum(epoch / recipe.epochs >= at for at in recipe.grows_at)]
    batches = torch.split(torch.randperm(len(image), generator=rng), recipe.batch)
    batches = batches[:-1] if len(batches) > 1 else batches  # all of one size: batch normalisation
    total = 0.0
    run.model.train()
    for step, rows in enumerate(batches):
        rate = recipe.learning_rate * one_cycle((epoch + step / len(batches)) / recipe.epochs, recipe.warm_up)
        for group in run.optimiser.param_groups:
            group["lr"] = rate
        faces = augment(image[rows], px, recipe.augmentation, rng)
        with torch.autocast("cpu", torch.bfloat16, enabled=recipe.half):
            maps = run.model.trunk(faces)
        logits = run.model.logits(run.model.embed(maps.float()))
        loss = F.cross_entropy(logits, target[rows])
        run.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        run.optimiser.step()
        run.follow()
        total += float(loss.detach())
    return total / len(batches)
