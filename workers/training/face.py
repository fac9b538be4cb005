"""Trains the face encoder on the FER+ crowd's votes; `python -m workers.training.face --data DIR --out DIR`.

A face's target is the distribution of its votes: a class with one vote or none counts nothing, "unknown" and
"not a face" are left out, and so is a picture where one of these two won or where no vote is left (Barsoum et
al. 2016). Everything random in an epoch comes from (seed, epoch), so a resumed run repeats the uninterrupted
one. Validation chooses the epoch: the figures on it are flattered by that.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor
from torch.nn import functional as F

from realtime.errors import CmathStreamError, SettingsError
from realtime.settings import load as load_settings
from workers.face_encoder import FACE_PX, LABELS, FaceEncoder, FaceMeta, FaceNetConfig, encode, save

PROTOCOLS = {
    "plurality": "votes <= 1 set to 0; pictures whose most voted class is one of the eight and has more "
    "votes than any other class, unknown and not-a-face included",
    "majority": "votes <= 1 set to 0; pictures where one of the eight has more than half of all votes left "
    "(the 'majority' mode of the FER+ reader)",
}
_BINS = 15  # of the calibration error

Grey = NDArray[np.uint8]  # [n, 48, 48]
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Augmentation:
    """What is done to a training face; every strength 0 switches off."""

    turn_deg: float = 12.0  # in the picture's plane
    zoom: float = 0.1  # +- share
    stretch: float = 0.06  # +- share, of width against height
    roam: float = 0.6  # share of its freedom that a crop uses to lie off the centre
    shift: float = 0.05  # +- share of the picture, beyond that
    gamma: float = 0.25  # deviation of its logarithm
    blur: float = 0.15  # chance of a 3 x 3 mean
    noise: float = 0.02  # of full scale, largest deviation
    hide: float = 0.4  # chance of a hidden square
    hidden: float = 0.33  # its side, share of the crop


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
    half: bool = True  # convolutions in bfloat16
    fold: int | None = None  # train on the pictures of the other half only (0 or 1): out-of-fold embeddings
    network: FaceNetConfig = FaceNetConfig()
    augmentation: Augmentation = Augmentation()

    def __post_init__(self) -> None:
        if len(self.grows_at) + 1 != len(self.crops_px) or any(side % 2 for side in self.crops_px):
            raise ValueError("crops_px needs even sides, and grows_at one entry less")
        if self.fold not in (None, 0, 1):
            raise ValueError("fold must be 0 or 1")


@dataclass(frozen=True, slots=True)
class Votes:
    """Pictures and what the crowd said of them."""

    image: Grey
    votes: Floats  # [n, 10]: LABELS, unknown, not a face; 0 where there was one vote or none

    def usable(self) -> NDArray[np.bool_]:
        """[n] whether one of the eight won, alone or with others of them."""
        won: NDArray[np.bool_] = (self.votes.argmax(axis=1) < len(LABELS)) & (self.votes.max(axis=1) > 0)
        return won

    def target(self) -> Floats:
        """[n, 8] share of the votes for the eight; rows that are not usable mean nothing."""
        kept = self.votes[:, : len(LABELS)]
        share: Floats = kept / np.maximum(kept.sum(axis=1, keepdims=True), 1)
        return share

    def judged(self, protocol: str) -> NDArray[np.bool_]:
        """[n] whether a picture counts under one of PROTOCOLS."""
        ordered = np.sort(self.votes, axis=1)
        rival = ordered[:, -2] if protocol == "plurality" else self.votes.sum(axis=1) / 2
        return self.usable() & np.asarray(ordered[:, -1] > rival)


def read_votes(path: Path) -> Votes:
    """Read `image` uint8 [n, 48, 48] and `votes` [n, 10]. Raises SettingsError for anything else."""
    try:
        with np.load(path) as file:
            image, votes = file["image"], file["votes"].astype(np.float32)
    except (OSError, KeyError, ValueError) as error:
        raise SettingsError(f"{path}: not a file of FER+ pictures and votes: {error}") from error
    if image.shape[1:] != (FACE_PX, FACE_PX) or image.dtype != np.uint8 or votes.shape != (len(image), 10):
        raise SettingsError(f"{path}: expected image uint8 [n, 48, 48] and votes [n, 10]")
    return Votes(image, np.where(votes <= 1, 0, votes).astype(np.float32))


def fold_of(count: int) -> NDArray[np.int64]:
    """[n] 0 or 1: the half a training picture belongs to; the same on every machine."""
    return np.random.default_rng(20_161).permutation(count) % 2


def augment(grey: Tensor, px: int, how: Augmentation, rng: torch.Generator) -> Tensor:
    """Grey [B, 1, 48, 48] 0..255 -> [B, 1, px, px]: cut at its own scale, turned, mirrored, spoiled."""
    count = len(grey)

    def uniform(*shape: int) -> Tensor:  # -1..1
        return torch.rand(count, *shape, generator=rng) * 2 - 1

    share = px / FACE_PX
    angle = uniform() * math.radians(how.turn_deg)
    zoom, stretch = share * (1 + how.zoom * uniform()), how.stretch * uniform()
    mirror = torch.where(uniform() < 0, -1.0, 1.0)
    wide, high = zoom * (1 + stretch), zoom * (1 - stretch)
    shift = uniform(2) * (how.roam * (1 - share) + 2 * how.shift)
    rows = [wide * mirror * angle.cos(), -high * angle.sin(), shift[:, 0],
            wide * mirror * angle.sin(), high * angle.cos(), shift[:, 1]]  # fmt: skip
    grid = F.affine_grid(torch.stack(rows, 1).view(-1, 2, 3), [count, 1, px, px], align_corners=False)
    x = F.grid_sample(grey.float() / 255, grid, padding_mode="border", align_corners=False)
    gamma = torch.exp(how.gamma * torch.randn(count, 1, 1, 1, generator=rng))
    x = x.clamp(1e-3, 1).pow(gamma)
    blurred = torch.rand(count, 1, 1, 1, generator=rng) < how.blur
    x = torch.where(blurred, F.avg_pool2d(x, 3, 1, 1, count_include_pad=False), x)
    x = x + torch.randn(x.shape, generator=rng) * how.noise * torch.rand(count, 1, 1, 1, generator=rng)
    place, line = torch.rand(count, 2, 1, generator=rng) * px, torch.arange(px) + 0.5
    near = (line - place).abs() < how.hidden * px / 2  # [B, 2, px]
    square = near[:, 0, :, None] & near[:, 1, None, :] & (torch.rand(count, 1, 1, generator=rng) < how.hide)
    return torch.where(square[:, None], x.mean(dim=(2, 3), keepdim=True), x) * 255


def one_cycle(done: float, warm_up: float) -> float:
    """Share of the peak rate at a share of the run: a straight rise, then half a cosine down."""
    if done < warm_up:
        return 0.05 + 0.95 * done / warm_up
    return 0.5 * (1.0 + math.cos(math.pi * (done - warm_up) / (1.0 - warm_up)))


def figures(posterior: Floats, data: Votes, protocol: str) -> dict[str, Any]:
    """Accuracy, recall and F1 a class, macro and weighted F1, calibration error (15 bins) and n."""
    judged = data.judged(protocol)
    label, chances = data.votes[judged].argmax(axis=1), posterior[judged].astype(np.float64)
    said, sure = chances.argmax(axis=1), chances.max(axis=1)
    table = np.zeros((len(LABELS), len(LABELS)))
    np.add.at(table, (label, said), 1)  # rows: the crowd; columns: the encoder
    right, support = np.diag(table), table.sum(axis=1)
    f1 = 2 * right / np.maximum(support + table.sum(axis=0), 1)
    place = np.minimum((sure * _BINS).astype(int), _BINS - 1)
    gaps = [abs(float((said == label)[place == b].sum() - sure[place == b].sum())) for b in range(_BINS)]
    return {
        "accuracy": round(float(right.sum() / support.sum()), 4),
        "macro_f1": round(float(f1.mean()), 4),
        "weighted_f1": round(float((f1 * support).sum() / support.sum()), 4),
        "ece": round(sum(gaps) / len(label), 4),
        "n": len(label),
        "per_class": {
            name: {
                "recall": round(float(right[c] / max(1, support[c])), 4),
                "f1": round(float(f1[c]), 4),
                "n": int(support[c]),
            }
            for c, name in enumerate(LABELS)
        },
        "protocol": PROTOCOLS[protocol],
    }


def report(model: FaceEncoder, data: Votes) -> dict[str, Any]:
    """Figures under both protocols, mirror images averaged."""
    posterior = encode(model, data.image).posterior
    return figures(posterior, data, "plurality") | {"majority": figures(posterior, data, "majority")}


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
                "recipe": repr(self.recipe),
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
        if state["recipe"] != repr(self.recipe):
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
    until: int | None = None,
    progress: bool = True,
) -> FaceMeta:
    """Train, going on where an interrupted run of this recipe stopped; writes `folder`/face.safetensors.

    `until` stops after that epoch, in the middle of the schedule; a later call goes on from there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    run = _Run(recipe, folder)
    run.restore()
    kept = training.usable()
    if recipe.fold is not None:
        kept &= fold_of(len(kept)) != recipe.fold
    image, target = torch.from_numpy(training.image[kept, None]), torch.from_numpy(training.target()[kept])
    bar = Progress(
        TextColumn("[bold]{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"), disable=not progress,
    )  # fmt: skip
    with bar:
        task = bar.add_task(recipe.name, total=recipe.epochs, completed=len(run.history), note="")
        for epoch in range(len(run.history), min(until or recipe.epochs, recipe.epochs)):
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


LICENCE = (
    "Weights: CC BY-NC 4.0. The FER+ labels are MIT; the FER2013 pictures were gathered from the web for "
    "research, so what was learned from them is given for research only (see face.md)"
)
DATA_SOURCES = (
    "FER2013 training pictures (research use)",
    "FER+ votes of ten people a picture (MIT)",
)


def main() -> int:
    """Train as the recipe says; the last line printed is one JSON object of the validation figures."""
    parser = argparse.ArgumentParser(description="Train the face encoder.")
    parser.add_argument("--data", type=Path, required=True, help="folder of train.npz and valid.npz")
    parser.add_argument("--out", type=Path, required=True, help="folder for weights and state")
    parser.add_argument("--recipe", type=Path, default=Path("configs/train-face.toml"))
    parser.add_argument("--until", type=int, help="stop after this epoch; a later run goes on from there")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    try:
        recipe = load_settings(Recipe, given.recipe, {})
        training, validation = read_votes(given.data / "train.npz"), read_votes(given.data / "valid.npz")
        meta = train(recipe, training, validation, given.out, until=given.until)
    except CmathStreamError as error:
        print(error)
        return 1
    print(json.dumps(meta.training["validation"]))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
