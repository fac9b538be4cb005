"""Raw result files and the page written from them, on invented numbers."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bench.raw_results import (
    POINTS,
    RawResultError,
    calibration_curve,
    confusion,
    parse_raw,
    read_raw,
    risk_curve,
    score,
    write_raw,
)
from bench.result_tables import contrast_words, headline
from bench.results import main, write

ROOT = Path(__file__).resolve().parent.parent


def answers(n: int = 150, classes: int = 3) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Probabilities [n, C] that are often right, and the labels [n]."""
    rng = np.random.default_rng(0)
    label = rng.integers(0, classes, n)
    odds = np.exp(rng.normal(size=(n, classes)) + 1.5 * np.eye(classes)[label])
    return odds / odds.sum(axis=1, keepdims=True), label


def row(group: str, name: str, *accuracies: float, **more: Any) -> dict[str, Any]:
    scores = [{"accuracy": a, "weighted_f1": a - 0.01, "macro_f1": a - 0.02, "ece": 0.04} for a in accuracies]
    return {"group": group, "name": name, "scores": scores, **more}


def raw(**changes: Any) -> dict[str, Any]:
    """A file with something in every place."""
    probabilities, label = answers()
    curve = calibration_curve(probabilities, label)
    return {
        "set": "mosi",
        "title": "Invented",
        "made_by": "python -m bench.invented",
        "protocol": "Two folds.",
        "n": 150,
        "metric": "accuracy",
        "rows": [
            row("main", "majority class", 0.5),
            row("main", "concat-MLP, words + audio", 0.70, 0.72),
            row("main", "CMATH, words", 0.75, 0.77),
            row("main", "CMATH, words + audio", 0.80, 0.82, note="ours"),
            row("main", "CMATH, words + audio, epoch chosen on test", 0.9, 0.9),
            row("ablation", "no distillation", 0.76, 0.78),
            row("window", "CMATH, full", 0.81, 0.81),
            row("window", "CMATH, 16", 0.80, 0.80),
            row("window", "CMATH, 4", 0.78, 0.78),
            row("width", "64", 0.7),
            row("width", "d = 256", 0.8),
            row("modalities", "words", 0.7),
            row("condition", "noise 10 dB", 0.7),
            row("conflict", "voice against words", 0.4),
        ],
        "contrasts": [contrast(0.002, 0.021)],
        "published": [{"name": "bc-LSTM", "accuracy": 0.803, "differs": "chosen | on test"}],
        "calibration": {"text": curve, "text+audio": curve},
        "risk_coverage": {"text": risk_curve(probabilities, label)},
        "confusion": confusion(probabilities, label, ("a", "b", "c")),
    } | changes


def contrast(low: float, high: float) -> dict[str, Any]:
    middle = (low + high) / 2
    return {
        "better": "A",
        "worse": "B",
        "metric": "accuracy",
        "difference": middle,
        "low": low,
        "high": high,
    } | {"by": "video"}


