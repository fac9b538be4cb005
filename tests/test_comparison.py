"""Two replays side by side: what belongs together, how far it is apart, what the command shows of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cmath_stream.answers import Answer
from cmath_stream.cli import app
from cmath_stream.comparison import ComparisonError, compare

LABELS = ("joy", "fear", "anger", "calm")


def answer(number: int, label: str, start_s: float, end_s: float, **changed: Any) -> Answer:
    p = tuple(0.7 if each == label else 0.1 for each in LABELS)
    span = round(start_s * 1000), round(end_s * 1000)
    return replace(
        Answer("talk", "anna", f"anna.{number}", number, *span, f"line {number}", LABELS, p, False, "m-1"),
        **changed,
    )


A = [answer(0, "joy", 0, 1), answer(1, "fear", 2, 3), answer(2, "anger", 4, 5), answer(3, "calm", 9, 10)]


def test_the_same_is_the_same() -> None:
    found = compare(A, A)
    assert (len(found.pairs), found.only_a, found.only_b) == (4, 0, 0)
    assert found.agreement == 1 and found.moved == 0 and found.different() == []


def test_counts_agreement_and_distance_by_hand() -> None:
    b = [
        A[0],
        answer(1, "joy", 2, 3),
        answer(2, "anger", 4, 5),
        replace(A[3], probabilities=(0.4, 0.1, 0.1, 0.4)),
    ]
    found = compare(A, b)
    assert found.agreement == 0.5
    assert found.moved == pytest.approx((0 + 1.2 / 4 + 0 + 0.6 / 4) / 4)
    assert found.counts() == {"joy": (1, 3), "fear": (1, 0), "anger": (1, 1), "calm": (1, 0)}
    assert [pair.a.index for pair in found.different()] == [1, 3]


def test_other_bounds_are_matched_by_the_longest_overlap_each_once() -> None:
    b = [
        answer(0, "joy", 0.1, 2.4),  # holds A's first whole and a bit of its second
        answer(1, "fear", 2.4, 3),
        answer(2, "anger", 4, 5, participant_id="ben", utterance_id="ben.0"),
        answer(3, "calm", 20, 21),
    ]
    found = compare(A, b)
    assert [(pair.a.index, pair.b.index) for pair in found.pairs] == [(0, 0), (1, 1)]
    assert (found.only_a, found.only_b) == (2, 2)


def test_conversations_are_told_apart_by_name_unless_there_is_one() -> None:
    elsewhere = [replace(each, room="other name") for each in A]
    assert len(compare(A, elsewhere).pairs) == 4
    two = [*A, replace(A[0], room="second")]
    assert [pair.b.room for pair in compare(two, [*two[::-1]]).pairs] == ["talk"] * 4 + ["second"]


def test_what_cannot_be_compared_is_said() -> None:
    with pytest.raises(ComparisonError, match="calm.* and bad/good|bad/good and .*calm"):
        compare(A, [replace(A[0], labels=("bad", "good"), probabilities=(0.5, 0.5))])
    with pytest.raises(ComparisonError, match="are they of the same input"):
        compare(A, [answer(0, "joy", 50, 51)])
    with pytest.raises(ComparisonError, match="are they of the same input"):
        compare([], [])


def write(path: Path, said: list[Answer]) -> Path:
    lines: list[dict[str, Any]] = [{"type": "session.started", "room": "talk"}]
    for each in said:
        lines.append(
            {
                "type": "emotion.utterance", "revision": 0, "participant_id": each.participant_id,
                "utterance_id": each.utterance_id, "index": each.index, "start_ms": each.start_ms,
                "end_ms": each.end_ms, "text": "[red]\x1b[31m" + each.text, "abstained": False,
                "emotions": [
                    {"name": name, "probability": p}
                    for name, p in zip(each.labels, each.probabilities, strict=True)
                ],
                "model": {"version": each.model},
            }
        )  # fmt: skip
    path.write_text(
        "".join(json.dumps({"schema": "emotion-event/1", "session_id": "s", **line}) + "\n" for line in lines)
    )
    return path


def test_the_command_shows_what_differs_and_who_is_right(tmp_path: Path) -> None:
    b = [A[0], answer(1, "joy", 2, 3), answer(2, "calm", 4, 5), A[3]]
    first, second = write(tmp_path / "a.jsonl", A), write(tmp_path / "b.jsonl", b)
    gold = tmp_path / "gold.csv"
    gold.write_text("utterance,emotion\n0,joy\n1,joy\n2,calm\n3,fear\n")
    result = CliRunner().invoke(
        app, ["compare", str(first), str(second), "--gold", str(gold), "--rows", "1"], env={"COLUMNS": "120"}
    )
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout.splitlines()[-1])
    assert told == {
        "utterances": 4,
        "only_a": 0,
        "only_b": 0,
        "agreement": 0.5,
        "mean_abs_dp": 0.15,
        "counts": {"joy": [1, 2], "fear": [1, 0], "anger": [1, 0], "calm": [1, 2]},
        "gold": {
            "A": {"accuracy": 0.25, "weighted_f1": pytest.approx(0.5 * 2 / 3, abs=1e-4)},
            "B": {"accuracy": 0.75, "weighted_f1": pytest.approx(0.5 + 0.25 * 2 / 3, abs=1e-4)},
            "n": 4,
            "only_a_right": 0,
            "only_b_right": 2,
            "both_right": 1,
        },
    }
    assert "[red] [31mline 1" in result.stdout and "... and 1 more that differ (--rows)" in result.stdout
    assert "\x1b" not in result.stdout
