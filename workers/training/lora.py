"""A sentence encoder while it learns: frozen, with low-rank changes to the linear layers of its last blocks.

What is learned is what `workers.text_adapter` stores and folds in. Letters: B utterances, T tokens, D numbers
of an embedding.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as fn

from workers.text_adapter import transformer

_TOGETHER = 24  # utterances of one pass, like lengths together: padding is most of the work otherwise


class LowRank(nn.Module):
    """A frozen linear layer and what is learned on top of it."""

    def __init__(self, base: nn.Linear, rank: int, dropout: float) -> None:
        super().__init__()
        self.base = base
        self.dropout = nn.Dropout(dropout)
        self.down = nn.Parameter(torch.randn(rank, base.in_features) / math.sqrt(base.in_features))
        self.up = nn.Parameter(torch.zeros(base.out_features, rank))

    def forward(self, rows: Tensor) -> Tensor:
        """[.., in] -> [.., out]."""
        out: Tensor = self.base(rows)
        return out + fn.linear(fn.linear(self.dropout(rows), self.down), self.up)


class LearningEncoder(nn.Module):
    """Texts -> embeddings of unit length, the mean over tokens, as the sentence encoder makes them."""

    def __init__(self, encoder: Any, *, rank: int, layers: int, dropout: float, max_tokens: int = 64) -> None:
        super().__init__()
        self._tokenizer, self._max_tokens = encoder.tokenizer, max_tokens
        self.inner = copy.deepcopy(transformer(encoder)).requires_grad_(False)
        blocks: Any = self.inner.get_submodule("encoder.layer")
        self._changed: dict[str, LowRank] = {}
        for place in range(max(0, len(blocks) - layers), len(blocks)):
            for name, layer in list(blocks[place].named_modules()):
                if isinstance(layer, nn.Linear):
                    above, _, last = name.rpartition(".")
                    low = LowRank(layer, rank, dropout)
                    setattr(blocks[place].get_submodule(above), last, low)
                    self._changed[f"encoder.layer.{place}.{name}"] = low

    def forward(self, texts: list[str]) -> Tensor:
        """B texts -> [B, D]."""
        order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
        parts = [
            self._embed([texts[row] for row in order[at : at + _TOGETHER]])
            for at in range(0, len(order), _TOGETHER)
        ]
        return torch.cat(parts)[torch.tensor(order).argsort()]

    def _embed(self, texts: list[str]) -> Tensor:
        tokens = self._tokenizer(
            texts, padding=True, truncation=True, max_length=self._max_tokens, return_tensors="pt"
        )
        states = self.inner(**tokens).last_hidden_state.float()  # [B, T, D]
        real = tokens["attention_mask"][..., None].float()
        return fn.normalize((states * real).sum(1) / real.sum(1), dim=1)

    def learned(self) -> dict[str, Tensor]:
        """The factors by layer, `LAYER.up` and `LAYER.down`, as `text_adapter.save` takes them."""
        return {
            f"{name}.{key}": getattr(low, key)
            for name, low in self._changed.items()
            for key in ("up", "down")
        }


def factors(tensors: dict[str, Tensor]) -> dict[str, NDArray[np.float32]]:
    """The same as arrays."""
    return {key: value.detach().numpy() for key, value in tensors.items()}
