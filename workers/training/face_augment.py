"""What happens to a face on its way to an encoder: turned, cut and lit otherwise, blurred, half hidden."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from workers.face_encoder import FACE_PX


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