def page(folder: Path, **changes: Any) -> str:
    """The page of one file."""
    write_raw(folder / "raw" / "one.json", raw(**changes))
    write(folder / "raw", folder / "out")
    return (folder / "out" / "RESULTS.md").read_text(encoding="utf-8")


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    written = write_raw(tmp_path / "a" / "one.json", raw(n=np.int64(150)))
    assert read_raw(tmp_path / "a" / "one.json") == written
    assert written.group("width")[0].scores[0].accuracy == 0.7


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("set",), "iemocap", 'set: expected "mosi" or'),
        (("n",), 0, "n and rows: expected at least one"),
        (("n",), True, "n: expected a whole number, found true"),
        (("colour",), 1, "colour: unknown key"),
        (("rows", 0, "scores", 0, "ece"), "low", 'rows[0].scores[0].ece: expected a number, found "low"'),
        (("rows", 0, "scores", 0, "ece"), float("nan"), "rows[0].scores[0].ece: expected a number"),
        (("rows", 1, "scores", 1, "accuracy"), 80.1, "rows[1].scores[1].accuracy: expected a share"),
        (("rows", 2, "scores"), [], "rows[2].scores: empty"),
        (("rows", 2, "name"), "majority class", 'rows[2].name: "majority class" twice'),
        (("rows", 2), {"group": "main"}, "rows[2].name: missing"),
        (("rows",), {}, "rows: expected a list, found {}"),
        (("contrasts", 0, "low"), 0.5, "contrasts[0]: the difference lies outside"),
        (("published", 0, "accuracy"), None, "published[0]: neither"),
        (("calibration", "text", "count"), [150], 'calibration["text"]: expected 15 bins'),
        (("calibration", "text", "confidence", 14), None, 'calibration["text"]: a bin is null where'),
        (("risk_coverage", "text"), [[0.5, 0.1]] * 102, 'risk_coverage["text"]: expected 1 to 101'),
        (("risk_coverage", "text", 0), [0.1], 'risk_coverage["text"][0]: expected 2 entries'),
        (("confusion", "labels"), ["a", "b"], "confusion.counts: expected 2 x 2"),
    ],
)
def test_a_fault_is_one_line_that_names_the_place(
    tmp_path: Path, place: tuple[str | int, ...], value: Any, message: str
) -> None:
    broken: Any = copy.deepcopy(raw())
    inner = broken
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    path = tmp_path / "broken.json"
    path.write_text(json.dumps(broken))
    with pytest.raises(RawResultError) as caught:
        read_raw(path)
    assert str(caught.value).startswith(f"{path}: {message}")
    assert "\n" not in str(caught.value)
    with pytest.raises(RawResultError):
        write_raw(tmp_path / "other.json", broken)
    assert not (tmp_path / "other.json").exists()


def test_a_calibration_curve_adds_up_to_its_ece() -> None:
    probabilities, label = answers()
    curve = calibration_curve(probabilities, label)
    gaps = [
        many * abs(confidence - accuracy)
        for many, confidence, accuracy in zip(
            curve["count"], curve["confidence"], curve["accuracy"], strict=True
        )
        if many
    ]
    assert sum(curve["count"]) == len(label)
    assert sum(gaps) / len(label) == pytest.approx(curve["ece"])
    assert curve["low"] < curve["high"] and curve["floor"] > 0
    assert score(probabilities, label)["ece"] == curve["ece"]


@pytest.mark.parametrize("n", [1, 7, 150])
def test_a_risk_curve_is_short_and_ends_where_all_are_answered(n: int) -> None:
    probabilities, label = answers(n)
    curve = risk_curve(probabilities, label)
    assert len(curve) == min(n, POINTS)
    assert curve[-1] == [1.0, pytest.approx(1 - score(probabilities, label)["accuracy"])]


def test_a_confusion_has_the_truth_in_rows() -> None:
    said = np.array([[0.1, 0.9], [0.2, 0.8], [0.9, 0.1]])
    assert confusion(said, np.array([0, 1, 0]), ("a", "b"))["counts"] == [[1, 1], [0, 1]]


def test_tables_hold_mean_and_deviation_and_the_best_row_is_bold(tmp_path: Path) -> None:
    text = page(tmp_path)
    assert (
        "| **CMATH, words + audio** | **81.0 ± 1.4** | 80.0 ± 1.4 | 79.0 ± 1.4 | 4.0 ± 0.0 | 2 | ours |"
        in text
    )
    assert "| majority class | 50.0 | 49.0 |" in text
    assert "| no distillation | 77.0 ± 1.4 | −4.0 ± 1.4 |" in text
    assert "150 utterances: the standard error of an accuracy of 81.0 % is 3.2 points" in text
    assert "| bc-LSTM | 80.3 | chosen \\| on test |" in text
    assert "| [Invented](#one) | 150 | accuracy | 81.0 ± 1.4 | 71.0 ± 1.4 | 76.0 ± 1.4 | 50.0 |" in text
    assert "**CMATH, words + audio, epoch chosen on test**" not in text
    by_f1 = page(tmp_path, metric="weighted_f1")
    assert "| **CMATH, words + audio** | **80.0 ± 1.4** | 81.0 ± 1.4 |" in by_f1


