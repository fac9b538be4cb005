"""Learning what prosody says of emotions: a linear model over clips set beside their actor's usual. Seeded.

Letters: V versions of every clip, n clips, K numbers of prosody.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as fn

from realtime.messages import Pcm
from workers.training.ravdess import Clip
from workers.training.voice_augment import Augmentation, Rng, varied
from workers.voice_encoder import EMOTIONS, ProsodyScores, measure

Measured = NDArray[np.float32]

_PRIOR = 4  # clips' weight that everybody's mean has beside the actor's, as in a session


@dataclass(frozen=True, slots=True)
class ProsodyPlan:
    """How the scores are fitted, and what they weigh."""

    versions: int = 6  # of every clip, beside the clip as it is
    share: float = 0.25  # of the scores beside the networks' log odds
    penalty: float = 0.01  # of the squared weights

    def __post_init__(self) -> None:
        if self.versions < 0 or self.penalty <= 0.0:
            raise ValueError("versions must be at least 0, penalty above 0")


def elsewhere(clip: Clip, speech: Pcm, how: Augmentation, plan: ProsodyPlan, seed: int) -> list[Pcm]:
    """[K] of each version: the clip as it is, then in other rooms and on other lines, one an actor.

    The pitch stays: another one is another voice, and the actors are those there are.
    """
    how = replace(how, speed=1.0)
    others = [
        varied(speech, how, np.random.default_rng([seed, version, clip.actor]))
        for version in range(plan.versions)
    ]
    return [measure(pcm) for pcm in (clip.pcm, *others)]


def fit_scores(
    scores: ProsodyScores, clips: Sequence[Clip], measured: Measured, plan: ProsodyPlan, seed: int
) -> None:
    """Fill the scores' tensors from [V, n, K]: multinomial logistic regression, to its optimum."""
    scores.mean.copy_(torch.from_numpy(measured[0].mean(0)))
    scores.scale.copy_(torch.from_numpy(measured.std((0, 1)) + 1e-6))
    numbers = scores.standardised(torch.from_numpy(measured)).numpy()
    actor = np.array([clip.actor for clip in clips])
    rng = np.random.default_rng([seed, 1])
    x = torch.from_numpy(np.concatenate([beside_usual(version, actor, rng) for version in numbers]))
    label = torch.tensor([clip.emotion for clip in clips]).repeat(len(numbers))
    weight = torch.zeros(len(EMOTIONS), x.shape[1], requires_grad=True)
    bias = torch.zeros(len(EMOTIONS), requires_grad=True)
    search = torch.optim.LBFGS([weight, bias], max_iter=300, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        search.zero_grad()
        wrong = fn.cross_entropy(fn.linear(x, weight, bias), label)
        wrong = wrong + plan.penalty / 2.0 * weight.square().sum()
        wrong.backward()  # type: ignore[no-untyped-call]
        return wrong

    search.step(loss)  # type: ignore[no-untyped-call]
    scores.weight.copy_(plan.share * (weight - weight.mean(0)).detach())


def beside_usual(rows: Pcm, actor: NDArray[np.int64], rng: Rng) -> Pcm:
    """[n, K], each less the mean of its actor's rows before it in a random order, drawn towards zero."""
    result = np.zeros_like(rows)
    for each in np.unique(actor):
        order = rng.permutation(np.flatnonzero(actor == each))
        before = np.cumsum(rows[order], axis=0) - rows[order]
        result[order] = rows[order] - before / (np.arange(len(order))[:, None] + _PRIOR)
    return result.astype(np.float32)
