"""Figures as words and Markdown tables: what a set of result rows says, in per cent, with its spread."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Iterable, Sequence

from bench.raw_results import Contrast, Lead, Published, RawResults, Row

TITLES = {"accuracy": "accuracy", "weighted_f1": "weighted F1", "macro_f1": "macro F1", "ece": "ECE"}
BASELINES = ("majority", "concat-MLP")  # how their names begin
CHOSEN_ON_TEST = "chosen on test"  # a row that says so stands beside the papers; it is nobody's best

_MODALITIES = (r"words|text", r"audio|voice", r"visual|face|video")


def mean(row: Row, metric: str) -> float:
    """A share of 1, over the seeds."""
    return statistics.fmean(getattr(score, metric) for score in row.scores)


def deviation(row: Row, metric: str) -> float | None:
    """Standard deviation over the seeds; None = there was but one."""
    values = [getattr(score, metric) for score in row.scores]
    return statistics.stdev(values) if len(values) > 1 else None


def headline(raw: RawResults) -> Row | None:
    """The row of the main table that stands for our model: chosen by name and place, never by its figures.

    The first CMATH row that knows several modalities, else the first CMATH row, else the first of ours.
    """
    rows = [row for row in raw.group("main") if not row.name.startswith(BASELINES) and not _on_test(row)]
    return min(
        rows, key=lambda row: (not row.name.startswith("CMATH"), knows_one_modality(row)), default=None
    )


def best(rows: Iterable[Row], metric: str) -> Row | None:
    """The row of the highest mean, but for those whose epoch was chosen on test."""
    return max((row for row in rows if not _on_test(row)), key=lambda row: mean(row, metric), default=None)


def knows_one_modality(row: Row) -> bool:
    """Whether the name of the row speaks of words, voice or face, and of one of them only."""
    return sum(re.search(rf"\b(?:{names})\b", row.name, re.I) is not None for names in _MODALITIES) == 1


def rows_table(rows: Sequence[Row], lead: Lead, *, bold: bool = False, reference: Row | None = None) -> str:
    """All four figures of each row, the lead first; the best row `bold`; the difference to a `reference`."""
    metrics = [lead, *(metric for metric in TITLES if metric != lead)]
    notes, top = any(row.note for row in rows), best(rows, lead) if bold else None
    head = ["", *(TITLES[metric] for metric in metrics), "seeds"]
    head[2:2] = ["difference"] if reference else []
    lines = []
    for row in rows:
        cells = [_cell(row.name), *(spread(row, metric) for metric in metrics), str(len(row.scores))]
        if row is top:
            cells[:2] = [f"**{cell}**" for cell in cells[:2]]
        cells[2:2] = [_difference(row, reference, lead)] if reference else []
        lines.append(cells + [_cell(row.note)] * notes)
    return table(head + ["note"] * notes, lines)


def published_table(ours: Row | None, others: Sequence[Published]) -> str:
    """The figures of others, and ours."""
    metrics = [m for m in ("accuracy", "weighted_f1") if any(getattr(one, m) is not None for one in others)]
    lines = [
        [_cell(one.name), *(per_cent(getattr(one, m)) for m in metrics), _cell(one.differs)] for one in others
    ]
    if ours:
        lines.append([f"**{_cell(ours.name)}** (ours)", *(spread(ours, m) for m in metrics), ""])
    return table(["", *(TITLES[m] for m in metrics), "what differs from ours"], lines)


def contrast_words(one: Contrast) -> str:
    """A comparison as a sentence; the interval decides the verb."""
    unit = f"points of {TITLES[one.metric]}"
    interval = f"95 % interval {points(one.low)} to {points(one.high)}, resampled by {one.by}"
    if one.low <= 0 <= one.high:
        said = f"is **not told apart** from {one.worse}: {points(one.difference)} {unit} ({interval})."
    else:
        side = "above" if one.low > 0 else "below"
        said = f"is **{side}** {one.worse} by {100 * abs(one.difference):.1f} {unit} ({interval})."
    return f"{one.better} {said}"


def table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Markdown; the cells are given as they shall stand."""
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *lines))


def per_cent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f}"


def points(share: float) -> str:
    """A difference, signed."""
    text = f"{100 * share:+.1f}".replace("-", "−")
    return "0.0" if text[1:] == "0.0" else text


def spread(row: Row, metric: str) -> str:
    """Mean +- standard deviation."""
    sd = deviation(row, metric)
    return per_cent(mean(row, metric)) + ("" if sd is None else f" ± {per_cent(sd)}")


def _difference(row: Row, reference: Row, metric: str) -> str:
    """In points, with its standard error over seeds where both have several."""
    if row is reference:
        return ""
    mine, other = deviation(row, metric), deviation(reference, metric)
    text = points(mean(row, metric) - mean(reference, metric))
    if mine is None or other is None:
        return text
    return f"{text} ± {per_cent(math.sqrt(mine**2 / len(row.scores) + other**2 / len(reference.scores)))}"


def _on_test(row: Row) -> bool:
    return CHOSEN_ON_TEST in row.name or CHOSEN_ON_TEST in row.note


def _cell(text: str) -> str:
    """A cell of a table: no bar, no line end."""
    return " ".join(text.split()).replace("|", "\\|")
