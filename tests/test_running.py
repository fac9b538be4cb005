"""Running normalisation: causal, of each speaker's own past, and shy where that past is short."""

from __future__ import annotations

import numpy as np
import pytest

from workers.training.running import running_normalised

ROWS = np.random.default_rng(0).normal(size=(9, 3)).astype(np.float32)
SPEAKER = np.array([0, 1, 0, 0, 1, 2, 0, 1, 0])


def test_by_hand() -> None:
    rows = np.array([[4.0], [1.0], [4.0], [3.0], [0.0]], np.float32)
    speaker = np.array([7, 9, 7, 9, 7])
    made = running_normalised(rows, speaker, prior=2.0)
    np.testing.assert_allclose(made[:, 0], [4.0, 1.0, 4.0 - 4.0 / 3, 3.0 - 1.0 / 3, 0.0 - 8.0 / 4])


def test_the_future_and_other_speakers_have_no_say() -> None:
    made = running_normalised(ROWS, SPEAKER)
    changed = ROWS.copy()
    changed[4:] += 100.0
    assert np.array_equal(running_normalised(changed, SPEAKER)[:4], made[:4])
    changed = ROWS.copy()
    changed[SPEAKER != 0] = 50.0
    assert np.array_equal(running_normalised(changed, SPEAKER)[SPEAKER == 0], made[SPEAKER == 0])


def test_the_first_utterance_is_left_as_it_is_and_a_constant_habit_vanishes() -> None:
    made = running_normalised(np.ones((500, 1), np.float32), np.zeros(500, np.int64), prior=4.0)
    assert made[0] == 1.0
    assert made[-1] == pytest.approx(4.0 / 503.0, rel=1e-4)
    assert (np.diff(made[:, 0]) < 0.0).all()


def test_a_prior_that_trusts_a_single_utterance() -> None:
    with pytest.raises(ValueError, match="prior"):
        running_normalised(ROWS, SPEAKER, prior=0.0)
