"""`eval`: the figures of a checkpoint on a task, as a table for people and one JSON line for programs."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from cmath_stream.checkpoint import Checkpoint, load, shipped
from cmath_stream.evaluate import Metrics, evaluate_text

Judge = Callable[[Checkpoint, Path, Path], Metrics]

_PROTOCOL = {
    "erc-text": "dialogue JSONL, words alone, causal window, all labelled utterances, calibrated",
}
_JUDGES: dict[str, Judge] = {"erc-text": evaluate_text}


def cache_folder() -> Path:
    """Where features are kept between runs: $XDG_CACHE_HOME/cmath-stream, by default under ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cmath-stream"


def judge(task: str, path: Path, checkpoint: str | None, cache: Path) -> dict[str, Any]:
    """Figures of a checkpoint (None = the shipped one) on a task. Raises CmathStreamError."""
    loaded = load(Path(checkpoint) if checkpoint else shipped())
    figures = _JUDGES[task](loaded, path, cache)
    labels = loaded.meta.labels
    per_class = zip(labels, figures.f1, figures.recall, figures.support, strict=True)
    return {
        "task": task,
        "n": figures.utterances,
        "accuracy": round(figures.accuracy, 4),
        "weighted_f1": round(figures.weighted_f1, 4),
        "macro_f1": round(figures.macro_f1, 4),
        "per_class": {
            name: {"f1": round(float(f1), 4), "recall": round(float(recall), 4), "n": int(n)}
            for name, f1, recall, n in per_class
        },
        "ece": round(figures.ece, 4),
        "protocol": _PROTOCOL[task],
        "checkpoint": f"{loaded.meta.name}-{loaded.meta.version}",
    }


def show(result: dict[str, Any]) -> None:
    """The figures as a table."""
    table = Table(
        "", "F1", "recall", "n", title=f"{result['task']}: {result['checkpoint']}", title_justify="left"
    )
    for name, figures in result["per_class"].items():
        table.add_row(name, f"{figures['f1']:.1%}", f"{figures['recall']:.1%}", str(figures["n"]))
    console = Console(highlight=False)
    console.print(table)
    console.print(
        f"accuracy {result['accuracy']:.1%}, weighted F1 {result['weighted_f1']:.1%}, "
        f"macro F1 {result['macro_f1']:.1%}, calibration error {result['ece']:.1%}, {result['n']} utterances"
    )
