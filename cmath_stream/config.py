"""All settings of all roles in one tree, so that one file configures one installation."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from cmath_stream.assembler import AssemblerConfig
from cmath_stream.checkpoint_files import named
from cmath_stream.prediction import EngineConfig
from realtime import settings
from realtime.messages import Modality
from realtime.redis_bus import RedisConfig
from realtime.server import IngestConfig
from realtime.session import SessionConfig
from realtime.status import StatusConfig
from realtime.taping import TapeConfig
from workers.audio import VoiceExtractorConfig
from workers.extractor import Extractor
from workers.face import FaceConfig
from workers.text import TextConfig
from workers.worker import WorkerConfig

if TYPE_CHECKING:
    from cmath_stream.checkpoint import Checkpoint


@dataclass(frozen=True, slots=True)
class FusionConfig:
    """The model that fuses, and how long it waits for its inputs."""

    checkpoint: str = "live-small"  # a shipped one by name, or a path
    assembler: AssemblerConfig = field(default_factory=AssemblerConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything an operator can change. `cmath-stream config show` prints what is in force."""

    redis: RedisConfig = field(default_factory=RedisConfig)
    ingest: IngestConfig = field(default_factory=IngestConfig)
    session: SessionConfig = field(default_factory=SessionConfig)
    worker: WorkerConfig = field(default_factory=WorkerConfig)
    text: TextConfig = field(default_factory=TextConfig)
    audio: VoiceExtractorConfig = field(default_factory=VoiceExtractorConfig)
    visual: FaceConfig = field(default_factory=FaceConfig)
    fusion: FusionConfig = field(default_factory=FusionConfig)
    status: StatusConfig = field(default_factory=StatusConfig)
    tape: TapeConfig = field(default_factory=TapeConfig)


def load_settings(path: Path | None) -> Settings:
    """Defaults, then the file, then the environment (CMATH_STREAM__SECTION__KEY). Raises SettingsError."""
    return settings.load(Settings, path, os.environ)


def load_checkpoint(config: FusionConfig) -> Checkpoint:
    """The configured checkpoint. Raises CheckpointError."""
    from cmath_stream.checkpoint import load  # brings torch, which most roles do without

    return load(named(config.checkpoint))


def make_extractor(modality: Modality, config: Settings) -> Extractor:
    """The extractor of one modality, not yet loaded."""
    from workers.audio import VoiceExtractor
    from workers.face import FaceExtractor
    from workers.text import TextExtractor

    match modality:
        case "text":
            return TextExtractor(config.text)
        case "audio":
            return VoiceExtractor(config.audio)
        case "visual":
            return FaceExtractor(config.visual)
