"""The results page, written from raw result files and from nothing else.

    python -m bench.results [--results docs/results] [--out docs]

Reads every `*.json` in the folder (the format: `bench.raw_results`), writes `RESULTS.md` and the pictures in
`images/results/`. The same files give the same bytes. What a main table lacks is told on stderr.
"""

from __future__ import annotations

import argparse
import math
import re
import sys
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import result_plots
from bench.raw_results import Group, RawResultError, RawResults, Row, Set, read_raw
from bench.result_plots import Point
from bench.result_tables import (
    BASELINES,
    CHOSEN_ON_TEST,
    TITLES,
    best,
    contrast_words,
    deviation,
    headline,
    knows_one_modality,
    mean,
    per_cent,
    published_table,
    rows_table,
    spread,
    table,
)

PAGE, PICTURES = "RESULTS.md", Path("images/results")

INTRODUCTION = f"""# Results

*`make results` writes this page from the files in [`results/`](results/); a change by hand is lost.*

CMATH here is an **open reconstruction** of arXiv 2411.10060 from its published description; its authors
released no code. So these figures judge our reading of the paper, on data that can be had, and not the
authors' own model.

How to read them:

- Figures are per cent, **mean ± standard deviation over seeds**: how much training varies by chance. The
  chance in the choice of utterances is not in it; the standard error under each main table tells that.
  Without a ± there was one run.
- Epochs were chosen on **validation** data; each protocol says on which. Papers often choose on test: a row
  of ours that does so is named "{CHOSEN_ON_TEST}" and never counts as a table's best.
- **Baselines** stand beside ours: the majority class, concat-MLP (all features side by side into one hidden
  layer) and a single modality. **Bold** is a main table's best row by the figure it leads with. Whether a row
  is better by more than chance is said under "Compared": **above**, **below**, or **not told apart** where
  the 95 % interval holds zero.
- **ECE** (expected calibration error, 15 bins) is the mean distance of confidence and accuracy: lower is
  better. Its *floor* is what a perfectly calibrated model would show on as many utterances.
- **Grafted** sets put recorded voices and faces of others under written words of the same emotion. Their
  figures are a **robustness check** of the whole line and no accuracy on calls.
"""

GRAFTED = (
    "> Grafted: voices and faces were drawn to fit the label of words that they never spoke. "
    "A robustness check, and **no accuracy on calls**."
)

HEADINGS: dict[Group, str] = {
    "ablation": "Ablation: a part taken out or replaced",
    "window": "Window: how far it looks back",
    "width": "Width",
    "modalities": "Modalities present",
    "condition": "Conditions",
    "conflict": "When modalities disagree",
}
AXES: dict[Group, str] = {"window": "utterances in the window", "width": "width of the model"}

# "CMATH, window 16" -> the curve "CMATH" at "16"; "full" -> the only curve, at "full"
_ON_CURVE = re.compile(r"^(?P<curve>.*?)[\s,:]*(?:\b(?:window|width|W|d)\b[\s=:]*)?\b(?P<x>\d+|full)$")
_COVERAGES = (1.0, 0.8, 0.5)


@dataclass(frozen=True, slots=True)
class Picture:
    """Draws into files named after one raw file, and gives the Markdown that shows them."""

    out: Path
    stem: str

    def place(self, kind: str) -> Path:
        return self.out / PICTURES / f"{self.stem}-{kind}.png"

    def shown(self, kind: str, alt: str) -> str:
        plain = " ".join(alt.split()).replace("[", "(").replace("]", ")")
        return f"![{plain}]({(PICTURES / f'{self.stem}-{kind}.png').as_posix()})"


