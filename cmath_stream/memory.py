"""Which utterance is remembered on which page: the engine's store of rows, without its tensors.

A page belongs to an utterance's row *behind its halo*, by identity: rows never change, so a revised or late
utterance is another row, and it and those whose convolutions look at it are simply not found any more. What
was not asked for longest gives way, so memory is bounded whatever the sessions do, and what gave way is
computed again where it is asked for.
"""

from __future__ import annotations

from collections import OrderedDict

from cmath_stream.window import Row

Span = tuple[Row, ...]  # an utterance's row, the last, behind the rows that its convolutions look at


class Pages:
    """The pages 0 .. size - 1."""

    def __init__(self, size: int) -> None:
        self._free = list(range(size - 1, -1, -1))
        # The span is kept beside its page: while it is, no other row can have its identity.
        self._kept: OrderedDict[tuple[int, ...], tuple[int, Span]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def find(self, span: Span) -> int | None:
        """The page of a row; it now counts as asked for last."""
        key = tuple(map(id, span))
        kept = self._kept.get(key)
        if kept is None:
            return None
        self._kept.move_to_end(key)
        return kept[0]

    def take(self, span: Span) -> int:
        """A page for a row that has none: a free one, or that of the row not asked for longest."""
        page = self._free.pop() if self._free else self._kept.popitem(last=False)[1][0]
        self._kept[tuple(map(id, span))] = (page, span)
        return page
