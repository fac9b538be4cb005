"""Recordings made on the spot, named and cut as those of RAVDESS, in which the pitch tells the emotion."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import av
import numpy as np

from realtime.messages import Pcm
from tests.encoders import VOICE
from workers.training.ravdess import Clip
from workers.training.voice_augment import Augmentation
from workers.training.voice_learning import Recipe, Schedule
from workers.training.voice_prosody import ProsodyPlan

RECIPE = Recipe(
    VOICE,
    Augmentation(versions=2, opus=0.0, mixup=0.0, time_masks=0, band_masks=0),
    Schedule(epochs=2, batch=16, crop=32, half=False),
    ProsodyPlan(versions=1),
)


def clip(key: str, seconds: float = 0.8) -> Clip:
    """A clip whose pitch tells its emotion."""
    _, _, emotion, intensity, _, _, actor = map(int, key.split("-"))
    at_s = np.arange(int(seconds * 16_000)) / 16_000
    tone = 0.3 * np.sin(2 * np.pi * 150 * 1.35**emotion * at_s) * (1.0 + np.sin(2 * np.pi * emotion * at_s))
    hiss = np.random.default_rng(actor).normal(0.0, 0.01, len(at_s))
    return Clip(key, (tone + hiss).astype(np.float32), emotion - 1, intensity == 2, actor)


def clips() -> list[Clip]:
    """Four actors, eight emotions."""
    return [
        clip(f"03-01-{emotion:02}-01-01-01-{actor:02}") for emotion in range(1, 9) for actor in (1, 2, 3, 4)
    ]


def encoded(pcm: Pcm, kind: str = "flac") -> bytes:
    """A FLAC or WAV file."""
    store = io.BytesIO()
    with av.open(store, "w", format=kind) as container:
        codec = "flac" if kind == "flac" else "pcm_s16le"
        stream: Any = container.add_stream(codec, rate=16_000, layout="mono")
        frame = av.AudioFrame.from_ndarray((pcm[None] * 32_767).astype(np.int16), format="s16", layout="mono")
        frame.sample_rate = 16_000
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    return store.getvalue()


def recorded(folder: Path, spoken: list[Clip]) -> Path:
    """The clips as FLAC files in folders of their actors."""
    for each in spoken:
        place = folder / f"actor_{each.actor:02}"
        place.mkdir(exist_ok=True)
        (place / f"{each.key}.flac").write_bytes(encoded(each.pcm))
    return folder
