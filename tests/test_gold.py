"""Labels beside answers: which belongs to which, what counts, and the same figures as a known library's."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score  # type: ignore[import-untyped]
from typer.testing import CliRunner

from cmath_stream import answers, confusion, offline
from cmath_stream.answers import Answer, EventsError
from cmath_stream.cli import app
from cmath_stream.training import gold
from cmath_stream.training.data import MELD7, DataError
from cmath_stream.training.gold import Gold
from tests.machines import tiny_replay
from tests.test_cli import run

SURE = {label: tuple(0.4 if each == label else 0.1 for each in MELD7) for label in MELD7}


def answer(label: str, index: int = 0, **changed: Any) -> Answer:
    made = Answer("talk", "anna", f"anna.{index}", index, 0, 1000, "", MELD7, SURE[label], False, "m-1")
    return replace(made, **changed)


def pairs(scored: gold.Scored) -> list[tuple[str | None, str]]:
    return [(truth.emotion, said.label) for truth, said in scored.matched]


def test_by_place_in_the_dialogue() -> None:
    said = [answer("joy", 0), answer("fear", 1), answer("anger", 0, room="other")]
    labels = [
        Gold("joy", "talk", 0),
        Gold("anger", "talk", 1),
        Gold("sadness", "other", 0),
        Gold("joy", "talk", 7),
    ]
    scored = gold.score(labels, said, "x.csv")
    assert pairs(scored) == [("joy", "joy"), ("anger", "fear"), ("sadness", "anger")]
    assert (scored.missed, scored.uncounted) == (1, 0)


def test_by_time_the_longest_overlap_of_the_same_person() -> None:
    said = [
        answer("joy", 0, start_ms=0, end_ms=1000),
        answer("fear", 1, start_ms=1000, end_ms=4000),
        answer("anger", 2, start_ms=900, end_ms=4000, participant_id="Dr.-Long"),
    ]
    at = (
        ("Anna", 800, 1300),
        ("Dr. Long", 800, 1000),
        ("anna", 5000, 6000),
        (None, 900, 3000),
        ("carl", 0, 9),
    )
    labels = [Gold("neutral", participant=who, start_ms=a, end_ms=b) for who, a, b in at]
    scored = gold.score(labels, said, "x.csv")
    assert [said.label for _, said in scored.matched] == ["fear", "anger", "anger"]
    assert scored.missed == 2


def test_what_has_no_counterpart_is_told_apart_from_what_is_wrong() -> None:
    said = [answer("joy", n) for n in range(4)]
    labels = [Gold("Joyful", place=0), Gold("Peaceful", place=1), Gold(None, place=2), Gold("JOY", place=3)]
    scored = gold.score(labels, said, "x.csv")
    assert scored.judged.label.tolist() == [4, 4] and scored.uncounted == 2
    with pytest.raises(DataError, match=r"x\.csv: emotion 'hangry'; the model knows neutral, surprise, fear"):
        gold.score([Gold("hangry", place=0)], said, "x.csv")


@pytest.mark.parametrize(
    ("labels", "said", "why"),
    [
        ([Gold("joy", place=0)], [], "nothing to score"),
        ([Gold("joy", "no", 0)], [answer("joy")], "none of its 1 labels is of an utterance here"),
        (
            [Gold("joy", place=0)],
            [answer("joy"), answer("joy", room="b")],
            "must say which of talk, b is meant",
        ),
        (
            [Gold("joy", place=0)],
            [answer("joy"), answer("joy", labels=MELD7[::-1], model="n-2")],
            "answers of models with other labels: m-1, n-2",
        ),
    ],
)
def test_what_does_not_belong_together_is_said(labels: list[Gold], said: list[Answer], why: str) -> None:
    with pytest.raises(DataError, match=why):
        gold.score(labels, said, "x.csv")


def test_tables_and_corpora_are_read(tmp_path: Path) -> None:
    def read(name: str, text: str) -> list[Gold]:
        path = tmp_path / name
        path.write_text(text, "utf-8")
        return gold.read(path)

    assert read("a.csv", "Participant,start_ms,end_ms,Emotion\nAnna,10,1000.4,joy\n") == [
        Gold("joy", None, None, "Anna", 10, 1000)
    ]
    assert read("a.csv", "start_s,end_s,emotion,file\n1.5,2,,below/a.wav\n") == [
        Gold(None, "below/a.wav", None, None, 1500, 2000)
    ]
    assert read("a.csv", "\ufeffdialogue,utterance,emotion\nd1,3,fear\n") == [Gold("fear", "d1", 3)]
    rows = 'Utterance,Speaker,Emotion,Dialogue_ID,Utterance_ID\n"Hi, you",Jo,joy,4,2\nBye,Jo,fear,4,5\n'
    assert read("a.csv", rows) == [Gold("joy", "4", 0), Gold("fear", "4", 1)]
    talk = {"dialogue": "d", "utterances": [{"speaker": "a", "text": "b", "emotion": "joy"}]}
    assert read("a.jsonl", json.dumps(talk)) == [Gold("joy", "d", 0)]
    for text, why in (
        ("emotion\njoy\n", "labels have a column `emotion`, and"),
        ("utterance,emotion\nx,joy\n", r"a\.csv:2: not a label"),
        ("start_ms,end_ms,emotion\n1,two,joy\n", r"a\.csv:2: not a label"),
        ("start_ms,end_ms,emotion\n1\n", r"a\.csv:2: not a label"),
    ):
        with pytest.raises(DataError, match=why):
            read("a.csv", text)


def test_events_are_read_back_and_what_is_none_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    for line, why in (
        ("{}", r"x\.jsonl:1: not an event"),
        ('{"schema": "emotion-event/1", "type": "emotion.utterance", "session_id": "s"}', "utterance_id"),
    ):
        path.write_text(line + "\n")
        with pytest.raises(EventsError, match=why):
            answers.read(path)
    with pytest.raises(EventsError, match="cannot be read"):
        answers.read(tmp_path / "none.jsonl")


def test_the_matrix_is_counted_and_drawn(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    truth, said = rng.integers(0, 7, 200), rng.integers(0, 7, 200)
    table = confusion.counts(truth, said, 7)
    np.testing.assert_array_equal(table, confusion_matrix(truth, said))
    for name in ("a.png", "b.png"):
        confusion.draw(table, MELD7, "a $title$", tmp_path / name)
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_the_command_prints_what_sklearn_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = tiny_replay(tmp_path)
    monkeypatch.setattr(offline, "build", lambda settings: machine)
    rng = np.random.default_rng(1)
    dialogues = [
        {
            "dialogue": f"d{n}",
            "utterances": [
                {"speaker": "ab"[i % 2], "text": f"words {n} {i}", "emotion": MELD7[rng.integers(7)]}
                for i in range(9)
            ],
        }
        for n in range(6)
    ]
    talk, out = tmp_path / "talk.jsonl", tmp_path / "events.jsonl"
    talk.write_text("\n".join(map(json.dumps, dialogues)))
    result = CliRunner().invoke(app, ["replay", str(talk), "--gold", str(talk), "--out", str(out)])
    assert result.exit_code == 0, result.output
    figures = json.loads(result.stdout.splitlines()[-1])
    said = [each.label for each in answers.read(out)]
    truth = [row["emotion"] for dialogue in dialogues for row in dialogue["utterances"]]  # type: ignore[index]
    assert figures["n"] == 54 and figures["missed"] == figures["uncounted"] == 0
    assert figures["accuracy"] == round(accuracy_score(truth, said), 4)
    assert figures["weighted_f1"] == round(f1_score(truth, said, average="weighted", zero_division=0), 4)
    assert (tmp_path / "events.confusion.png").stat().st_size > 5_000
    piped = CliRunner().invoke(app, ["replay", str(talk), "--gold", str(talk)])
    assert piped.stdout == out.read_text("utf-8")
    assert json.loads(piped.stderr.splitlines()[-1]) == figures


@pytest.mark.slow
def test_a_replay_of_meld_scores_what_eval_does(data_dir: Path, tmp_path: Path) -> None:
    dev, out = str(data_dir / "meld/dev.jsonl"), str(tmp_path / "events.jsonl")
    environ = {"CMATH_STREAM__TEXT__WHISPER": "none"}
    replayed = run("replay", dev, "--gold", dev, "--out", out, environ=environ)
    judged = run("eval", "erc-text", dev, "--json", environ={"XDG_CACHE_HOME": str(tmp_path)})
    assert replayed.returncode == judged.returncode == 0, replayed.stderr + judged.stderr
    ours, theirs = (json.loads(each.stdout.splitlines()[-1]) for each in (replayed, judged))
    assert ours["n"] == 1109
    for figure in ("n", "accuracy", "weighted_f1", "macro_f1", "per_class", "ece", "checkpoint"):
        assert ours[figure] == theirs[figure], figure