def write(results: Path, out: Path) -> list[str]:
    """Write the page and its pictures under `out`; gives what the files lack, a line each.

    Raises `RawResultError`, before anything is written, if a file is not in the format or there is none.
    """
    files = {path: read_raw(path) for path in results.glob("*.json")}
    if not files:
        raise RawResultError(f"{results}: no *.json in it")
    order = typing.get_args(Set)
    paths = sorted(files, key=lambda path: (order.index(files[path].set), path.name))
    for path in paths:
        _check_names(path, files[path])
    (out / PICTURES).mkdir(parents=True, exist_ok=True)
    for old in (out / PICTURES).glob("*.png"):  # of a file that is gone
        old.unlink()
    parts = [INTRODUCTION, _glance({path.stem: files[path] for path in paths})]
    for path in paths:
        parts += _section(files[path], Picture(out, path.stem))
    (out / PAGE).write_text("\n\n".join(part.strip("\n") for part in parts if part) + "\n", encoding="utf-8")
    return [f"{path}: {lack}" for path in paths for lack in _lacks(files[path])]


def _check_names(path: Path, raw: RawResults) -> None:
    for row in (row for row in raw.rows if row.group in AXES and not _ON_CURVE.match(row.name)):
        raise RawResultError(f'{path}: {row.group} row "{row.name}": its name must end in a number or "full"')
    if raw.group("ablation") and _full_model(raw) is None:
        raise RawResultError(
            f'{path}: ablation rows need a row "full ..." among them, or "CMATH ..." in main'
        )


def _lacks(raw: RawResults) -> Iterator[str]:
    main = raw.group("main")
    for name in BASELINES if main else ():
        if not any(row.name.startswith(name) for row in main):
            yield f'the main table has no row that begins with "{name}"'
    if main and not any(knows_one_modality(row) for row in main):
        yield "the main table has no row of a single modality"


def _glance(files: Mapping[str, RawResults]) -> str:
    """A line a file: our first row beside the strongest of each baseline."""
    lines = []
    for stem, raw in files.items():
        main, ours = raw.group("main"), headline(raw)
        majority, plain = ([row for row in main if row.name.startswith(name)] for name in BASELINES)
        single = [row for row in main if knows_one_modality(row) and row not in (ours, *majority, *plain)]
        rows = (ours, best(plain, raw.metric), best(single, raw.metric), best(majority, raw.metric))
        figures = [spread(row, raw.metric) if row else "" for row in rows]
        lines.append([f"[{raw.title}](#{stem})", f"{raw.n:,}", TITLES[raw.metric], *figures])
    head = ["", "utterances", "figure", "ours", "concat-MLP", "one modality", "majority class"]
    return "## At a glance\n\n" + table(head, lines)


def _section(raw: RawResults, picture: Picture) -> Iterator[str]:
    yield f'<a id="{picture.stem}"></a>\n\n## {raw.title}'
    if raw.set == "grafted":
        yield GRAFTED
    yield raw.protocol
    yield f"```\n{raw.made_by}\n```"
    if main := raw.group("main"):
        yield rows_table(main, raw.metric, bold=True)
        share = mean(headline(raw) or main[0], "accuracy")
        error = math.sqrt(share * (1 - share) / raw.n)
        yield (
            f"{raw.n:,} utterances: the standard error of an accuracy of {per_cent(share)} % is "
            f"{per_cent(error)} points, and more where utterances of one conversation are alike."
        )
    if raw.contrasts:
        yield "### Compared"
        yield "\n".join(f"- {contrast_words(one)}" for one in raw.contrasts)
    if raw.published:
        yield "### Beside published figures"
        yield published_table(headline(raw), raw.published)
    for group, heading in HEADINGS.items():
        if rows := raw.group(group):
            yield f"### {heading}"
            yield from _group(raw, group, rows, picture)
    yield from _calibration(raw, picture)
    yield from _risk(raw, picture)
    yield from _confusion(raw, picture)


def _group(raw: RawResults, group: Group, rows: Sequence[Row], picture: Picture) -> Iterator[str]:
    if group == "ablation" and (full := _full_model(raw)):
        rows = (full, *(row for row in rows if row is not full))
        yield f"Difference: points of {TITLES[raw.metric]} to the first row, ± its standard error over seeds."
        yield rows_table(rows, raw.metric, reference=full)
        return
    yield rows_table(rows, raw.metric)
    if group in AXES and len(rows) > 1:
        lines = _curves(rows, raw.metric)
        result_plots.curves(lines, AXES[group], f"{TITLES[raw.metric]}, %", picture.place(group))
        said = "; ".join(
            f"{name} {', '.join(f'{point.x}: {point.mean:.1f}' for point in line)}".strip()
            for name, line in lines.items()
        )
        yield picture.shown(group, f"Curve: {TITLES[raw.metric]} in per cent by {AXES[group]}. {said}.")


