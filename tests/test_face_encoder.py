"""The face encoder keeps its shapes, forgets exposure, learns, repeats itself, and loads only when whole."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from realtime.errors import ModelUnavailable, SettingsError
from realtime.settings import load as load_settings
from workers import face_encoder
from workers.face_encoder import FaceEncoder, FaceMeta, FaceNetConfig, encode, standardise
from workers.training.face import (
    Augmentation,
    Recipe,
    Votes,
    augment,
    figures,
    fold_of,
    one_cycle,
    read_votes,
    train,
)

SMALL = FaceNetConfig(stem=8, widths=(8, 16), depths=(1, 1), squeeze=4, dim=12)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Tiny tensors: threads cost more than they bring, and sums keep their order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def small() -> FaceEncoder:
    torch.manual_seed(0)
    return FaceEncoder(SMALL).eval()


def faces(count: int = 4, seed: int = 0) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(seed).integers(40, 200, (count, 48, 48)).astype(np.uint8)


def votes(count: int = 32) -> Votes:
    """Faces that are bright on one side, above or below, and votes that say so."""
    kind = np.arange(count) % 4
    image = np.random.default_rng(1).integers(60, 120, (count, 48, 48)).astype(np.uint8)
    for face, where in zip(image, kind, strict=True):
        half = face[24:] if where == 0 else face[:24] if where == 1 else face[20:28] if where == 2 else face
        half[:] += 80
    table = np.zeros((count, 10), np.float32)
    table[np.arange(count), kind] = 8
    table[:, 4] = 2
    return Votes(image, table)


def test_shapes_and_a_posterior_that_sums_to_one(small: FaceEncoder) -> None:
    result = encode(small, faces(5))
    assert result.embedding.shape == (5, SMALL.dim)
    assert result.posterior.shape == (5, len(face_encoder.LABELS))
    np.testing.assert_allclose(result.posterior.sum(axis=1), 1.0, atol=1e-5)
    assert encode(small, faces(0)).embedding.shape == (0, SMALL.dim)
    embedding, _ = small(torch.zeros(2, 1, 36, 44))
    assert embedding.shape == (2, SMALL.dim)


def test_a_batch_says_what_its_faces_say_alone_and_says_it_again(small: FaceEncoder) -> None:
    together = encode(small, faces(3))
    for row, face in enumerate(faces(3)):
        np.testing.assert_allclose(encode(small, face[None]).embedding[0], together.embedding[row], atol=1e-5)
    np.testing.assert_array_equal(encode(small, faces(3)).embedding, together.embedding)


def test_a_mirror_image_is_the_same_face(small: FaceEncoder) -> None:
    straight, mirrored = encode(small, faces()), encode(small, np.ascontiguousarray(faces()[:, :, ::-1]))
    np.testing.assert_allclose(straight.embedding, mirrored.embedding, atol=1e-5)


def test_exposure_and_contrast_cancel_and_a_flat_picture_is_finite(small: FaceEncoder) -> None:
    grey = torch.from_numpy(faces()[:, None]).float()
    torch.testing.assert_close(standardise(grey), standardise(grey * 0.6 + 30), atol=0.05, rtol=0)
    assert standardise(torch.full((1, 1, 48, 48), 7.0)).abs().max() == 0
    flat = encode(small, np.full((1, 48, 48), 255, np.uint8))
    assert np.isfinite(flat.embedding).all()


def test_it_can_be_exported(small: FaceEncoder) -> None:
    batch = torch.export.Dim("batch", min=1, max=64)
    example = torch.from_numpy(faces(2)[:, None])
    program = torch.export.export(small, (example,), dynamic_shapes=({0: batch},))
    other = torch.from_numpy(faces(5, seed=3)[:, None])
    torch.testing.assert_close(program.module()(other), small(other))


def test_a_shape_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="stages"):
        FaceNetConfig(widths=(8,), depths=(1, 1))


# ---- files


def meta() -> FaceMeta:
    return FaceMeta("face-test", "3", SMALL, "none", ("noise",), {"note": "untrained"})


def test_what_is_saved_is_loaded(small: FaceEncoder, tmp_path: Path) -> None:
    path = tmp_path / "face.safetensors"
    face_encoder.save(path, small, meta())
    again, told = face_encoder.load(path)
    assert told == meta()
    assert not again.training
    np.testing.assert_allclose(
        encode(again, faces()).posterior, encode(small, faces()).posterior, atol=2e-3
    )  # kept in half precision


def _cut_weights(folder: Path) -> None:
    path = folder / "face.safetensors"
    path.write_bytes(path.read_bytes()[:-1])


def _rewrite(folder: Path, **changes: object) -> None:
    path = folder / "face.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (_cut_weights, "damaged"),
        (lambda folder: (folder / "face.json").unlink(), "No such file"),
        (lambda folder: (folder / "face.json").write_text("no"), "not a usable"),
        (lambda folder: (folder / "face.json").write_text("{}"), "not a usable"),
        (lambda folder: _rewrite(folder, format=9), "format 9"),
        (lambda folder: _rewrite(folder, labels=["a", "b"]), "labels"),
        (lambda folder: _rewrite(folder, config={"widths": [8], "depths": [1]}), "not a usable"),
    ],
)
def test_a_damaged_encoder_is_one_clear_line(
    small: FaceEncoder, tmp_path: Path, damage: Any, says: str
) -> None:
    face_encoder.save(tmp_path / "face.safetensors", small, meta())
    damage(tmp_path)
    with pytest.raises(ModelUnavailable, match=says) as caught:
        face_encoder.load(tmp_path / "face.safetensors")
    assert "\n" not in str(caught.value)


def test_the_shipped_encoder_is_what_its_card_says() -> None:
    path = face_encoder.shipped()
    model, told = face_encoder.load(path)
    assert (told.name, told.version) == ("face-cnn", "1")
    assert sum(each.numel() for each in model.parameters()) <= 2_000_000
    assert path.stat().st_size < 9_000_000
    assert told.training["validation"]["majority"]["accuracy"] >= 0.85
    blank, bright = encode(model, faces(2)), encode(model, (faces(2) * 0.8 + 40).astype(np.uint8))
    assert np.abs(blank.posterior - bright.posterior).max() < 0.05


# ---- training


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


def test_augmentation_repeats_itself_and_can_be_switched_off() -> None:
    grey = torch.from_numpy(faces(8)[:, None])

    def spoiled(how: Augmentation, px: int = 36) -> torch.Tensor:
        return augment(grey, px, how, torch.Generator().manual_seed(5))

    assert spoiled(Augmentation()).shape == (8, 1, 36, 36)
    torch.testing.assert_close(spoiled(Augmentation()), spoiled(Augmentation()), rtol=0, atol=0)
    none = Augmentation(0, 0, 0, 0, 0, 0, 0, 0, 0)
    same = spoiled(none, 48)
    for face, result in zip(grey.float(), same, strict=True):  # as it was, or mirrored
        assert min((face - result).abs().max(), (face.flip(2) - result).abs().max()) < 0.1


def test_the_schedule_rises_then_falls() -> None:
    rates = [one_cycle(done, 0.2) for done in np.linspace(0, 1, 11)]
    assert rates[2] == 1.0 == max(rates)
    assert rates == [*sorted(rates[:3]), *sorted(rates[3:], reverse=True)]
    assert rates[-1] < 1e-6


def test_folds_halve_the_pictures_and_are_always_the_same() -> None:
    assert np.bincount(fold_of(101)).tolist() == [51, 50]
    np.testing.assert_array_equal(fold_of(101), fold_of(101))


QUICK = Recipe(
    name="quick",
    epochs=4,
    crops_px=(44,),
    grows_at=(),
    batch=16,
    learning_rate=0.05,
    ema=0.5,
    half=False,
    network=SMALL,
    augmentation=Augmentation(0, 0, 0, 0, 0, 0, 0, 0, 0),
)


def test_it_learns_a_batch_by_heart(tmp_path: Path) -> None:
    told = train(replace(QUICK, epochs=24), votes(), votes(), tmp_path, progress=False)
    assert told.training["validation"]["accuracy"] == 1.0
    assert told.training["pictures"] == 32


def test_a_resumed_run_repeats_the_uninterrupted_one(tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train(QUICK, votes(), votes(), whole, progress=False)
    early = train(QUICK, votes(), votes(), cut, until=3, progress=False)
    assert early.training["epochs_done"] == 3
    train(QUICK, votes(), votes(), cut, progress=False)
    assert (cut / "face.safetensors").read_bytes() == (whole / "face.safetensors").read_bytes()
    with pytest.raises(SettingsError, match="another recipe"):
        train(Recipe(), votes(), votes(), cut, progress=False)


def test_a_fold_trains_on_the_other_half(tmp_path: Path) -> None:
    told = train(replace(QUICK, epochs=1, fold=1), votes(), votes(), tmp_path, progress=False)
    assert told.training["pictures"] == 16


def test_the_recipe_of_the_shipped_encoder(tmp_path: Path) -> None:
    recipe = load_settings(Recipe, Path(__file__).parent.parent / "configs" / "train-face.toml", {})
    assert recipe.name == "face-cnn"
    (tmp_path / "bad.toml").write_text("epoch = 3")
    with pytest.raises(SettingsError, match="unknown setting epoch"):
        load_settings(Recipe, tmp_path / "bad.toml", {})
    for text in ("crops_px = [33]\ngrows_at = []", "crops_px = [32, 44]\ngrows_at = []", "fold = 2"):
        (tmp_path / "bad.toml").write_text(text)
        with pytest.raises(SettingsError):
            load_settings(Recipe, tmp_path / "bad.toml", {})
