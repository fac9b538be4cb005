"""A program on a card without a compiler: its kernels recorded once for each size of batch, then replayed.

A step of this model is hundreds of small kernels; started one by one they cost the processor ten times what
they cost the card. A recording (a CUDA graph) is started as one. It is fixed to addresses and shapes, so
inputs are copied into buffers of its own, and a batch is padded to the next power of two.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

_BEFORE_RECORDING = 3  # runs, in which libraries choose their kernels and take their memory


@dataclass(frozen=True, slots=True)
class _Recording:
    graph: torch.cuda.CUDAGraph
    buffers: tuple[Tensor, ...]  # page-locked, where the batch is put; the graph copies them to the card
    inputs: tuple[Tensor, ...]  # there; never read here, but held: the graph writes to their addresses
    outputs: tuple[Tensor, ...]  # on the card
    copied: torch.cuda.Event  # after which the buffers may be written again


class Recorded:
    """Calls of one program, each a replay. All from one thread."""

    def __init__(self, module: Callable[..., tuple[Tensor, ...]], batched: Sequence[bool], most: int) -> None:
        """`module` runs on the card; `batched` says of each tensor of its inputs, as flattened, whether its
        first axis is the batch, of at most `most`. Those that are not must lie on the card already: they are
        read where they are."""
        self._module = module
        self._batched = tuple(batched)
        self._most = most
        self._recordings: dict[int, _Recording] = {}
        self._fixed: tuple[Tensor, ...] = ()

    def __call__(self, *inputs: object) -> tuple[Tensor, ...]:
        """Outputs on the card, the caller's own."""
        leaves, structure = pytree.tree_flatten(inputs)
        rows = [leaf for leaf, each in zip(leaves, self._batched, strict=True) if each]
        fixed = tuple(leaf.cuda() for leaf, each in zip(leaves, self._batched, strict=True) if not each)
        if [each.data_ptr() for each in fixed] != [each.data_ptr() for each in self._fixed]:
            self._recordings.clear()
            self._fixed = fixed  # held: what a recording reads must not be freed
        batch = len(rows[0])
        size = bucket(batch, self._most)
        recording = self._recordings.get(size)
        if recording is None:
            recording = self._recordings[size] = self._record(rows, size, structure)
        recording.copied.synchronize()
        for buffer, row in zip(recording.buffers, rows, strict=True):
            buffer[:batch].copy_(row)
        recording.graph.replay()
        recording.copied.record()
        return tuple(each[:batch].clone() for each in recording.outputs)

    def _record(self, rows: Sequence[Tensor], size: int, structure: pytree.TreeSpec) -> _Recording:
        buffers = tuple(_padded(each, size).pin_memory() for each in rows)
        on_card = tuple(each.cuda() for each in buffers)
        fixed, batch = iter(self._fixed), iter(on_card)
        leaves = [next(batch if each else fixed) for each in self._batched]
        inputs = pytree.tree_unflatten(leaves, structure)
        # cuDNN's convolutions would take TF32, which is off by 1e-3.
        exact = torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
        with torch.inference_mode(), exact:
            aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            aside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(aside):
                for _ in range(_BEFORE_RECORDING):
                    self._module(*inputs)
            torch.cuda.current_stream().wait_stream(aside)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                for there, here in zip(on_card, buffers, strict=True):
                    there.copy_(here, non_blocking=True)
                outputs = tuple(self._module(*inputs))
        return _Recording(graph, buffers, on_card, outputs, torch.cuda.Event())  # type: ignore[no-untyped-call]


def bucket(batch: int, most: int) -> int:
    """The size that a batch is padded to: the next power of two, `most` at most."""
    return min(most, 1 << (batch - 1).bit_length())


def buckets(most: int) -> list[int]:
    """Every size that occurs."""
    return sorted({bucket(batch, most) for batch in range(1, most + 1)})


def _padded(rows: Tensor, size: int) -> Tensor:
    """With its first row again and again: inputs that make sense, whose answers nobody reads."""
    return torch.cat([rows, rows[:1].expand(size - len(rows), *rows.shape[1:])]).contiguous()
