"""Windows in, calibrated emotions out: one call of the model for many sessions.

Knows tensors and the checkpoint; knows nothing of sessions. What every utterance gives to later ones is
computed once and kept on a page (`newest`, `memory`), so a step costs what its newest utterances cost,
however long their conversations are. A model that cannot remember is given its full windows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from cmath_stream.checkpoint import Checkpoint
from cmath_stream.cuda_graphs import buckets
from cmath_stream.memory import Pages, Span
from cmath_stream.prediction import EngineConfig, EngineInfo, Prediction
from cmath_stream.programs import Program, ProgramName, Shape, page_shapes, programs
from cmath_stream.runtimes import Call, device_of, eager
from cmath_stream.window import Row
from realtime.messages import Features, Vector

Probabilities = NDArray[np.float64]
Logits = NDArray[np.float32]
Flags = NDArray[np.bool_]


class Engine:
    """Runs one checkpoint. All calls come from one thread."""

    def __init__(self, checkpoint: Checkpoint, config: EngineConfig) -> None:
        self._checkpoint = checkpoint
        self._config = config
        self._abstain_below = (
            checkpoint.meta.abstain_below if config.abstain_below is None else config.abstain_below
        )
        self._model = model = checkpoint.model.config
        self.window = model.window or config.window
        self.rows = self.window + model.halo
        self.modalities = model.names
        self.everybody = checkpoint.everybody()  # by modality that is taken from the person's running mean
        # A call's own windows must all find room at once.
        pages = max(config.remembered, config.batch * self.window)
        self.programs: Mapping[ProgramName, Program] = programs(
            checkpoint.model, Shape(config.batch, self.window, pages), config.precision
        )
        self._kind = next(self.programs["window"].module.parameters()).dtype
        self._pages = Pages(pages) if config.remembered and "ask" in self.programs else None
        self.called: tuple[ProgramName, ...] = ("window",) if self._pages is None else ("remember", "ask")
        if self._pages is not None:
            compressed, keys_values = page_shapes(model)
            self._memory = (
                torch.zeros(pages, *compressed, dtype=self._kind),
                torch.zeros(pages, *keys_values, dtype=self._kind),
            )
        self.use({name: eager(program) for name, program in self.programs.items()}, "eager")

    def use(self, calls: Mapping[ProgramName, Call], runtime: str) -> None:
        """Run these programs from now on. What is remembered stays: every runtime gives the same numbers.

        It lies where the programs run, so that a step on a card moves its new rows there and nothing else.
        """
        self._calls = calls
        self.device = device_of(runtime)
        if self._pages is not None:
            compressed, keys_values = self._memory
            self._memory = compressed.to(self.device), keys_values.to(self.device)
        meta = self._checkpoint.meta
        version = f"{meta.name}-{meta.version}"
        self.info = EngineInfo(meta.labels, meta.label_set, version, runtime, self._config.precision)

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

    def takes(self, vectors: Mapping[str, Vector]) -> bool:
        """Whether a row of these is one of this model's."""
        dims = dict(self._model.dims)
        return all(dims.get(name) == vector.size for name, vector in vectors.items())

    def warm_up(self) -> None:
        """Run a batch of every size that a card records, through the true path."""
        torch.set_num_threads(self._config.threads)
        dims = dict(self._model.dims)
        for size in buckets(self._config.batch):
            vectors = {m: np.zeros(dims[m], np.float32) for m in self.modalities}
            self.step([(Row("warm-up", 0, vectors),) for _ in range(size)])

    def step(self, windows: Sequence[tuple[Row, ...]]) -> list[Prediction]:
        """Answer for the newest row of each window; that row must have at least one modality."""
        out: list[Prediction] = []
        for first in range(0, len(windows), self._config.batch):
            out += self._step(windows[first : first + self._config.batch])
        return out

    def _step(self, windows: Sequence[tuple[Row, ...]]) -> list[Prediction]:
        logits, alone = (self._full if self._pages is None else self._newest)(windows)
        last = np.array([[name in window[-1].vectors for name in self.modalities] for window in windows])
        fused = self._checkpoint.probabilities(logits, last)  # [B, C]
        centres = [  # A x [B, C]
            self._checkpoint.probabilities(alone[:, place], last) for place in range(alone.shape[1])
        ]
        return [
            self._prediction(fused[b], [rows[b] for rows in centres], last[b]) for b in range(len(windows))
        ]

    def _newest(self, windows: Sequence[tuple[Row, ...]]) -> tuple[Logits, Logits]:
        """[B, C] and [B, A, C], the rows before the newest from their pages."""
        assert self._pages is not None
        halo = self._model.halo
        spans = [
            [w[max(0, at - halo) : at + 1] for at in range(max(0, len(w) - self.window), len(w))]
            for w in windows
        ]
        self._remember(span for window in spans for span in window)
        size = (len(windows), self.window)
        place, distance = np.zeros(size, np.int64), np.zeros(size, np.int64)
        allowed, same_speaker = np.zeros((*size, len(self.modalities)), bool), np.zeros(size, bool)
        for b, window in enumerate(spans):
            newest = window[-1][-1]
            for back, span in enumerate(reversed(window)):
                slot, row = self.window - 1 - back, span[-1]
                found = self._pages.find(span)
                assert found is not None, "remembered above, and there is room for a whole batch"
                place[b, slot], distance[b, slot] = found, back
                allowed[b, slot] = [name in row.vectors for name in self.modalities]
                same_speaker[b, slot] = row.speaker == newest.speaker
        asked = map(torch.from_numpy, (place, allowed, same_speaker, distance))
        logits, alone = self._calls["ask"](*self._memory, *asked)
        return _numbers(logits), _numbers(alone)

    def _remember(self, spans: Iterable[Span]) -> None:
        """Compute what is not on a page yet, and only that."""
        assert self._pages is not None
        new: list[tuple[int, Span]] = []
        for span in spans:
            if self._pages.find(span) is None:
                new.append((self._pages.take(span), span))
        rows = self._model.halo + 1
        for first in range(0, len(new), self._config.batch):
            part = new[first : first + self._config.batch]
            features, presence, mask, _ = self._tensors([span for _, span in part], rows)
            pages = torch.tensor([page for page, _ in part], device=self.device)
            made = self._calls["remember"](features, presence, mask)
            for held, new_rows in zip(self._memory, made, strict=True):
                held[pages] = new_rows

    def _full(self, windows: Sequence[tuple[Row, ...]]) -> tuple[Logits, Logits]:
        """[B, C] and [B, A, C], everything computed anew."""
        logits, alone = self._calls["window"](*self._tensors(windows, self.rows))
        return _numbers(logits), _numbers(alone)

    def _tensors(
        self, windows: Sequence[tuple[Row, ...]], rows: int
    ) -> tuple[tuple[torch.Tensor, ...], torch.Tensor, torch.Tensor, torch.Tensor]:
        """Rows as the model takes them, padded in front: the newest is always the last."""
        size = (len(windows), rows)
        dims = self._model.dims
        features = tuple(np.zeros((*size, dim), np.float32) for _, dim in dims)
        presence, mask = np.zeros((*size, len(dims)), bool), np.zeros(size, bool)
        speaker = np.zeros(size, np.int64)
        for b, window in enumerate(windows):
            seen = window[-rows:]
            for n, row in enumerate(seen, start=rows - len(seen)):
                mask[b, n], speaker[b, n] = True, row.speaker
                for m, name in enumerate(self.modalities):
                    vector = row.vectors.get(name)
                    if vector is not None:
                        features[m][b, n], presence[b, n, m] = vector, True
        return (
            tuple(torch.from_numpy(each).to(self._kind) for each in features),
            torch.from_numpy(presence),
            torch.from_numpy(mask),
            torch.from_numpy(speaker),
        )

    def _prediction(self, fused: Probabilities, centres: list[Probabilities], present: Flags) -> Prediction:
        alone = {
            self.modalities[m]: _exact(row)
            for m, row in zip(self._model.centre_indices, centres, strict=True)
            if present[m]
        }
        return Prediction(_exact(fused), alone, bool(fused.max() < self._abstain_below))


def _numbers(answer: torch.Tensor) -> Logits:
    """From wherever it was computed."""
    numbers: Logits = answer.float().cpu().numpy()
    return numbers


def _exact(probabilities: Probabilities) -> tuple[float, ...]:
    """[C] in six decimals that sum to 1: what an event carries."""
    parts = np.rint(probabilities * 1e6).astype(int)
    parts[int(np.argmax(probabilities))] += 1_000_000 - int(parts.sum())
    return tuple(int(part) / 1e6 for part in parts)
