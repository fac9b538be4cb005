"""Which emotion was taken for which: a matrix of counts as a picture. Arrays in, PNG out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

_CELL_IN, _ROOM_IN, _DPI = 0.62, 1.7, 120


def counts(truth: NDArray[np.int64], said: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """[n], [n] → [C true, C said]."""
    table = np.zeros((classes, classes), np.int64)
    np.add.at(table, (truth, said), 1)
    return table


def draw(table: NDArray[np.int64], labels: Sequence[str], title: str, path: Path) -> None:
    """[C, C] counts as a PNG file: numbers in the cells, shades by the share of the row."""
    share = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    size_in = _ROOM_IN + _CELL_IN * len(labels)
    figure = Figure(figsize=(size_in, size_in), dpi=_DPI, facecolor="white", layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(share, cmap="Blues", vmin=0.0, vmax=1.0)
    axes.set_xticks(range(len(labels)), labels, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(labels)), labels)
    axes.set_xlabel("replayed as")
    axes.set_ylabel("labelled as")
    axes.set_title(title, fontsize=10, parse_math=False)
    for (row, column), count in np.ndenumerate(table):
        colour = "white" if share[row, column] > 0.55 else "#222222"
        axes.text(column, row, str(count), ha="center", va="center", fontsize=8, color=colour)
    figure.savefig(path, format="png", metadata={"Software": None})
