"""What a judged encoder said, beside what is right: all that figures are made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Judged:
    """One encoder on one set of labelled examples."""

    probabilities: NDArray[np.float64]  # [n, C], rows sum to 1
    label: NDArray[np.int64]  # [n], index into labels
    labels: tuple[str, ...]  # [C]
    checkpoint: str  # "name-version"
    protocol: str  # which examples count, and how; one line
    key: tuple[str, ...] = ()  # [n] which example a row is of, where they have names
    group: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))  # [n] who is heard
    also: Mapping[str, Judged] = field(default_factory=dict)  # the same under other protocols, by name
