"""The clips of a written dialogue, one file an utterance, named as MELD names them: `dia3_utt7.mp4`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from realtime.errors import MediaError
from realtime.messages import SAMPLE_RATE_HZ, Pcm, Picture
from realtime.recording import Recording


@dataclass(frozen=True, slots=True)
class Clip:
    """What there is of one utterance beside its words."""

    pcm: Pcm  # [T]
    pictures: tuple[Picture, ...]  # on the session clock


NOTHING = Clip(np.zeros(0, np.float32), ())


class Clips:
    """A folder of clips; looked through once."""

    def __init__(self, folder: Path) -> None:
        """Raises MediaError where it is none."""
        if not folder.is_dir():
            raise MediaError(f"{folder} is not a folder")
        self._paths = {path.stem: path for path in sorted(folder.rglob("*")) if path.is_file()}

    def find(self, dialogue: str, number: int) -> Path | None:
        """The clip of an utterance. A dialogue's number is the last one in its name: 3 of `meld_3`."""
        digits = re.findall(r"\d+", dialogue)
        return self._paths.get(f"dia{int(digits[-1])}_utt{number}") if digits else None


def load_clip(path: Path, start_s: float, longest_s: float) -> Clip:
    """Sound and pictures of the first `longest_s` of a clip, laid at `start_s` of the session.

    Some published clips run on for minutes: what is beyond the utterance is another's. Raises MediaError.
    """
    recording = Recording.open(path)
    pcm = np.zeros(round(longest_s * SAMPLE_RATE_HZ), np.float32)
    heard = 0
    for chunk in recording.audio():
        first = round(chunk.start_s * SAMPLE_RATE_HZ)
        if first >= len(pcm):
            break
        heard = min(first + len(chunk.pcm), len(pcm))
        pcm[first:heard] = chunk.pcm[: heard - first]
    pictures = []
    if recording.has_video:
        for picture in recording.pictures():
            if picture.at_ms > longest_s * 1000:
                break
            pictures.append(Picture(picture.jpeg, picture.at_ms + round(start_s * 1000)))
    return Clip(pcm[:heard], tuple(pictures))
