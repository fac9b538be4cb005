"""The running mean looks back only, converges to the person, and takes revisions in their old place."""

from __future__ import annotations

import numpy as np
import pytest

from cmath_stream.running import RunningMean, beside_running_mean

ROWS = np.random.default_rng(0).normal(3.0, 1.0, (200, 4)).astype(np.float32)
EVERYBODY = np.zeros(4, np.float32)


def test_step_by_step_equals_all_at_once() -> None:
    running = RunningMean(EVERYBODY)
    steps = np.stack([running.beside(str(n), row) for n, row in enumerate(ROWS)])
    np.testing.assert_allclose(steps, beside_running_mean(ROWS, EVERYBODY), rtol=1e-4, atol=1e-4)


def test_nothing_of_an_utterance_or_of_later_ones_is_in_its_mean() -> None:
    other = ROWS.copy()
    other[50:] = 1e3
    once, again = (beside_running_mean(rows, EVERYBODY) for rows in (ROWS, other))
    np.testing.assert_array_equal(once[:50], again[:50])
    usual = [both[50, :4] - both[50, 4:] for both in (once, again)]
    np.testing.assert_allclose(usual[0], usual[1], rtol=1e-3)


def test_it_begins_with_everybody_and_ends_with_the_person() -> None:
    both = beside_running_mean(ROWS, EVERYBODY)
    np.testing.assert_array_equal(both[0, 4:], ROWS[0])  # nothing known but everybody's zero
    usual = both[:, :4] - both[:, 4:]
    assert usual[-1] == pytest.approx(ROWS.mean(axis=0), abs=0.2)


def test_a_revision_is_set_beside_the_same_mean_and_counts_once() -> None:
    running, plain = RunningMean(EVERYBODY), RunningMean(EVERYBODY)
    for n, row in enumerate(ROWS[:3]):
        running.beside(str(n), row + 5.0)
        revised = running.beside(str(n), row)
        np.testing.assert_allclose(revised, plain.beside(str(n), row), rtol=1e-4, atol=1e-5)


def test_what_it_keeps_is_bounded() -> None:
    running = RunningMean(EVERYBODY)
    for n in range(1_000):
        running.beside(str(n), ROWS[n % 200])
    assert len(running._known) <= 64
