"""What the engine is told and what it answers, apart from torch: most of the program needs only these."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """How the model is run."""

    batch: int = 32  # most windows of one call
    threads: int = 1  # the model is small: more threads cost more than they give
    window: int = 32  # utterances seen by a checkpoint that was trained without a window of its own
    runtime: Literal["auto", "tensorrt", "cuda", "inductor", "onnx", "eager"] = "auto"
    precision: Literal["fp32", "fp16"] = "fp32"  # fp16 on a GPU
    remembered: int = 2048  # utterances whose keys and values are kept, of all sessions; 9 kB at width 128
    abstain_below: float | None = None  # None: the checkpoint's own threshold

    def __post_init__(self) -> None:
        if min(self.batch, self.threads, self.window) < 1 or self.remembered < 0:
            raise ValueError("batch, threads and window must be at least 1, remembered at least 0")


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What an event says of the model behind it."""

    labels: tuple[str, ...]
    label_set: str
    version: str
    engine: str
    precision: str


@dataclass(frozen=True, slots=True)
class Prediction:
    """The answer for the newest row of one window."""

    probabilities: tuple[float, ...]  # [C], sums to 1, calibrated for the modalities present
    alone: dict[str, tuple[float, ...]]  # what the view centred on each present modality says (R19)
    abstained: bool
