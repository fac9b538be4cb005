"""The face encoder by recipe: from votes to weights that load, figures, and answers to judge."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from realtime.errors import ModelUnavailable, SettingsError
from tests.encoders import face_weights
from tests.faces import faces, votes
from workers.face_encoder import LABELS, encode, load
from workers.training.face import judge_face, train_face
from workers.training.face_learning import Recipe
from workers.training.recipes import read_recipe

RECIPE = """kind = "face"
name = "quick"
epochs = 2
crops_px = [44]
grows_at = []
batch = 16
[network]
stem = 8
widths = [8]
depths = [1]
squeeze = 4
dim = 5
"""


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def test_pictures_in_weights_and_figures_out(tmp_path: Path) -> None:
    recipe, folder = tmp_path / "recipe.toml", tmp_path / "ferplus"
    recipe.write_text("until = 1\n" + RECIPE)
    folder.mkdir()
    for name in ("train.npz", "valid.npz"):
        np.savez(folder / name, image=votes().image, votes=votes().votes)
    told = train_face(recipe, tmp_path, tmp_path / "out", progress=False)
    assert load(Path(told["weights"]))[1].training["epochs_done"] == 1
    recipe.write_text(RECIPE)
    told = train_face(recipe, folder, tmp_path / "out", progress=False)  # the folder itself will do, too
    model, meta = load(Path(told["weights"]))
    assert (meta.name, meta.training["epochs_done"], model.config.dim) == ("quick", 2, 5)
    assert meta.training["validation"] == told["validation"]
    judged = judge_face(folder / "valid.npz", Path(told["weights"]))
    hits = judged.also["plurality"].probabilities.argmax(axis=1) == judged.also["plurality"].label
    assert hits.mean() == pytest.approx(told["validation"]["accuracy"], abs=0.1)  # kept in half precision


def test_judging_by_both_protocols(tmp_path: Path) -> None:
    table = np.zeros((4, 10), np.uint8)
    table[0, 3] = 10  # a majority
    table[1, :3] = (4, 3, 3)  # a plurality
    table[2, 9] = 10  # not a face
    table[3, 1] = 10
    np.savez(tmp_path / "some.npz", image=faces(4), votes=table)
    weights = face_weights(tmp_path)
    judged = judge_face(tmp_path / "some.npz", weights)
    assert judged.label.tolist() == [3, 1]
    assert judged.also["plurality"].label.tolist() == [3, 0, 1]
    assert (judged.labels, judged.checkpoint) == (LABELS, "face-small-2")
    assert "majority" in judged.protocol
    assert "plurality" in judged.also["plurality"].protocol
    assert judged.probabilities.dtype == np.float64
    np.testing.assert_allclose(judged.probabilities.sum(axis=1), 1.0)
    said = encode(load(weights)[0], faces(4)).posterior
    np.testing.assert_allclose(judged.probabilities, said[[0, 3]], atol=1e-5)


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="none.npz"):
        judge_face(tmp_path / "none.npz", face_weights(tmp_path))
    with pytest.raises(ModelUnavailable):
        judge_face(tmp_path / "none.npz", tmp_path / "none.safetensors")


def test_the_recipe_of_the_shipped_encoder(tmp_path: Path) -> None:
    recipe = read_recipe(Recipe, Path(__file__).parent.parent / "configs" / "train-face.toml", "face")
    assert recipe.name == "face-cnn"
    assert recipe.half
    assert not Recipe().half
    (tmp_path / "bad.toml").write_text("epoch = 3")
    with pytest.raises(SettingsError, match="unknown setting epoch"):
        read_recipe(Recipe, tmp_path / "bad.toml", "face")
    for text in ("crops_px = [33]\ngrows_at = []", "crops_px = [32, 44]\ngrows_at = []", "until = 50"):
        (tmp_path / "bad.toml").write_text(text)
        with pytest.raises(SettingsError):
            read_recipe(Recipe, tmp_path / "bad.toml", "face")
