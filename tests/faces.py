"""Pictures of no one: noise of the size of a face, and votes on it."""

from __future__ import annotations

from typing import Any

import numpy as np

from workers.training.ferplus import Votes


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
