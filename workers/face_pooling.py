"""From the faces of an utterance's pictures to one vector, with a weight for how well each face was seen.

Pure: numbers in, numbers out. Knows neither pictures as they travel, nor the detector, nor the encoder.
The deviation over an utterance is left out of the vector on purpose: the pictures a fusion can be trained on
are stills, where it is zero, so a live call would show it numbers it has never met.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Sharpness of FER+ faces: median .7 as they are, .1 after a Gaussian of .8 pixels (about what the encoder was
# trained to bear), .011 after one of 2 pixels, where nothing but the pose is left.
BLURRED = 0.01
SHARP = 0.1
FULL_PX = 48  # side of a face from which on size costs nothing: the encoder sees no more

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Sight:
    """How one face was seen in one picture."""

    side_px: float  # of the face, in the picture as it was sent
    sharpness: float  # of the cut-out
    centrality: float  # 1 in the middle of the picture, 0 in a corner
    turned: float  # 0 = towards the camera, 1 = profile; 0 where the detector gives no landmarks
    share: float  # its area among all faces of the picture: 1 = alone
    faces: int  # in the picture


@dataclass(frozen=True, slots=True)
class Pooled:
    """One utterance, as it was seen."""

    vector: Floats  # [D + C]: weighted mean embedding, then weighted mean posterior
    posterior: Floats  # [C]
    quality: float  # 0..1: mean weight over all pictures, those without a face counting nothing
    faces: int  # the most that were in one picture; the largest, most central one was taken


def sharpness(grey: NDArray[np.uint8]) -> float:
    """Variance of the Laplacian of a face [H, W], as a share of the face's own variance: gain cancels."""
    x = grey.astype(np.float32)
    laplacian = 4 * x[1:-1, 1:-1] - x[:-2, 1:-1] - x[2:, 1:-1] - x[1:-1, :-2] - x[1:-1, 2:]
    return float(laplacian.var() / (x.var() + 1.0))  # one grey level of noise: a flat face is not sharp


def weight(sight: Sight) -> float:
    """0..1: what a face counts beside the others; 0 = too blurred to count at all.

    Size and sharpness are what the encoder reads. A place off the middle, a turned head and other faces
    beside it only make it less sure that this is the speaker, seen from the front; each costs half at most.
    """
    if sight.sharpness <= BLURRED:
        return 0.0
    sharp = min(1.0, float(np.log(sight.sharpness / BLURRED) / np.log(SHARP / BLURRED)))
    size = min(1.0, sight.side_px / FULL_PX)
    return sharp * size * _half(sight.centrality) * _half(1.0 - sight.turned) * _half(sight.share)


def _half(value: float) -> float:
    return 0.5 + 0.5 * min(1.0, max(0.0, value))


def missing(sights: Sequence[Sight]) -> str | None:
    """Why the faces of an utterance give no features, "no_face" or "blurred"; None where they do."""
    if not sights:
        return "no_face"
    return None if any(weight(sight) > 0.0 for sight in sights) else "blurred"


def pool(embeddings: Floats, posteriors: Floats, sights: Sequence[Sight], pictures: int) -> Pooled:
    """Faces [n, D] and [n, C], how each was seen, and how many pictures were looked at (>= n).

    Raises ValueError where `missing` gives a reason: there is nothing to average.
    """
    weights: Floats = np.array([weight(sight) for sight in sights], np.float32)
    total = float(weights.sum())
    if total == 0.0:
        raise ValueError("no face that counts")
    share = weights / total
    posterior = np.asarray(share @ posteriors, np.float32)
    return Pooled(
        vector=np.concatenate([share @ embeddings, posterior]).astype(np.float32),
        posterior=posterior,
        quality=min(1.0, total / pictures),
        faces=max(sight.faces for sight in sights),
    )
