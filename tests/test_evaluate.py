"""Metrics are what the textbook says, and an evaluation counts what it should."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, recall_score  # type: ignore[import-untyped]

from cmath_stream.model import CMATH, CMATHConfig
from cmath_stream.training import evaluate
from cmath_stream.training.data import UNLABELLED, synthetic

CONFIG = CMATHConfig(dims=(("text", 6), ("audio", 5)), classes=4, width=8, heads=2, window=4)


def guesses(rows: int = 400, seed: int = 0) -> tuple[evaluate.Probabilities, evaluate.Labels]:
    """Probabilities that say how sure they are truthfully, and labels drawn from them."""
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.full(5, 0.5), size=rows)
    label = np.array([rng.choice(5, p=row) for row in probabilities], dtype=np.int64)
    return probabilities, label


def test_metrics_agree_with_a_known_library() -> None:
    probabilities, label = guesses()
    said = probabilities.argmax(axis=1)
    figures = evaluate.metrics(probabilities, label)
    assert figures.utterances == 400
    assert figures.accuracy == pytest.approx(accuracy_score(label, said))
    assert figures.weighted_f1 == pytest.approx(f1_score(label, said, average="weighted"))
    assert figures.macro_f1 == pytest.approx(f1_score(label, said, average="macro"))
    np.testing.assert_allclose(figures.f1, f1_score(label, said, average=None))
    np.testing.assert_allclose(figures.recall, recall_score(label, said, average=None))
    assert sum(figures.support) == 400


def test_a_class_without_rows_scores_nothing_and_breaks_nothing() -> None:
    figures = evaluate.metrics(np.eye(3)[[0, 0, 1]], np.array([0, 0, 1]))
    assert figures.f1 == (1.0, 1.0, 0.0)
    assert figures.weighted_f1 == figures.accuracy == 1.0
    assert figures.ece == 0.0


def test_calibration_error_of_the_honest_and_of_the_boastful() -> None:
    probabilities, label = guesses(20_000)
    assert evaluate.calibration_error(probabilities, label) < 0.02
    sure = np.eye(5)[probabilities.argmax(axis=1)]
    wrong = (probabilities.argmax(axis=1) != label).mean()
    assert evaluate.calibration_error(sure, label) == pytest.approx(wrong)


def test_calibration_interval_holds_the_floor_of_an_honest_model() -> None:
    low, high, floor = evaluate.calibration_interval(*guesses())
    assert 0.0 < low < high < 0.2
    assert 0.02 < floor < 0.09  # a perfect model does not show zero at this n


def test_the_sure_half_is_wrong_less_often() -> None:
    curve = evaluate.risk_coverage(*guesses())
    assert curve[-1, 0] == 1.0
    assert curve[199, 1] < curve[-1, 1]


def test_temperature_is_recovered() -> None:
    probabilities, label = guesses(5_000)
    boastful = (3.0 * np.log(probabilities)).astype(np.float32)
    assert evaluate.fit_temperature(boastful, label) == pytest.approx(3.0, rel=0.1)
    answers = evaluate.Answers(boastful, label, np.ones((5_000, 2), bool), np.arange(5_000) // 10)
    assert evaluate.calibration_error(evaluate.cross_fitted(answers), label) < 0.03


def test_patterns_are_all_non_empty_subsets() -> None:
    assert len(evaluate.patterns(["text", "audio", "visual"])) == 7
    assert evaluate.patterns(["text", "audio"]) == {"text": (0,), "audio": (1,), "text+audio": (0, 1)}


def test_only_labelled_rows_with_something_present_are_counted() -> None:
    model = CMATH(CONFIG).eval()
    examples = synthetic(9, [6, 5], 4, absent=0.4)
    examples[3].label[:] = UNLABELLED
    labelled = sum(int((example.label != UNLABELLED).sum()) for example in examples)
    assert len(evaluate.answer(model, examples).label) == labelled
    heard = sum(int(e.presence[e.label != UNLABELLED, 1].sum()) for e in examples)
    audio = evaluate.answer(model, examples, keep=(1,))
    assert len(audio.label) == heard
    assert not audio.presence[:, 0].any()
    assert 3 not in audio.dialogue


def test_batching_changes_no_answer() -> None:
    model = CMATH(CONFIG).eval()
    examples = synthetic(9, [6, 5], 4)
    one, many = evaluate.answer(model, examples, batch=1), evaluate.answer(model, examples, batch=9)
    np.testing.assert_allclose(one.logits, many.logits, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(one.dialogue, many.dialogue)
