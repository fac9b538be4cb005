"""Banks hold recordings by emotion, from encoders that never met them, split without a picture in common."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cmath_stream.training.banks import centred, out_of_fold_voices, pictured_faces, read_out_of_fold
from cmath_stream.training.data import MELD7, DataError


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    votes = np.zeros((60, 10), np.uint8)
    votes[np.arange(60), np.arange(60) % 10] = 9
    path = tmp_path / "faces.npz"
    np.savez(path, image=rng.integers(0, 255, (60, 48, 48), dtype=np.uint8), votes=votes)
    return path


def test_out_of_fold_voices_come_in_all_versions_by_emotion(tmp_path: Path) -> None:
    path = tmp_path / "voices.npz"
    features = np.random.default_rng(0).normal(size=(4, 8, 8)).astype(np.float32)
    np.savez(path, key=np.arange(8).astype(str), features=features, emotion=np.arange(8), actor=np.full(8, 3))
    bank = out_of_fold_voices(path)
    assert bank.vectors.shape == (4, 8, 8)
    assert [MELD7[label] for label in bank.label] == [
        "neutral", "neutral", "joy", "sadness", "anger", "fear", "disgust", "surprise",
    ]  # fmt: skip
    assert read_out_of_fold(path).key == tuple("01234567")
    with pytest.raises(DataError, match="train the voice first"):
        out_of_fold_voices(tmp_path / "none.npz")


def test_parts_of_the_pictures_share_none_and_leave_out_what_has_no_name(
    pictures: Path, tmp_path: Path
) -> None:
    whole, first, second = (
        pictured_faces(pictures, part, tmp_path) for part in ((0.0, 1.0), (0.0, 0.5), (0.5, 1.0))
    )
    assert len(whole.label) == 60 * 7 // 10  # not contempt, unknown, not a face
    assert len(first.label) + len(second.label) == len(whole.label)
    rows = {row.tobytes() for row in first.vectors[0]}
    assert not rows & {row.tobytes() for row in second.vectors[0]}
    assert whole.vectors.shape[2] == 136
    with pytest.raises(DataError, match="no picture"):
        pictured_faces(pictures, (0.5, 0.5), tmp_path)


def test_centred_posteriors_mean_what_the_encoder_gives() -> None:
    posterior = np.array([[0.5, 0.25, 0.25], [1.0, 0.0, 0.0]])
    rows = centred(posterior)
    np.testing.assert_allclose(rows.mean(axis=1), 0.0, atol=1e-6)
    assert rows[0, 0] - rows[0, 1] == pytest.approx(np.log(2.0))
    assert np.isfinite(rows).all()
