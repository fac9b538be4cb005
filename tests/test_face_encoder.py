"""The face encoder keeps its shapes, forgets exposure, and loads only when whole."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from realtime.errors import ModelUnavailable
from tests.faces import faces
from workers import face_encoder
from workers.face_encoder import FaceEncoder, FaceMeta, FaceNetConfig, encode, standardise

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