def _full_model(raw: RawResults) -> Row | None:
    stated = (row for row in raw.group("ablation") if row.name.startswith("full"))
    return next(stated, None) or headline(raw)


def _curves(rows: Iterable[Row], metric: str) -> dict[str, list[Point]]:
    lines: dict[str, list[Point]] = {}
    for row in rows:
        if place := _ON_CURVE.match(row.name):
            point = Point(place["x"], 100 * mean(row, metric), 100 * (deviation(row, metric) or 0.0))
            lines.setdefault(place["curve"], []).append(point)
    return {name: sorted(line, key=lambda point: result_plots.order(point.x)) for name, line in lines.items()}


def _calibration(raw: RawResults, picture: Picture) -> Iterator[str]:
    if not raw.calibration:
        return
    yield "### Calibration: is its confidence right?"
    yield table(
        ["present", "utterances", "ECE", "95 % interval", "floor"],
        [
            [name, f"{sum(one.count):,}", per_cent(one.ece), f"{per_cent(one.low)} to {per_cent(one.high)}"]
            + [per_cent(one.floor)]
            for name, one in raw.calibration.items()
        ],
    )
    result_plots.reliability(raw.calibration, picture.place("reliability"))
    said = ", ".join(f"{name} ECE {per_cent(one.ece)} %" for name, one in raw.calibration.items())
    yield picture.shown("reliability", f"Reliability diagrams, accuracy over confidence: {said}.")
    yield (
        "On the dashed line confidence is right; under it the model is too sure. Whiskers: one standard "
        f"error; hollow: fewer than {result_plots.FEW} utterances; bars: utterances in each bin."
    )


def _risk(raw: RawResults, picture: Picture) -> Iterator[str]:
    if not raw.risk_coverage:
        return
    yield "### Risk and coverage: what abstaining buys"
    lines = {
        name: [per_cent(min(curve, key=lambda pair: abs(pair[0] - share))[1]) for share in _COVERAGES]
        for name, curve in raw.risk_coverage.items()
    }
    head = ["wrong among the answered", *(f"{100 * share:.0f} % answered" for share in _COVERAGES)]
    yield table(head, [[name, *cells] for name, cells in lines.items()])
    result_plots.risk_coverage(raw.risk_coverage, picture.place("risk"))
    said = "; ".join(f"{name} {', '.join(cells)}" for name, cells in lines.items())
    yield picture.shown(
        "risk", f"Risk over coverage: per cent wrong with all, 80 % and 50 % answered. {said}."
    )


def _confusion(raw: RawResults, picture: Picture) -> Iterator[str]:
    if raw.confusion is None:
        return
    yield "### Confusion: what is taken for what"
    result_plots.confusion(raw.confusion, picture.place("confusion"))
    recalls = ", ".join(
        f"{label} {per_cent(line[place] / max(sum(line), 1))} %"
        for place, (label, line) in enumerate(zip(raw.confusion.labels, raw.confusion.counts, strict=True))
    )
    yield picture.shown("confusion", f"Confusion matrix. Found of each true class: {recalls}.")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Write the results page from raw result files.")
    parser.add_argument("--results", type=Path, default=Path("docs/results"), help="folder of raw files")
    parser.add_argument("--out", type=Path, default=Path("docs"), help="folder that gets RESULTS.md")
    options = parser.parse_args(arguments)
    try:
        lacks = write(options.results, options.out)
    except RawResultError as error:
        sys.exit(f"error: {error}")
    for lack in lacks:
        print(f"warning: {lack}", file=sys.stderr)


if __name__ == "__main__":
    main()
