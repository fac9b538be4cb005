"""What is left of a speaker's answers when the habit that shows in the earlier ones is taken away. Pure."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def running_normalised(
    features: NDArray[np.float32], speaker: NDArray[np.int64], prior: float = 4.0
) -> NDArray[np.float32]:
    """Rows [n, D] in the order they were spoken, speaker [n] -> each less the mean of its speaker before it.

    That mean counts `prior` further rows of zeros, so that it grows with the evidence: a first utterance is
    left as it is. Causal: a row depends on earlier ones alone. Raises ValueError for a prior of 0 or less.
    """
    if prior <= 0.0:
        raise ValueError("prior must be above 0: a single earlier utterance is no habit")
    result = np.empty_like(features)
    for each in np.unique(speaker):
        rows = np.flatnonzero(speaker == each)
        before = np.cumsum(features[rows], axis=0, dtype=np.float64) - features[rows]
        result[rows] = features[rows] - before / (np.arange(len(rows))[:, None] + prior)
    return result
