"""CMATH for live use: the answer for the newest utterance of a window, and nothing that it does not need.

The same weights and the same numbers as `CMATH.explain` has in its last row, at a cost of O(W d + d^2) where
that one's is O(W d^2): keys and values of an utterance depend on that utterance alone (and on the halo of its
convolutions), so they are computed once and remembered. Exact because positions and speakers enter as biases
(R7) and a live model has one layer.

Letters: as in `cmath_stream.model`; G = A M pairs of a centre and a modality that it asks, H = halo + 1 rows
that one utterance's convolutions look at, e = d / h, R pages: what is remembered, an utterance each.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from cmath_stream.model import (
    CMATH,
    DISTANCE_LIMIT,
    Attention,
    CMATHConfig,
    CrossModalLayer,
    CrossModalStack,
    PerModality,
)


def can_remember(config: CMATHConfig) -> bool:
    """Whether an utterance's keys and values never change: causal, one layer, a window."""
    return config.causal and config.layers == 1 and config.window is not None


class Pages(NamedTuple):
    """All that later steps need of R utterances."""

    compressed: Tensor  # [R, M, d], R3's Z
    keys_values: Tensor  # [R, G, 2, h, e]


class Window(NamedTuple):
    """Which pages B windows are made of. Slots in any order, but the newest last; it must be there.

    What a slot that is not allowed holds makes no difference, as long as it is finite.
    """

    place: Tensor  # [B, W] int64, index into pages
    allowed: Tensor  # [B, W, M] bool: there, and of this modality
    same_speaker: Tensor  # [B, W] bool, as the newest
    distance: Tensor  # [B, W] int64, utterances back from the newest


