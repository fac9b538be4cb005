"""Which faces count under which protocol, and what they are called; figures by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from realtime.errors import SettingsError
from tests.faces import faces
from workers.training.ferplus import Votes, figures, read_votes


def test_what_counts_and_what_it_is_called() -> None:
    table = np.zeros((6, 10), np.float32)
    table[0, :2] = (7, 3)  # a majority
    table[1, :3] = (4, 3, 3)  # a plurality
    table[2, :2] = (5, 5)  # a tie
    table[3, [0, 8]] = (3, 6)  # unknown
    table[4, [0, 8]] = (5, 5)  # as much unknown as neutral
    data = Votes(faces(6), table)
    assert data.usable().tolist() == [True, True, True, False, True, False]
    assert data.judged("plurality").tolist() == [True, True, False, False, False, False]
    assert data.judged("majority").tolist() == [True, False, False, False, False, False]
    np.testing.assert_allclose(data.target()[1, :3], (0.4, 0.3, 0.3))
    np.testing.assert_allclose(data.target()[4, 0], 1.0)


def test_figures_by_hand() -> None:
    table = np.zeros((4, 10), np.float32)
    table[[0, 1, 2, 3], [0, 0, 1, 1]] = 10
    posterior = np.full((4, 8), 0.0, np.float32)
    posterior[[0, 1, 2, 3], [0, 0, 1, 0]] = 0.8
    posterior[:, 7] = 0.2
    told = figures(posterior, Votes(faces(4), table), "majority")
    assert told["accuracy"] == 0.75
    assert told["per_class"]["neutral"] == {"recall": 1.0, "f1": 0.8, "n": 2}
    assert told["weighted_f1"] == pytest.approx((0.8 + 2 / 3) / 2, abs=1e-4)
    assert told["macro_f1"] == pytest.approx((0.8 + 2 / 3) / 8, abs=1e-4)
    assert told["ece"] == pytest.approx(0.05)
    assert told["n"] == 4


def test_a_file_that_holds_no_votes_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", image=faces(2), votes=np.ones((2, 10), np.uint8))
    assert read_votes(tmp_path / "a.npz").votes.max() == 0  # single votes are nothing
    np.savez(tmp_path / "b.npz", image=faces(2), votes=np.ones((2, 8), np.uint8))
    for name in ("b.npz", "none.npz"):
        with pytest.raises(SettingsError, match=name):
            read_votes(tmp_path / name)
