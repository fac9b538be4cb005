"""The training objective of CMATH: R6, R18, R20, R21. Knows a `TrainingOutput` and labels, nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from cmath_stream.model import TrainingOutput

IGNORED = -1  # label of rows that teach nothing: padding, or no counterpart among the classes


@dataclass(frozen=True, slots=True)
class LossWeights:
    """What each part counts; a zero switches that part off."""

    centre_labels: float = 1.0  # a1: each centre learns the label
    centre_answers: float = 1.0  # a2: each centre learns the fused answer
    centre_posteriors: float = 0.1  # a3: each centre's posterior approaches the fused one
    reconstruction: float = 0.1  # b1
    variational: float = 0.01  # b2
    temperature: float = 4.0  # tau of a2
    label_smoothing: float = 0.0  # on the fused and the centres' cross-entropy


class Losses(NamedTuple):
    """Scalars; `total` is what training descends, the parts are unweighted."""

    total: Tensor
    label: Tensor
    reconstruction: Tensor  # 1 = no better than the mean of the training data
    variational: Tensor
    centre_labels: Tensor
    centre_answers: Tensor
    centre_posteriors: Tensor


def losses(
    out: TrainingOutput,
    labels: Tensor,
    weights: LossWeights,
    *,
    class_weights: Tensor | None = None,
    warm_up: float = 1.0,
) -> Losses:
    """R21 of a batch. labels [B, N] int64 with IGNORED, class_weights [C], warm_up 0..1 scales R18."""
    labelled = (labels != IGNORED) & out.mask  # [B, N]
    known = labels.clamp(min=0)

    def cross_entropy(logits: Tensor, rows: Tensor) -> Tensor:  # [B, N, C], [B, N] bool
        each = F.cross_entropy(
            logits.flatten(0, 1), known.flatten(), reduction="none", label_smoothing=weights.label_smoothing
        ).view_as(known)
        share = torch.ones_like(each) if class_weights is None else class_weights[known]
        return _mean(each * share, rows, share)

    teacher = (out.logits.detach() / weights.temperature).log_softmax(-1)
    zero = out.logits.new_zeros(())
    centre_labels, centre_answers, centre_posteriors = zero, zero, zero
    for c in range(out.centre_logits.shape[2]):  # R20, sums over the present centres only
        present = out.centre_presence[..., c]
        student = (out.centre_logits[:, :, c] / weights.temperature).log_softmax(-1)
        distance = F.kl_div(student, teacher, reduction="none", log_target=True).sum(-1)  # [B, N]
        centre_labels = centre_labels + cross_entropy(out.centre_logits[:, :, c], labelled & present)
        centre_answers = centre_answers + weights.temperature**2 * _mean(distance, present)
        if out.log_variance is not None:
            apart = gaussian_kl(
                out.centre_mean[:, :, c],
                out.centre_log_variance[:, :, c],
                out.mean.detach(),
                out.log_variance.detach(),
            )
            centre_posteriors = centre_posteriors + _mean(apart, present)

    reconstruction = zero
    for m, (target, rebuilt) in enumerate(zip(out.inputs, out.rebuilt, strict=True)):  # R6
        error = (target - rebuilt).square().mean(-1)  # [B, N]
        reconstruction = reconstruction + _mean(error, out.presence[..., m]) / len(out.inputs)
    variational = zero
    if out.log_variance is not None:
        nothing = torch.zeros_like(out.mean)
        variational = _mean(gaussian_kl(out.mean, out.log_variance, nothing, nothing), out.mask)  # R18
    label = cross_entropy(out.logits, labelled)
    total = (
        label
        + weights.reconstruction * reconstruction
        + weights.variational * warm_up * variational
        + weights.centre_labels * centre_labels
        + weights.centre_answers * centre_answers
        + weights.centre_posteriors * centre_posteriors
    )
    return Losses(total, label, reconstruction, variational, centre_labels, centre_answers, centre_posteriors)


def gaussian_kl(mean: Tensor, log_variance: Tensor, to_mean: Tensor, to_log_variance: Tensor) -> Tensor:
    """KL(N(mean, s2) || N(to_mean, to_s2)) of diagonal normals, mean over latent dims: [.., d] -> [..]."""
    gap = (mean - to_mean).square() * torch.exp(-to_log_variance)
    spread = log_variance - to_log_variance
    return 0.5 * (torch.exp(spread) + gap - 1.0 - spread).mean(-1)


def _mean(values: Tensor, rows: Tensor, share: Tensor | None = None) -> Tensor:
    """Weighted mean of [B, N] over the rows that count; 0 where none does."""
    counts = rows.to(values.dtype) if share is None else rows * share
    return (values * rows).sum() / counts.sum().clamp(min=1e-6)
