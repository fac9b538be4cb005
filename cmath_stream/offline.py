"""`replay`: loads what live runs in five processes into this one."""

from __future__ import annotations

from functools import cache, cached_property, partial
from typing import TYPE_CHECKING

from cmath_stream.checkpoint_files import fingerprint, named
from cmath_stream.config import Settings, load_checkpoint, make_extractor
from cmath_stream.replay import Models, Replay
from realtime.messages import MODALITIES
from realtime.taping import TapeConfig
from realtime.vad import VadModel

if TYPE_CHECKING:
    from cmath_stream.checkpoint import Checkpoint


def build(settings: Settings) -> Replay:
    """A replay that loads its models once, in its first run, which hears meanwhile.

    Raises CheckpointError where there is no such checkpoint, and in that run where extractors do not fit it.
    """
    weights = fingerprint(named(settings.fusion.checkpoint))
    model_id = repr((weights, settings.fusion.engine, settings.text, settings.audio, settings.visual))
    return Replay(cache(partial(_load, settings)), model_id, VadModel(), settings.session.conversation)


def _load(settings: Settings) -> Models:
    from cmath_stream.engine import Engine  # brings torch: seconds that hearing does not wait for

    checkpoint = load_checkpoint(settings.fusion)
    extractors = [make_extractor(modality, settings) for modality in MODALITIES]
    for extractor in extractors:
        extractor.load()
    checkpoint.require({e.modality: e.spec for e in extractors if e.spec is not None})
    return Models(Engine(checkpoint, settings.fusion.engine), extractors)


class Machines:
    """Replays with the same settings, each built when it is first needed."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @property
    def tape(self) -> TapeConfig:
        """Where recorded sessions have their key."""
        return self._settings.tape

    @cached_property
    def full(self) -> Replay:
        """From media and words. Raises CheckpointError."""
        return build(self._settings)

    @cached_property
    def checkpoint(self) -> Checkpoint:
        """The fusion's. Raises CheckpointError."""
        return load_checkpoint(self._settings.fusion)

    @cached_property
    def fusion_alone(self) -> Replay:
        """From features that others have made. Raises CheckpointError."""
        from cmath_stream.engine import Engine

        config = self._settings.fusion
        models = Models(Engine(self.checkpoint, config.engine), ())
        model_id = repr((fingerprint(named(config.checkpoint)), config.engine))
        return Replay(lambda: models, model_id, VadModel(), self._settings.session.conversation)
