"""The training loop: whatever learns, seeded, averaged, resumable, chosen on validation. Knows no data.

Everything random in an epoch comes from (seed, epoch), so a resumed run repeats the uninterrupted one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from cmath_stream.training.recipe import Schedule
from realtime.errors import SettingsError

Rng = np.random.Generator


class Learner(Protocol):
    """What the loop needs to know of a model and its data."""

    def train(self, mode: bool = True) -> Any:
        """Switch between learning and answering."""

    def learned(self) -> Mapping[str, Tensor]:
        """The tensors that a run changes, themselves and not copies, by a name that stays."""

    def parameters(self) -> Iterable[nn.Parameter]:
        """Those of them that descend; the others are statistics."""

    def batches(self, epoch: int, rng: Rng) -> Sequence[Any]:
        """An epoch's batches, in order; as many in every epoch."""

    def loss(self, batch: Any, rng: Rng, risen: float) -> Tensor:
        """Scalar to descend; `risen` 0..1 is how far the warm-up is."""

    def judge(self) -> float:
        """Validation score of the present weights, larger is better; called in eval mode."""


@dataclass(frozen=True, slots=True)
class Learned:
    """What a run ends with."""

    best: Mapping[str, Tensor]  # averaged weights of the best epoch; of equals, the last
    history: tuple[float, ...]  # validation score an epoch

    @property
    def best_epoch(self) -> int:
        """Counted from 0."""
        return len(self.history) - 1 - int(np.argmax(self.history[::-1]))


def learn(
    learner: Learner,
    schedule: Schedule,
    path: Path | None,
    mark: str,
    *,
    title: str,
    resume: bool = False,
    progress: bool = True,
) -> Learned:
    """Run the schedule; what an epoch leaves for the next goes to `path` (None: nowhere).

    `mark` says what is run, by content. Raises SettingsError where `resume` finds a run of another mark.
    """
    parameters = [each for each in learner.parameters() if each.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=schedule.learning_rate, weight_decay=schedule.weight_decay)
    state = _State(learner, optimiser, path, mark)
    start = state.restore() if resume else 0
    bar = Progress(
        TextColumn("[bold]{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"), disable=not progress,
    )  # fmt: skip
    with bar:
        task = bar.add_task(title, total=schedule.epochs, completed=start, note="")
        for epoch in range(start, schedule.epochs):
            rng = np.random.default_rng((schedule.seed, epoch))
            torch.manual_seed(schedule.seed * 100_003 + epoch)
            batches = learner.batches(epoch, rng)
            learner.train()
            for step, batch in enumerate(batches):
                done = (epoch + step / len(batches)) / schedule.epochs
                for group in optimiser.param_groups:
                    group["lr"] = schedule.learning_rate * one_cycle(done, schedule.warm_up)
                risen = 1.0 if done >= schedule.warm_up else done / schedule.warm_up
                loss = learner.loss(batch, rng, risen)
                optimiser.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                torch.nn.utils.clip_grad_norm_(parameters, schedule.clip)
                optimiser.step()
                state.average(schedule.ema)
                bar.update(task, completed=epoch + (step + 1) / len(batches))
            score = state.judge()
            state.save(epoch + 1)
            bar.update(task, note=f"validation {score:.4f}, best {max(state.history):.4f}")
    put(learner.learned(), state.best)
    learner.train(False)
    return Learned(state.best, tuple(state.history))


def one_cycle(done: float, warm_up: float) -> float:
    """Share of the peak rate at a share of the run: a straight rise, then half a cosine down."""
    if done < warm_up:
        return 0.05 + 0.95 * done / warm_up
    return 0.5 * (1.0 + math.cos(math.pi * (done - warm_up) / (1.0 - warm_up)))


@torch.no_grad()
def put(there: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    """Copy values into the tensors of the same names."""
    for key, tensor in there.items():
        tensor.copy_(values[key])


def copied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same values in memory of their own."""
    return {key: value.detach().clone() for key, value in tensors.items()}


class _State:
    """What an epoch leaves for the next: averaged and best weights, scores, and all of it on disk."""

    def __init__(
        self, learner: Learner, optimiser: torch.optim.Optimizer, path: Path | None, mark: str
    ) -> None:
        self._learner, self._optimiser, self._path, self._mark = learner, optimiser, path, mark
        self._averaged = copied(learner.learned())
        self._steps = 0
        self.best: dict[str, Tensor] = {}
        self.history: list[float] = []

    @torch.no_grad()
    def average(self, decay: float) -> None:
        """Move the averaged weights towards the current ones; quickly at first."""
        self._steps += 1
        share = 1.0 - min(decay, self._steps / (self._steps + 10.0)) if decay else 1.0
        for key, value in self._learner.learned().items():
            self._averaged[key].lerp_(value, share)

    def judge(self) -> float:
        """Validation score of the averaged weights; keeps them where it is the best so far."""
        current = copied(self._learner.learned())
        put(self._learner.learned(), self._averaged)
        self._learner.train(False)
        score = self._learner.judge()
        put(self._learner.learned(), current)
        if score >= max(self.history, default=-math.inf):
            self.best = copied(self._averaged)
        self.history.append(score)
        return score

    def save(self, epochs_done: int) -> None:
        """Leave the state for `restore`, replacing the last one as a whole."""
        if self._path is None:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        partial = self._path.with_suffix(".partial")
        state = {
            "mark": self._mark,
            "epochs_done": epochs_done,
            "current": copied(self._learner.learned()),
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
        if self._path is None or not self._path.exists():
            return 0
        state = torch.load(self._path, weights_only=True)
        if state["mark"] != self._mark:
            raise SettingsError(f"{self._path}: left by another recipe; train without resuming")
        put(self._learner.learned(), state["current"])
        self._optimiser.load_state_dict(state["optimiser"])
        self._averaged, self._steps = state["averaged"], state["steps"]
        self.best, self.history = state["best"], state["history"]
        return int(state["epochs_done"])
