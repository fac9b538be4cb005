"""FER+: faces, what a crowd of ten called each, which of them count, and figures by those rules.

A class with one vote or none counts nothing, "unknown" and "not a face" are left out, and so is a picture
where one of these two won or where no vote is left (Barsoum et al. 2016).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from realtime.errors import SettingsError
from workers.face_encoder import FACE_PX, LABELS, FaceEncoder, encode

PROTOCOLS = {
    "plurality": "votes <= 1 set to 0; pictures whose most voted class is one of the eight and has more "
    "votes than any other class, unknown and not-a-face included",
    "majority": "votes <= 1 set to 0; pictures where one of the eight has more than half of all votes left "
    "(the 'majority' mode of the FER+ reader)",
}
_BINS = 15  # of the calibration error

Grey = NDArray[np.uint8]  # [n, 48, 48]
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Votes:
    """Pictures and what the crowd said of them."""

    image: Grey
    votes: Floats  # [n, 10]: LABELS, unknown, not a face; 0 where there was one vote or none

    def usable(self) -> NDArray[np.bool_]:
        """[n] whether one of the eight won, alone or with others of them."""
        won: NDArray[np.bool_] = (self.votes.argmax(axis=1) < len(LABELS)) & (self.votes.max(axis=1) > 0)
        return won

    def target(self) -> Floats:
        """[n, 8] share of the votes for the eight; rows that are not usable mean nothing."""
        kept = self.votes[:, : len(LABELS)]
        share: Floats = kept / np.maximum(kept.sum(axis=1, keepdims=True), 1)
        return share

    def judged(self, protocol: str) -> NDArray[np.bool_]:
        """[n] whether a picture counts under one of PROTOCOLS."""
        ordered = np.sort(self.votes, axis=1)
        rival = ordered[:, -2] if protocol == "plurality" else self.votes.sum(axis=1) / 2
        return self.usable() & np.asarray(ordered[:, -1] > rival)


def read_votes(path: Path) -> Votes:
    """Read `image` uint8 [n, 48, 48] and `votes` [n, 10]. Raises SettingsError for anything else."""
    try:
        with np.load(path) as file:
            image, votes = file["image"], file["votes"].astype(np.float32)
    except (OSError, KeyError, ValueError) as error:
        raise SettingsError(f"{path}: not a file of FER+ pictures and votes: {error}") from error
    if image.shape[1:] != (FACE_PX, FACE_PX) or image.dtype != np.uint8 or votes.shape != (len(image), 10):
        raise SettingsError(f"{path}: expected image uint8 [n, 48, 48] and votes [n, 10]")
    return Votes(image, np.where(votes <= 1, 0, votes).astype(np.float32))


def figures(posterior: Floats, data: Votes, protocol: str) -> dict[str, Any]:
    """Accuracy, recall and F1 a class, macro and weighted F1, calibration error (15 bins) and n."""
    judged = data.judged(protocol)
    label, chances = data.votes[judged].argmax(axis=1), posterior[judged].astype(np.float64)
    said, sure = chances.argmax(axis=1), chances.max(axis=1)
    table = np.zeros((len(LABELS), len(LABELS)))
    np.add.at(table, (label, said), 1)  # rows: the crowd; columns: the encoder
    right, support = np.diag(table), table.sum(axis=1)
    f1 = 2 * right / np.maximum(support + table.sum(axis=0), 1)
    place = np.minimum((sure * _BINS).astype(int), _BINS - 1)
    gaps = [abs(float((said == label)[place == b].sum() - sure[place == b].sum())) for b in range(_BINS)]
    return {
        "accuracy": round(float(right.sum() / support.sum()), 4),
        "macro_f1": round(float(f1.mean()), 4),
        "weighted_f1": round(float((f1 * support).sum() / support.sum()), 4),
        "ece": round(sum(gaps) / len(label), 4),
        "n": len(label),
        "per_class": {
            name: {
                "recall": round(float(right[c] / max(1, support[c])), 4),
                "f1": round(float(f1[c]), 4),
                "n": int(support[c]),
            }
            for c, name in enumerate(LABELS)
        },
        "protocol": PROTOCOLS[protocol],
    }


def report(model: FaceEncoder, data: Votes) -> dict[str, Any]:
    """Figures under both protocols, mirror images averaged."""
    posterior = encode(model, data.image).posterior
    return figures(posterior, data, "plurality") | {"majority": figures(posterior, data, "majority")}
