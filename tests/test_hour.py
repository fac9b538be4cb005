"""The long call of the replay's figures: a dialogue over and over, and captions where its words are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bench.hour import make
from cmath_stream.inputs import channels
from realtime.messages import SAMPLE_RATE_HZ
from realtime.recording import Recording


def test_every_caption_lies_on_speech_of_its_own_channel(tmp_path: Path) -> None:
    call = make(tmp_path, 1.5)
    people = channels(call.sound, [call.captions], call.people)
    assert call.seconds == pytest.approx(Recording.open(call.sound).duration_s) and call.seconds > 90
    assert [len(person.captions) for person in people] == [16, 16]
    for person in people:
        pcm = np.concatenate([chunk.pcm for chunk in Recording.open(call.sound).audio(person.channel)])
        loud = [pcm[round(c.start_s * SAMPLE_RATE_HZ) :][:16_000].std() for c in person.captions]
        before = [pcm[: round((c.start_s - 0.1) * SAMPLE_RATE_HZ)][-1_600:].std() for c in person.captions]
        assert min(loud) > 5 * max(before)
    assert make(tmp_path, 1.5) == call
