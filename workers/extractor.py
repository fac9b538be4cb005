"""The contract every encoder keeps: segments in, one honest answer each out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from realtime.messages import Answer, Job, Modality


@dataclass(frozen=True, slots=True)
class FeatureSpec:
    """What a checkpoint must agree on with an extractor before the two may work together."""

    name: str
    version: str
    dim: int

    @property
    def id(self) -> str:
        """`name/version`, as it travels in Features.extractor."""
        return f"{self.name}/{self.version}"


class Extractor(Protocol):
    """An encoder of one modality. All calls come from one thread, never from the event loop.

    `extract` answers every job it is given in order: Features, FeaturesMissing, or None where the job is
    not for it (a Segment whose words come later is nothing yet for the text extractor; a Transcript is
    nothing for the others). It raises only for faults worth a retry.
    """

    modality: Modality

    @property
    def needs_pcm(self) -> bool:
        """Whether `extract` reads a segment's sound; known after `load`."""
        ...

    @property
    def needs_pictures(self) -> bool:
        """Whether `extract` reads a segment's pictures."""
        ...

    @property
    def spec(self) -> FeatureSpec | None:
        """Identity of the features, or None while the extractor can only say "missing"."""
        ...

    def load(self) -> None:
        """Read weights; raises ModelUnavailable with what to do."""
        ...

    def warm_up(self) -> None:
        """One pass through the true path, so that the first caller does not pay for it."""
        ...

    def extract(self, jobs: Sequence[Job]) -> list[Answer | None]:
        """Answer each job, in order."""
        ...
