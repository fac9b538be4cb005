"""The pictures of the results page: numbers in, PNG out, the same bytes for the same numbers.

matplotlib without pyplot: no global state. Colours are told apart by people with any of the common
colour-vision deficiencies, and each line has a marker of its own as well.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image

from bench.raw_results import Calibration, Confusion

DPI = 110
_INK, _FAINT, _GRID = "#222222", "#6E6E6E", "#E4E4E4"
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#222222")  # Okabe & Ito
_MARKERS = "osD^vPX"
_ACROSS = 4  # reliability diagrams in a row
FEW = 10  # utterances in a bin, below which its accuracy says next to nothing
_SHADES = 256  # of a picture: the most that one byte a pixel can tell, and half the size
_STYLE: dict[Any, Any] = {
    "font.size": 10,
    "text.color": _INK,
    "axes.edgecolor": _FAINT,
    "axes.labelcolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.axisbelow": True,
    "xtick.color": _FAINT,
    "ytick.color": _FAINT,
    "text.parse_math": False,  # a name may hold a $
    "legend.frameon": False,
}


class Point(NamedTuple):
    """One place on a curve, in per cent."""

    x: str  # a category: "16", "full"
    mean: float
    sd: float


def order(x: str) -> float:
    """Where a category stands among the others."""
    return math.inf if x == "full" else float(x)


def curves(lines: Mapping[str, Sequence[Point]], x: str, y: str, path: Path) -> None:
    """Each line of `lines` over categories: numbers as they grow, then `full`."""
    places = sorted({point.x for line in lines.values() for point in line}, key=order)
    with rc_context(_STYLE):
        figure = Figure(figsize=(6.6, 3.6 + 0.2 * (len(lines) - 1)), dpi=DPI, layout="constrained")
        axes = figure.add_subplot()
        for number, (name, line) in enumerate(lines.items()):
            axes.errorbar(
                [places.index(point.x) + 0.06 * (number - (len(lines) - 1) / 2) for point in line],
                [point.mean for point in line],
                yerr=[point.sd for point in line],
                color=_COLOURS[number % len(_COLOURS)],
                marker=_MARKERS[number % len(_MARKERS)],
                label=name,
                capsize=3,
                elinewidth=1,
                linewidth=1.8,
                markersize=6,
            )
        axes.set_xticks(range(len(places)), places)
        axes.set_xlim(-0.4, len(places) - 0.6)
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        axes.grid(axis="y", color=_GRID)
        if len(lines) > 1:
            figure.legend(loc="outside upper center", ncols=2)
        _save(figure, path)


def reliability(patterns: Mapping[str, Calibration], path: Path) -> None:
    """A small diagram a pattern: accuracy over confidence, and under it how many utterances are where.

    A bar is one standard error; bins of fewer than ten utterances are hollow.
    """
    across = min(_ACROSS, len(patterns))
    down = math.ceil(len(patterns) / across)
    with rc_context(_STYLE):
        figure = Figure(
            figsize=(max(2.35 * across + 0.3, 3.2), 3.55 * down + 0.1), dpi=DPI, layout="constrained"
        )
        grid = figure.add_gridspec(
            2 * down, across, height_ratios=[2.3, 0.75] * down, hspace=0.03, wspace=0.03
        )
        for number, (name, curve) in enumerate(patterns.items()):
            row, column = divmod(number, across)
            above = figure.add_subplot(grid[2 * row, column])
            below = figure.add_subplot(grid[2 * row + 1, column], sharex=above)
            _reliability(above, below, name, curve)
            if column == 0:
                above.set_ylabel("accuracy, %")
                below.set_ylabel("count")
        _save(figure, path)


def _reliability(above: Axes, below: Axes, name: str, curve: Calibration) -> None:
    bins = len(curve.count)
    middles = [100 * (place + 0.5) / bins for place in range(bins)]
    met = [
        (100 * confidence, 100 * accuracy, count)
        for confidence, accuracy, count in zip(curve.confidence, curve.accuracy, curve.count, strict=True)
        if confidence is not None and accuracy is not None
    ]
    above.plot([0, 100], [0, 100], color=_FAINT, linestyle="--", linewidth=1)
    many = np.array([bin_ for bin_ in met if bin_[2] >= FEW]).reshape(-1, 3)
    few = np.array([bin_ for bin_ in met if bin_[2] < FEW]).reshape(-1, 3)
    confidences, accuracies, counts = many.T
    error = np.sqrt(accuracies * (100 - accuracies) / np.maximum(counts, 1))
    above.errorbar(
        confidences, accuracies, yerr=error, color=_COLOURS[0], marker="o", markersize=4, linewidth=1.5
    )
    above.plot(few[:, 0], few[:, 1], "o", color=_FAINT, markerfacecolor="white", markersize=4)
    above.set_title(name)
    above.text(
        0.05,
        0.96,
        f"ECE {100 * curve.ece:.1f} %\n({100 * curve.low:.1f} to {100 * curve.high:.1f})\n"
        f"floor {100 * curve.floor:.1f}",
        transform=above.transAxes,
        va="top",
        fontsize=8.5,
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1.5},
    )
    above.set(xlim=(-3, 103), ylim=(-3, 103), xticks=(0, 50, 100), yticks=(0, 50, 100))
    above.tick_params(labelbottom=False)
    above.grid(color=_GRID)
    below.bar(middles, curve.count, width=100 / bins * 0.85, color="#8FB8D8")
    below.yaxis.set_major_locator(MaxNLocator(nbins=2, integer=True))
    below.tick_params(axis="y", labelsize=8)
    below.set_xlabel("confidence, %")


def risk_coverage(patterns: Mapping[str, Sequence[tuple[float, float]]], path: Path) -> None:
    """Share of errors among the answered, over the share answered, a line a pattern."""
    with rc_context(_STYLE):
        figure = Figure(figsize=(7.6, 3.8), dpi=DPI, layout="constrained")
        axes = figure.add_subplot()
        for number, (name, points) in enumerate(patterns.items()):
            coverage, risk = zip(*points, strict=True)
            axes.plot(
                [100 * share for share in coverage],
                [100 * share for share in risk],
                color=_COLOURS[number % len(_COLOURS)],
                marker=_MARKERS[number % len(_MARKERS)],
                markevery=(0.03 + 0.01 * number, 0.14),
                markersize=5,
                linewidth=1.6,
                label=name,
            )
        axes.set_xlim(0, 100)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("answered, most confident first, %")
        axes.set_ylabel("wrong among the answered, %")
        axes.grid(color=_GRID)
        figure.legend(loc="outside right center")
        _save(figure, path)


def confusion(matrix: Confusion, path: Path) -> None:
    """Rows are what is true; a cell is as dark as its share of the row, and says its count."""
    counts = np.array(matrix.counts, dtype=np.float64)  # [C, C]
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    classes = len(matrix.labels)
    with rc_context(_STYLE):
        side = max(0.58 * classes, 1.6)
        figure = Figure(figsize=(side + 2.0, side + 1.2), dpi=DPI, layout="constrained")
        axes = figure.add_subplot()
        image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for row in range(classes):
            for column in range(classes):
                ink = "white" if shares[row, column] > 0.55 else _INK
                axes.text(
                    column,
                    row,
                    f"{matrix.counts[row][column]}",
                    ha="center",
                    va="center",
                    color=ink,
                    fontsize=9.5,
                )
        axes.set_xticks(range(classes), matrix.labels, rotation=40, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(classes), matrix.labels)
        axes.tick_params(length=0, colors=_INK)
        axes.set_xlabel("said")
        axes.set_ylabel("true")
        axes.spines[:].set_visible(False)
        bar = figure.colorbar(image, ax=axes, shrink=0.8, ticks=(0, 0.5, 1))
        bar.ax.set_yticklabels(("0", "50", "100 %"))
        bar.ax.set_title("of its row", fontsize=9, fontweight="normal")
        bar.outline.set_visible(False)
        _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    """With few shades, and without the version of matplotlib: small, and nothing changes but the numbers."""
    drawn = BytesIO()
    figure.savefig(drawn, format="png")
    picture = Image.open(drawn).convert("RGB")
    picture.quantize(_SHADES, dither=Image.Dither.NONE).save(path, format="png", optimize=True)