def test_the_row_that_stands_for_ours_is_not_chosen_by_its_figures() -> None:
    rows = [
        row("main", "majority class", 0.99),
        row("main", "CMATH, audio", 0.95),
        row("main", "CMATH, words + audio", 0.5),
        row("main", "CMATH, words + audio, two layers", 0.9),
    ]
    ours = headline(parse_raw(raw(rows=rows)))
    assert ours is not None and ours.name == "CMATH, words + audio"
    face = headline(parse_raw(raw(rows=[rows[0], row("main", "small ResNet, face", 0.8)])))
    assert face is not None and face.name == "small ResNet, face"


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (0.002, 0.021, "A is **above** B by 1.1 points of accuracy (95 % interval +0.2 to +2.1, "),
        (-0.03, -0.01, "A is **below** B by 2.0 points of accuracy (95 % interval −3.0 to −1.0, "),
        (
            -0.01,
            0.02,
            "A is **not told apart** from B: +0.5 points of accuracy (95 % interval −1.0 to +2.0, ",
        ),
        (0.0, 0.0, "A is **not told apart** from B: 0.0 points of accuracy (95 % interval 0.0 to 0.0, "),
    ],
)
def test_the_interval_decides_the_words(low: float, high: float, words: str) -> None:
    (one,) = parse_raw(raw(contrasts=[contrast(low, high)])).contrasts
    assert contrast_words(one).startswith(words)


def test_a_curve_runs_from_short_to_full_and_every_picture_is_there(tmp_path: Path) -> None:
    text = page(tmp_path)
    assert "CMATH 4: 78.0, 16: 80.0, full: 81.0." in text
    assert "64: 70.0, 256: 80.0." in text
    shown = {Path(name) for name in re.findall(r"!\[[^]]+\]\(([^)]+)\)", text)}
    drawn = {path.relative_to(tmp_path / "out") for path in (tmp_path / "out").rglob("*.png")}
    assert shown == drawn and len(drawn) == 5
    for path in drawn:
        assert 1_000 < (tmp_path / "out" / path).stat().st_size < 60_000


def test_the_same_files_give_the_same_bytes_and_old_pictures_go(tmp_path: Path) -> None:
    page(tmp_path)
    first = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.*")}
    (tmp_path / "out" / "images" / "results" / "gone-risk.png").write_bytes(b"old")
    page(tmp_path)
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.*")} == first


def test_optional_parts_may_be_absent(tmp_path: Path) -> None:
    whole = raw(set="grafted", rows=[row("condition", "costs $5 and $6", 0.5)])
    least = {key: whole[key] for key in ("set", "title", "made_by", "protocol", "n", "metric", "rows")}
    write_raw(tmp_path / "raw" / "least.json", least)
    assert write(tmp_path / "raw", tmp_path / "out") == []
    text = (tmp_path / "out" / "RESULTS.md").read_text(encoding="utf-8")
    assert "### Conditions" in text and "no accuracy on calls" in text and "![" not in text


def test_a_missing_baseline_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_raw(tmp_path / "one.json", raw(rows=[row("main", "CMATH, words + audio", 0.8)]))
    main(["--results", str(tmp_path), "--out", str(tmp_path / "out")])
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 3
    assert told[0] == f'warning: {tmp_path}/one.json: the main table has no row that begins with "majority"'
    assert told[2].endswith("no row of a single modality")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([row("window", "CMATH, long", 0.8)], 'window row "CMATH, long": its name must end in a number'),
        ([row("ablation", "no distillation", 0.8)], 'ablation rows need a row "full ..."'),
    ],
)
def test_rows_that_find_no_place_stop_everything(
    tmp_path: Path, rows: list[dict[str, Any]], message: str
) -> None:
    write_raw(tmp_path / "one.json", raw(rows=rows))
    with pytest.raises(SystemExit, match=re.escape(message)):
        main(["--results", str(tmp_path), "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_no_files_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RawResultError, match="no \\*.json in it"):
        write(tmp_path, tmp_path / "out")


def test_the_committed_page_is_what_the_committed_files_give(tmp_path: Path) -> None:
    docs = ROOT / "docs"
    write(docs / "results", tmp_path)
    text = (docs / "RESULTS.md").read_text(encoding="utf-8")
    assert text == (tmp_path / "RESULTS.md").read_text(encoding="utf-8"), "run `make results`"
    for name in re.findall(r"\]\((images/results/[^)]+)\)", text):
        assert (docs / name).is_file(), f"{name}: run `make results`"
