"""RAVDESS speech: recordings of actors, whose names say who speaks with which emotion, and how strongly."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np

from realtime.errors import MediaError
from realtime.messages import Pcm
from workers.voice_encoder import RATE_HZ

# modality (01 full, 03 sound alone), channel (01 speech), emotion, intensity, statement, repetition, actor
_NAME = re.compile(r"0[13]-01-0[1-8]-0[12]-\d\d-\d\d-\d\d")
_KINDS = (".flac", ".wav")


@dataclass(frozen=True, slots=True)
class Clip:
    """One recording and what its name says of it."""

    key: str  # file stem
    pcm: Pcm
    emotion: int  # index into EMOTIONS
    strong: bool
    actor: int  # odd: male


def read_clips(folder: Path) -> list[Clip]:
    """All RAVDESS speech clips in a folder or below, FLAC or WAV, by key. Raises MediaError for none."""
    paths = [path for path in folder.rglob("*") if path.suffix in _KINDS and _NAME.fullmatch(path.stem)]
    if not paths:
        raise MediaError(f"{folder}: no RAVDESS clips (03-01-EMOTION-...-ACTOR.flac or .wav) in it or below")
    clips = []
    for path in sorted(paths, key=lambda path: path.stem):
        _, _, emotion, intensity, _, _, actor = map(int, path.stem.split("-"))
        clips.append(Clip(path.stem, decode(path), emotion - 1, intensity == 2, actor))
    return clips


def decode(source: Path | io.BytesIO) -> Pcm:
    """Any audio file as mono 16 kHz."""
    with av.open(str(source) if isinstance(source, Path) else source, "r") as container:
        to_mono = av.AudioResampler("flt", "mono", RATE_HZ)
        frames = [*container.decode(audio=0), None]
        pieces = [piece.to_ndarray()[0] for frame in frames for piece in to_mono.resample(frame)]
    return np.concatenate(pieces).astype(np.float32)
