"""Clips say by their names who speaks, how, and how strongly; whatever has another name is left alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from realtime.errors import MediaError
from tests.voices import encoded
from workers.training.ravdess import read_clips
from workers.voice_encoder import EMOTIONS

TONE = (0.3 * np.sin(np.arange(1_600))).astype(np.float32)


def test_clips_are_read_by_their_names_wherever_they_lie(tmp_path: Path) -> None:
    """Of both modality codes, in FLAC and WAV, in folders of any depth or none."""
    (tmp_path / "a" / "actor_02").mkdir(parents=True)
    (tmp_path / "a" / "actor_02" / "03-01-08-02-01-01-02.flac").write_bytes(encoded(TONE))
    (tmp_path / "a" / "01-01-05-01-02-01-02.wav").write_bytes(encoded(TONE, "wav"))
    (tmp_path / "03-01-01-01-01-01-01.flac").write_bytes(encoded(TONE))
    full, neutral, surprised = read_clips(tmp_path)
    assert (full.key, full.emotion, full.strong, full.actor) == ("01-01-05-01-02-01-02", 4, False, 2)
    assert (neutral.emotion, neutral.strong, neutral.actor, len(neutral.pcm)) == (0, False, 1, 1_600)
    assert (EMOTIONS[surprised.emotion], surprised.strong, surprised.actor) == ("surprised", True, 2)


@pytest.mark.parametrize(
    "name",
    [
        "03-02-05-01-01-01-01.flac",  # sung
        "02-01-05-01-01-01-01.flac",  # without sound
        "03-01-09-01-01-01-01.flac",  # no emotion of theirs
        "03-01-05-01-01-01.flac",
        "03-01-05-01-01-01-01.txt",
    ],
)
def test_what_is_no_speech_of_theirs_is_left_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(encoded(TONE))
    with pytest.raises(MediaError, match="no RAVDESS clips"):
        read_clips(tmp_path)
