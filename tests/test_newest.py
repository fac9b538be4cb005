"""One row's answer, from pages or from a full window, is the last row of the full pass, to 1e-5."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from cmath_stream.model import CMATH, CMATHConfig
from cmath_stream.newest import Ask, FullWindow, Remember, can_remember

DIMS = (("text", 12), ("audio", 5), ("visual", 7))
SHAPES: list[dict[str, Any]] = [
    *(
        {"kernel": kernel, "convolutions": convolutions, "attention": attention, "fusion": fusion}
        for (kernel, convolutions), attention, fusion in product(
            [(1, 1), (3, 2)],
            ["asymmetric", "joint", "symmetric"],
            ["variational", "experts", "concatenation"],
        )
    ),
    {"centres": ("text", "audio"), "residual": True},
    {"window": 40},  # beyond the furthest distance that has a bias of its own
]
Batch = tuple[tuple[Tensor, ...], Tensor, Tensor, Tensor]


def model_of(**changes: Any) -> CMATH:
    torch.manual_seed(0)
    model = CMATH(CMATHConfig(dims=DIMS, width=16, heads=4, **({"window": 6} | changes)), decoder=False)
    for parameter in model.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))  # biases begin at zero, and would hide faults
    return model.eval().requires_grad_(False)


def windows(model: CMATH, batch: int = 3) -> Batch:
    """Windows behind their halo; some modalities absent, one session young, absent rows full of NaN."""
    rows = model.config.halo + (model.config.window or 0)
    presence = torch.rand(batch, rows, len(DIMS)) > 0.3
    presence[:, -1, 0] = True
    mask = torch.ones(batch, rows, dtype=torch.bool)
    mask[0, :3] = False
    there = presence & mask[..., None]
    features = tuple(
        torch.where(there[..., m, None], torch.randn(batch, rows, dim), torch.nan)
        for m, (_, dim) in enumerate(DIMS)
    )
    return features, presence, mask, torch.randint(3, (batch, rows))


def from_pages(model: CMATH, given: Batch, order: list[int]) -> tuple[Tensor, Tensor]:
    """The answers from pages; the slots of the window filled in this order of its rows."""
    features, presence, mask, speaker = given
    halo, remember = model.config.halo, Remember(model)
    span = [slice(at, at + halo + 1) for at in range(mask.shape[1] - halo)]
    kept = [remember(tuple(each[:, s] for each in features), presence[:, s], mask[:, s]) for s in span]
    batch, count = len(mask), len(span)
    place = torch.tensor([[at * batch + b for at in order] for b in range(batch)])
    newest = count - 1
    rows = [halo + at for at in order]
    answer: tuple[Tensor, Tensor] = Ask(model)(
        torch.cat([compressed for compressed, _ in kept]),
        torch.cat([keys_values for _, keys_values in kept]),
        place,
        (presence & mask[..., None])[:, rows],
        speaker[:, rows] == speaker[:, -1:],
        torch.tensor([newest - at for at in order]).repeat(batch, 1),
    )
    return answer


@pytest.mark.parametrize("changes", SHAPES, ids=str)
def test_one_row_is_the_last_row_of_all(changes: dict[str, Any]) -> None:
    model = model_of(**changes)
    given = windows(model)
    logits, alone = model.explain(*given)
    newest = (model.config.window or 0) - 1
    shuffled = [*torch.randperm(newest).tolist(), newest]
    for said in (FullWindow(model)(*given), from_pages(model, given, shuffled)):
        torch.testing.assert_close(said[0], logits[:, -1], atol=1e-5, rtol=0.0)
        torch.testing.assert_close(said[1], alone[:, -1], atol=1e-5, rtol=0.0)


def test_what_is_not_allowed_changes_no_bit() -> None:
    """A slot may point at any page, as a short session's empty slots do."""
    model = model_of()
    compressed, keys_values = torch.randn(9, 3, 16), torch.randn(9, 9, 2, 4, 4)
    allowed = torch.rand(2, 6, 3) > 0.5
    allowed[:, :2] = False
    rest = torch.rand(2, 6) > 0.5, torch.arange(5, -1, -1).repeat(2, 1)
    place = torch.randint(9, (2, 6))
    elsewhere = place.clone()
    elsewhere[:, :2] = (place[:, :2] + 1) % 9
    ask = Ask(model)
    for one, other in zip(
        ask(compressed, keys_values, place, allowed, *rest),
        ask(compressed, keys_values, elsewhere, allowed, *rest),
        strict=True,
    ):
        assert torch.equal(one, other)


@pytest.mark.parametrize("changes", [{"layers": 2}, {"causal": False}, {"window": None}], ids=str)
def test_a_model_whose_past_changes_cannot_remember(changes: dict[str, Any]) -> None:
    model = model_of(**changes)
    assert not can_remember(model.config)
    for program in (Remember, Ask):
        with pytest.raises(ValueError, match="cannot|only a causal"):
            program(model)
    given = windows(model_of())
    torch.testing.assert_close(FullWindow(model)(*given)[0], model.explain(*given)[0][:, -1])
