"""Windows in, calibrated emotions out: one call of the model for many sessions.

Knows tensors and the checkpoint; knows nothing of sessions. Batches are padded to a few fixed
sizes and the window to its full length, so that the model only ever sees shapes it has been warmed up on.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from cmath_stream.checkpoint import Checkpoint
from cmath_stream.prediction import EngineConfig, EngineInfo, Prediction
from cmath_stream.window import Row
from realtime.messages import Features

Probabilities = NDArray[np.float64]
Flags = NDArray[np.bool_]


class Engine:
    """Runs one checkpoint. All calls come from one thread."""

    def __init__(self, checkpoint: Checkpoint, config: EngineConfig) -> None:
        self._checkpoint = checkpoint
        self._model = checkpoint.model
        self._config = config
        self._abstain_below = (
            checkpoint.meta.abstain_below if config.abstain_below is None else config.abstain_below
        )
        self.window = self._model.config.window or config.window
        self.rows = self.window + self._model.config.halo
        self.modalities = self._model.config.names
        self.everybody = checkpoint.everybody()  # by modality that is taken from the person's running mean
        meta = checkpoint.meta
        self.info = EngineInfo(meta.labels, meta.label_set, f"{meta.name}-{meta.version}", "eager", "fp32")

    def refuses(self, features: Features) -> str | None:
        """Why these features do not fit the checkpoint, naming both sides; None when they fit."""
        for spec in self._checkpoint.meta.modalities:
            if spec.modality == features.modality:
                want = f"{spec.name}/{spec.version} [{spec.dim}]"
                have = f"{features.extractor} [{features.vector.size}]"
                name = self._checkpoint.meta.name
                return (
                    None
                    if want == have
                    else f"checkpoint {name!r} takes {spec.modality} of {want}, not {have}"
                )
        return None  # a modality the model does not know is no concern of it

    def warm_up(self) -> None:
        """Run every batch size once."""
        torch.set_num_threads(self._config.threads)
        dims = dict(self._model.config.dims)
        row = Row("warm-up", 0, {m: np.zeros(dims[m], np.float32) for m in self.modalities})
        for size in self._sizes():
            self.step([(row,)] * size)

    def step(self, windows: Sequence[tuple[Row, ...]]) -> list[Prediction]:
        """Answer for the newest row of each window; that row must have at least one modality."""
        out: list[Prediction] = []
        for first in range(0, len(windows), self._config.batch):
            out += self._step(windows[first : first + self._config.batch])
        return out

    def _step(self, windows: Sequence[tuple[Row, ...]]) -> list[Prediction]:
        size = next(size for size in self._sizes() if size >= len(windows))
        features = tuple(np.zeros((size, self.rows, dim), np.float32) for _, dim in self._model.config.dims)
        presence = np.zeros((size, self.rows, len(features)), bool)
        mask = np.zeros((size, self.rows), bool)
        speaker = np.zeros((size, self.rows), np.int64)
        for b, window in enumerate(windows):
            seen = window[-self.rows :]
            for n, row in enumerate(seen, start=self.rows - len(seen)):  # the newest row is always the last
                mask[b, n], speaker[b, n] = True, row.speaker
                for m, name in enumerate(self.modalities):
                    vector = row.vectors.get(name)
                    if vector is not None:
                        features[m][b, n], presence[b, n, m] = vector, True
        with torch.inference_mode():
            logits, alone = self._model.explain(
                tuple(map(torch.from_numpy, features)),
                torch.from_numpy(presence), torch.from_numpy(mask), torch.from_numpy(speaker),
            )  # fmt: skip
        last = presence[:, -1]  # [size, M]
        fused = self._checkpoint.probabilities(logits[:, -1].numpy(), last)  # [size, C]
        centres = [
            self._checkpoint.probabilities(alone[:, -1, place].numpy(), last)
            for place in range(alone.shape[2])
        ]  # A x [size, C]
        return [
            self._prediction(fused[b], [rows[b] for rows in centres], last[b]) for b in range(len(windows))
        ]

    def _prediction(self, fused: Probabilities, centres: list[Probabilities], present: Flags) -> Prediction:
        alone = {
            self.modalities[m]: _exact(row)
            for m, row in zip(self._model.config.centre_indices, centres, strict=True)
            if present[m]
        }
        return Prediction(_exact(fused), alone, bool(fused.max() < self._abstain_below))

    def _sizes(self) -> list[int]:
        sizes = [1]
        while sizes[-1] < self._config.batch:
            sizes.append(min(2 * sizes[-1], self._config.batch))
        return sizes


def _exact(probabilities: Probabilities) -> tuple[float, ...]:
    """[C] in six decimals that sum to 1: what an event carries."""
    parts = np.rint(probabilities * 1e6).astype(int)
    parts[int(np.argmax(probabilities))] += 1_000_000 - int(parts.sum())
    return tuple(int(part) / 1e6 for part in parts)
