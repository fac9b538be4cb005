"""`cmath-stream compare`: two models, or two settings, on the same input."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cmath_stream.console import plain_line

if TYPE_CHECKING:
    from rich.table import Table

    from cmath_stream.answers import Answer
    from cmath_stream.comparison import Comparison, Pair

_Truth = Mapping[tuple[str, str], str]  # room and utterance of A → its label


def compare(
    a: Annotated[Path, typer.Argument(metavar="A", help="Events of a replay (JSONL).")],
    b: Annotated[Path, typer.Argument(metavar="B", help="Of another replay of the same input.")],
    gold: Annotated[Path | None, typer.Option(help="Labels, as `replay --gold` takes them.")] = None,
    rows: Annotated[int, typer.Option(min=0, help="Utterances shown, the farthest apart first.")] = 20,
) -> None:
    """Show where two replays of the same input differ: labels, counts, probabilities.

    The most probable emotion counts, abstained or not. The last line is one JSON object.
    """
    from rich.console import Console

    from cmath_stream import answers, comparison

    found = comparison.compare(answers.read(a), answers.read(b))
    truth, figures = ({}, {}) if gold is None else _judged(found, gold)
    console = Console(highlight=False)
    different = found.different()
    for letter, path, side in (("A", a, found.pairs[0].a), ("B", b, found.pairs[0].b)):
        console.print(f"{letter}  {plain_line(str(path))}  {plain_line(side.model)}", markup=False)
    console.print(
        f"{len(found.pairs)} utterances in both ({found.only_a} in A alone, {found.only_b} in B alone): "
        f"the same emotion in {found.agreement:.1%}, mean |Δp| {found.moved:.4f}",
        soft_wrap=True,
    )
    console.print(_counts(found))
    if figures:
        console.print(_figures(figures))
    if different[:rows]:
        console.print(_different(different[:rows], truth))
    if len(different) > rows:
        console.print(f"... and {len(different) - rows} more that differ (--rows)")
    summary = {
        "utterances": len(found.pairs),
        "only_a": found.only_a,
        "only_b": found.only_b,
        "agreement": round(found.agreement, 4),
        "mean_abs_dp": round(found.moved, 6),
        "counts": found.counts(),
        **({"gold": figures} if figures else {}),
    }
    typer.echo(json.dumps(summary))


def _judged(found: Comparison, path: Path) -> tuple[_Truth, dict[str, Any]]:
    """The labels of the pairs, and how each of the two fares by them."""
    from cmath_stream.training import gold
    from cmath_stream.training.evaluate import metrics

    labels = gold.read(path)
    sides: dict[str, Sequence[Answer]] = {
        "A": [pair.a for pair in found.pairs],
        # under A's times and names, so that both are judged by the same labels
        "B": [replace(pair.a, probabilities=pair.b.probabilities) for pair in found.pairs],
    }
    figures: dict[str, Any] = {}
    right: dict[str, set[tuple[str, str]]] = {}
    truth: dict[tuple[str, str], str] = {}
    for side, said in sides.items():
        scored = gold.score(labels, said, path.name)
        result = metrics(scored.judged.probabilities, scored.judged.label)
        figures[side] = {
            "accuracy": round(result.accuracy, 4),
            "weighted_f1": round(result.weighted_f1, 4),
        }
        names = scored.judged.labels
        pairs = [
            (answer, names[place])
            for (_, answer), place in zip(scored.matched, scored.judged.label, strict=True)
        ]
        truth = {(answer.room, answer.utterance_id): label for answer, label in pairs}
        right[side] = {(answer.room, answer.utterance_id) for answer, label in pairs if answer.label == label}
    figures["n"] = len(truth)
    figures["only_a_right"] = len(right["A"] - right["B"])
    figures["only_b_right"] = len(right["B"] - right["A"])
    figures["both_right"] = len(right["A"] & right["B"])
    return truth, figures


def _counts(found: Comparison) -> Table:
    from rich.table import Table

    table = Table("emotion", title="how often each was found", title_justify="left")
    for name in ("A", "B", "change"):
        table.add_column(name, justify="right")
    for label, (of_a, of_b) in found.counts().items():
        table.add_row(plain_line(label), str(of_a), str(of_b), f"{of_b - of_a:+d}" if of_b != of_a else "")
    return table


def _figures(figures: Mapping[str, Any]) -> Table:
    from rich.table import Table

    title = f"beside {figures['n']} labels ({figures['both_right']} right in both)"
    table = Table("", title=title, title_justify="left")
    for name in ("accuracy", "weighted F1", "right alone"):
        table.add_column(name, justify="right")
    for side in ("A", "B"):
        row = figures[side]
        alone = str(figures[f"only_{side.lower()}_right"])
        table.add_row(side, f"{row['accuracy']:.1%}", f"{row['weighted_f1']:.1%}", alone)
    return table


def _different(pairs: Sequence[Pair], truth: _Truth) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(title="where they differ", title_justify="left")
    many = len({pair.a.room for pair in pairs}) > 1
    for name in (*(("conversation",) if many else ()), "at", "who", "A", "B"):
        table.add_column(name, no_wrap=True, justify="right" if name == "at" else "left")
    if truth:
        table.add_column("label", no_wrap=True)
    table.add_column("words", ratio=1, min_width=20)
    for pair in pairs:
        cells = [
            *((pair.a.room,) if many else ()),
            f"{pair.a.start_ms / 1000:.2f}s",
            pair.a.participant_id,
            *(f"{side.label} {max(side.probabilities):.2f}" for side in (pair.a, pair.b)),
            *((truth.get((pair.a.room, pair.a.utterance_id), ""),) if truth else ()),
            pair.a.text,
        ]
        table.add_row(*(Text(plain_line(cell)) for cell in cells))
    return table
