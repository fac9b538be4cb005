"""What is compiled of a model: programs of tensors alone, whose batch may vary and whose other sizes may not.

A model that can remember its rows (`newest.can_remember`) has two, `remember` and `ask`; every model has
`window`, the full window at once. Letters: as in `cmath_stream.newest`, P pages that are held.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from cmath_stream.model import CMATH, CMATHConfig
from cmath_stream.newest import Ask, FullWindow, Remember, can_remember

ProgramName = Literal["remember", "ask", "window"]
Precision = Literal["fp32", "fp16"]


@dataclass(frozen=True, slots=True)
class Program:
    """One of them."""

    name: ProgramName
    module: nn.Module  # in eval mode, without gradients
    shape: Shape

    @property
    def held(self) -> int:
        """How many inputs, the first ones, are pages: not of the batch, and left where they lie."""
        return 2 if self.name == "ask" else 0

    def inputs(self, batch: int, seed: int = 0) -> tuple[Any, ...]:
        """Random inputs that make sense, of this batch size."""
        return _inputs(self, batch, torch.Generator().manual_seed(seed))

    def exported(self) -> ExportedProgram:
        """Traced, with a batch of 1 to the most."""
        inputs = self.inputs(min(3, self.shape.batch))
        batch = Dim("batch", min=1, max=self.shape.batch)
        axes = [{} if place < self.held else {0: batch} for place in range(len(inputs))]
        shapes = tuple(
            tuple(axis for _ in each) if isinstance(each, tuple) else axis
            for each, axis in zip(inputs, axes, strict=True)
        )
        with torch.no_grad():
            return torch.export.export(self.module, inputs, dynamic_shapes=shapes)


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes that a program is compiled for."""

    batch: int  # most windows or rows of one call
    window: int  # W
    pages: int  # P


def programs(model: CMATH, shape: Shape, precision: Precision = "fp32") -> dict[ProgramName, Program]:
    """The programs of a model, in this precision; the model stays as it is."""
    if precision == "fp16":
        model = halved(model)
    made: dict[ProgramName, nn.Module] = {"window": FullWindow(model)}
    if can_remember(model.config):
        made |= {"remember": Remember(model), "ask": Ask(model)}
    return {name: Program(name, module.eval().requires_grad_(False), shape) for name, module in made.items()}


def halved(model: CMATH) -> CMATH:
    """A copy in float16, but for its norms: sums of squares leave float16's range."""
    half = copy.deepcopy(model).half()
    for module in list(half.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.LayerNorm):
                setattr(module, name, _NormInFloat32(child.float()))
    return half


class _NormInFloat32(nn.Module):
    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, rows: Tensor) -> Tensor:
        normed: Tensor = self.norm(rows.float())
        return normed.to(rows.dtype)


def page_shapes(config: CMATHConfig) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Of one page: compressed [M, d], keys and values [G, 2, h, e]."""
    count, groups = len(config.dims), len(config.centre_indices) * len(config.dims)
    return (count, config.width), (groups, 2, config.heads, config.width // config.heads)


def _inputs(program: Program, batch: int, random: torch.Generator) -> tuple[Any, ...]:
    model = program.module.model
    assert isinstance(model, CMATH)
    config, shape = model.config, program.shape
    kind = next(model.parameters()).dtype

    def floats(*size: int) -> Tensor:
        return torch.randn(size, generator=random).to(kind)

    def flags(*size: int) -> Tensor:
        return torch.rand(size, generator=random) < 0.7

    if program.name == "ask":
        compressed, keys_values = page_shapes(config)
        place = torch.randint(shape.pages, (batch, shape.window), generator=random)
        allowed = flags(batch, shape.window, len(config.dims))
        allowed[:, -1, 0] = True
        distance = torch.arange(shape.window - 1, -1, -1).repeat(batch, 1)
        pages = floats(shape.pages, *compressed), floats(shape.pages, *keys_values)
        return *pages, place, allowed, flags(batch, shape.window), distance
    rows = config.halo + (1 if program.name == "remember" else shape.window)
    features = tuple(floats(batch, rows, dim) for _, dim in config.dims)
    presence = flags(batch, rows, len(config.dims))
    presence[:, -1, 0] = True
    mask = torch.ones(batch, rows, dtype=torch.bool)
    if program.name == "remember":
        return features, presence, mask
    return features, presence, mask, torch.randint(3, (batch, rows), generator=random)
