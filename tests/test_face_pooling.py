"""How well a face was seen decides what it counts; hand-computed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from workers.face_pooling import BLURRED, FULL_PX, SHARP, Sight, missing, pool, sharpness, weight

PERFECT = Sight(side_px=FULL_PX, sharpness=SHARP, centrality=1.0, turned=0.0, share=1.0, faces=1)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, 1.0),
        ({"side_px": 3 * FULL_PX, "sharpness": 5 * SHARP}, 1.0),
        ({"side_px": FULL_PX / 2}, 0.5),
        ({"sharpness": BLURRED}, 0.0),
        ({"sharpness": (BLURRED * SHARP) ** 0.5}, 0.5),  # half-way on a logarithmic scale
        ({"centrality": 0.0}, 0.5),
        ({"turned": 1.0}, 0.5),
        ({"share": 0.5, "faces": 2}, 0.75),
        ({"side_px": FULL_PX / 2, "turned": 0.5}, 0.375),
    ],
)
def test_weight(change: dict[str, float], expected: float) -> None:
    assert weight(replace(PERFECT, **change)) == pytest.approx(expected)  # type: ignore[arg-type]


def test_sharpness_does_not_see_gain_but_sees_blur() -> None:
    face = np.random.default_rng(0).integers(0, 128, (48, 48)).astype(np.uint8)
    assert sharpness(face * 2) == pytest.approx(sharpness(face), rel=0.01)
    slope = np.tile(np.arange(48, dtype=np.uint8) * 4, (48, 1))
    assert sharpness(slope) < BLURRED < SHARP < sharpness(face)
    assert sharpness(np.full((48, 48), 90, np.uint8)) == 0.0


def test_sharpness_by_hand() -> None:
    spot = np.zeros((5, 5), np.uint8)
    spot[2, 2] = 10  # Laplacian of the inner 3 x 3: 40 in the middle, -10 at four places
    inner = np.array([40, -10, -10, -10, -10, 0, 0, 0, 0])
    assert sharpness(spot) == pytest.approx(inner.var() / (spot.astype(float).var() + 1.0))


def test_why_there_is_nothing() -> None:
    blurred = replace(PERFECT, sharpness=0.0)
    assert missing([]) == "no_face"
    assert missing([blurred, blurred]) == "blurred"
    assert missing([blurred, PERFECT]) is None
    with pytest.raises(ValueError, match="no face"):
        pool(np.ones((1, 2), np.float32), np.ones((1, 2), np.float32), [blurred], 1)


def test_a_mean_by_weight() -> None:
    embeddings = np.array([[0, 8], [4, 0], [99, 99]], np.float32)
    posteriors = np.array([[1, 0], [0, 1], [0.5, 0.5]], np.float32)
    sights = [PERFECT, replace(PERFECT, side_px=FULL_PX / 3, faces=3), replace(PERFECT, sharpness=0.0)]
    pooled = pool(embeddings, posteriors, sights, pictures=4)
    np.testing.assert_allclose(pooled.posterior, (0.75, 0.25), atol=1e-6)
    np.testing.assert_allclose(pooled.vector, (1, 6, 0.75, 0.25), atol=1e-6)
    assert pooled.vector.dtype == np.float32
    assert pooled.quality == pytest.approx((1 + 1 / 3) / 4)
    assert pooled.faces == 3


def test_one_perfect_face_is_itself() -> None:
    pooled = pool(np.array([[1, 2]], np.float32), np.array([[0, 1]], np.float32), [PERFECT], 1)
    assert pooled.vector.tolist() == [1, 2, 0, 1]
    assert pooled.quality == 1.0
