"""What the experiments share: answers by seed, rows, contrasts, and the file they end in."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.raw_results import calibration_curve, confusion, risk_curve, score, write_raw
from cmath_stream.training.crossval import Metric, paired_bootstrap


class Answered(NamedTuple):
    """Answers of S seeds about the same n utterances, each by a model that never saw its group."""

    probabilities: NDArray[np.float64]  # [S, n, C]
    label: NDArray[np.int64]  # [n]
    group: NDArray[Any]  # [n] actor, video or dialogue


class Arguments(NamedTuple):
    """DATA, OUT, where the result goes, and how many seeds."""

    data: Path
    work: Path
    out: Path
    seeds: int


def arguments(about: str | None) -> Arguments:
    """Of the command line."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, required=True, help="folder with meld/, ravdess/, ferplus/, mosi/"
    )
    parser.add_argument(
        "--work", type=Path, default=Path("out"), help="folder in which encoders were trained"
    )
    parser.add_argument("--out", type=Path, default=Path("docs/results"), help="folder of the result file")
    parser.add_argument("--seeds", type=int, default=5)
    return Arguments(**vars(parser.parse_args()))


def row(group: str, name: str, found: Answered, note: str = "") -> dict[str, Any]:
    """A line of a table."""
    print(f"{group}: {name}: {np.mean(found.probabilities.argmax(2) == found.label):.4f}", flush=True)
    scores = [score(each, found.label) for each in found.probabilities]
    return {"group": group, "name": name, "scores": scores, "note": note}


def contrast(
    rows: Mapping[str, Answered], better: str, worse: str, metric: Metric, by: str
) -> dict[str, Any]:
    """Two rows on the same utterances, whole groups drawn again and again."""
    a, b = rows[better], rows[worse]
    groups = [str(each) for each in a.group]
    difference, low, high = paired_bootstrap(a.probabilities, b.probabilities, a.label, groups, metric)
    return {
        "better": better, "worse": worse, "metric": metric,
        "difference": difference, "low": low, "high": high, "by": by,
    }  # fmt: skip


def main_file(path: Path, *, shown: Mapping[str, Answered], labels: Sequence[str], **fields: Any) -> None:
    """Write a raw result file. `shown` by pattern gives the curves (first seed), its first the confusion."""
    first = next(iter(shown.values()))
    fields["n"] = len(first.label)
    fields["calibration"] = {
        name: calibration_curve(found.probabilities[0], found.label) for name, found in shown.items()
    }
    fields["risk_coverage"] = {
        name: risk_curve(found.probabilities[0], found.label) for name, found in shown.items()
    }
    fields["confusion"] = confusion(first.probabilities[0], first.label, labels)
    write_raw(path, fields)
    print(path)