class Remember(nn.Module):
    """Utterances -> their pages."""

    def __init__(self, model: CMATH) -> None:
        """Shares the weights of `model`. Raises ValueError for one whose past changes as it goes on."""
        super().__init__()
        _require_memory(model.config)
        self.model = model

    def forward(self, features: PerModality, presence: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """B utterances, each behind its halo, M x [B, H, D_m], [B, H, M], [B, H] bool -> `Pages` of B."""
        compressed = [rows[:, -1] for rows in _compressed(self.model, features, presence, mask)]
        return torch.stack(compressed, dim=1), _keys_values(self.model, compressed)


class Ask(nn.Module):
    """Windows of pages -> the answers for their newest utterances."""

    def __init__(self, model: CMATH) -> None:
        """Shares the weights of `model`. Raises ValueError for one whose past changes as it goes on."""
        super().__init__()
        _require_memory(model.config)
        self.model = model

    def forward(
        self,
        compressed: Tensor,
        keys_values: Tensor,
        place: Tensor,
        allowed: Tensor,
        same_speaker: Tensor,
        distance: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """`Pages` and a `Window` of them -> logits [B, C], centre logits [B, A, C]."""
        newest = compressed[place[:, -1]].unbind(1)
        return _answer(self.model, newest, keys_values, place, allowed, same_speaker, distance)


class FullWindow(nn.Module):
    """Both at once and nothing remembered: all rows of a window are compressed anew, the newest alone asks.

    Of a model that cannot remember, it is the last row of the full pass.
    """

    def __init__(self, model: CMATH) -> None:
        """Shares the weights of `model`."""
        super().__init__()
        self.model = model
        self.alone = can_remember(model.config)

    def forward(
        self, features: PerModality, presence: Tensor, mask: Tensor, speaker: Tensor
    ) -> tuple[Tensor, Tensor]:
        """As `CMATH.explain`, the window behind its halo -> logits [B, C], centre logits [B, A, C]."""
        if not self.alone:
            logits, centres = self.model.explain(features, presence, mask, speaker)
            return logits[:, -1], centres[:, -1]
        halo = self.model.config.halo
        rows = [each[:, halo:] for each in _compressed(self.model, features, presence, mask)]
        allowed = (presence & mask[..., None])[:, halo:]
        b, n = allowed.shape[:2]
        keys_values = _keys_values(self.model, [each.flatten(0, 1) for each in rows])
        place = torch.arange(b * n, device=mask.device).view(b, n)
        same_speaker = speaker[:, halo:] == speaker[:, -1:]
        distance = torch.arange(n - 1, -1, -1, device=mask.device).expand(b, -1)
        newest = tuple(each[:, -1] for each in rows)
        return _answer(self.model, newest, keys_values, place, allowed, same_speaker, distance)


def _require_memory(config: CMATHConfig) -> None:
    if not can_remember(config):
        raise ValueError("only a causal model of one layer with a window can remember its rows")


def _compressed(model: CMATH, features: PerModality, presence: Tensor, mask: Tensor) -> list[Tensor]:
    """R1-R3, M x [B, N, d]."""
    real = presence & mask[..., None]
    return [
        compressor(raw, real[..., m], mask)[1][-1]
        for m, (compressor, raw) in enumerate(zip(model.compressors, features, strict=True))
    ]


def _layer(model: CMATH, place: int) -> CrossModalLayer:
    stack = model.stacks[place % len(model.stacks)]
    assert isinstance(stack, CrossModalStack)
    layer = stack.layers[0]
    assert isinstance(layer, CrossModalLayer)
    return layer


def _asked(layer: CrossModalLayer, index: int, count: int) -> list[tuple[int, nn.LayerNorm, Attention]]:
    """Modality, norm and attention of each pair of a centre, in the order of G: itself, then the others."""
    others = [m for m in range(count) if m != index]
    alone = layer.attend_others if layer.attend_others else [layer.attend_self] * len(others)
    pairs = [(index, layer.norm_self, layer.attend_self)]
    pairs += zip(others, layer.norm_others, alone, strict=True)  # type: ignore[arg-type]
    return pairs


def _keys_values(model: CMATH, compressed: list[Tensor]) -> Tensor:
    """What every centre's attention reads of rows, M x [R, d] -> [R, G, 2, h, e]."""
    pairs = [
        attend.key_value(norm(compressed[m]))
        for place, index in enumerate(model.config.centre_indices)
        for m, norm, attend in _asked(_layer(model, place), index, len(compressed))
    ]
    both = torch.stack(pairs, dim=1)  # [R, G, 2 d]
    return both.view(*both.shape[:2], 2, model.config.heads, -1)


class _Seen(NamedTuple):
    """What the newest utterance may look at."""

    keys_values: Tensor  # [R, G, 2, h, e]
    place: Tensor  # [B, W] int64, which of them
    allowed: Tensor  # [B, W, M] bool
    bias: Tensor  # [B, W] int64, index of R7's biases: by distance, other speakers' first

    def part(self, group: int, which: Literal[0, 1]) -> Tensor:
        """Keys (0) or values (1) of a pair of G, [B, W, h, e].

        Taken from all pages at once, so that a compiler reads them where they lie and copies nothing.
        """
        parts = self.keys_values.flatten(0, 2)  # [R G 2, h, e]
        count = 2 * self.keys_values.shape[1]
        return parts[self.place * count + (2 * group + which)]


def _answer(
    model: CMATH,
    newest: tuple[Tensor, ...],
    keys_values: Tensor,
    place: Tensor,
    allowed: Tensor,
    same_speaker: Tensor,
    distance: Tensor,
) -> tuple[Tensor, Tensor]:
    """R7-R19 of one row, M x [B, d] -> logits [B, C], centre logits [B, A, C]."""
    bias = distance.clamp(max=DISTANCE_LIMIT) + same_speaker * (DISTANCE_LIMIT + 1)
    seen = _Seen(keys_values, place, allowed, bias)
    fine = [
        _fine(model, place, index, newest, seen) for place, index in enumerate(model.config.centre_indices)
    ]
    mean, _, hidden = model.fuse(fine, allowed[:, -1])
    return model.answer(mean, hidden), model.centre_logits(fine)


def _fine(model: CMATH, place: int, index: int, newest: tuple[Tensor, ...], seen: _Seen) -> Tensor:
    """F_c of one row, [B, d]."""
    layer, centre = _layer(model, place), newest[index]
    modalities = [m for m, _, _ in _asked(layer, index, len(newest))]
    groups = list(enumerate(modalities, start=place * len(newest)))  # (place in G, modality)
    normed = layer.norm_self(centre)
    if not layer.attend_others:  # joint, symmetric, or a single modality
        state = centre + _attend(layer.attend_self, normed, groups, seen)
    else:
        state = centre + _attend(layer.attend_self, normed, groups[:1], seen)  # R8
        query = layer.norm_query(state)
        moved = state
        for attend, gate, group in zip(layer.attend_others, layer.gates, groups[1:], strict=True):
            assert isinstance(attend, Attention)
            answer = _attend(attend, query, [group], seen)  # R9
            trust = torch.sigmoid(gate(torch.cat([state, answer], dim=-1)))  # R10
            moved = moved + trust * answer  # R11
        state = moved
    state = state + layer.forward_net(layer.norm_forward(state))  # R12
    out: Tensor = model.stacks[place % len(model.stacks)].norm(state)  # type: ignore[operator]
    return out  # R13


def _attend(attend: Attention, asking: Tensor, groups: list[tuple[int, int]], seen: _Seen) -> Tensor:
    """A query a window, [B, d], of its rows -> [B, d].

    Sums of products and no matrix products: of one query these read every key and value once, wherever it
    lies, where a matrix product would have them copied side by side first.
    """
    query = attend.query(asking).view(asking.shape[0], 1, attend.heads, -1)  # [B, 1, h, e]
    query = query / math.sqrt(query.shape[-1])
    others = attend.position[:, DISTANCE_LIMIT:].t()  # [distances, h]: none looks ahead
    bias = torch.cat([others, others + attend.speaker.flatten()])[seen.bias]  # [B, W, h]
    keys = [seen.part(place, 0) for place, _ in groups]  # [B, W, h, e] each
    logits = torch.cat([(query * key).sum(-1) + bias for key in keys], dim=1)  # [B, S, h]
    may = torch.cat([seen.allowed[:, :, m, None] for _, m in groups], dim=1)  # [B, S, 1]
    # Finite, so that a row without keys stays a number; in float32 whatever the weights are.
    logits = logits.float().masked_fill(~may, torch.finfo(torch.float32).min)
    weights = logits.softmax(dim=1).to(query.dtype).chunk(len(groups), dim=1)  # [B, W, h] each
    mixed = sum(
        (weight[..., None] * seen.part(place, 1)).sum(1)
        for weight, (place, _) in zip(weights, groups, strict=True)
    )
    assert isinstance(mixed, Tensor)
    out = attend.out(mixed.flatten(1))  # [B, d]
    return torch.where(may.any(dim=1), out, torch.zeros_like(out))
