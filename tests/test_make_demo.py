"""The demo media that the package carries: what its README says of them."""

from __future__ import annotations

import json
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.make_demo import SCRIPT, VOICES
from realtime import captions
from realtime.messages import SAMPLE_RATE_HZ, Pcm
from realtime.recording import Recording
from realtime.vad import FRAME_SAMPLES, VadModel, VoiceActivity, judge

DEMO = Path(str(files("cmath_stream").joinpath("demo")))


def script() -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = json.loads((DEMO / "script.json").read_text("utf-8"))
    return lines


def track(speaker: str) -> Pcm:
    return np.concatenate([chunk.pcm for chunk in Recording.open(DEMO / f"{speaker}.opus").audio()])


def between(pcm: Pcm, start_ms: float, end_ms: float) -> Pcm:
    return pcm[round(start_ms * SAMPLE_RATE_HZ / 1000) : round(end_ms * SAMPLE_RATE_HZ / 1000)]


def test_the_files_are_those_that_the_script_makes() -> None:
    assert [(line["speaker"], line["text"], line["feeling"]) for line in script()] == [
        (line.speaker, line.text, line.feeling) for line in SCRIPT
    ]
    assert {line["feeling"] for line in script()} == set(
        "joy anger sadness surprise fear disgust neutral".split()
    )
    lengths = {len(track(speaker)) // SAMPLE_RATE_HZ for speaker in VOICES}
    assert len(lengths) == 1
    assert 45 <= lengths.pop() <= 55
    assert all((DEMO / f"{speaker}.opus").stat().st_size < 250_000 for speaker in VOICES)


def test_captions_are_the_script() -> None:
    for speaker in VOICES:
        said = captions.read(DEMO / f"{speaker}.captions.json")[speaker]
        own = [line for line in script() if line["speaker"] == speaker]
        assert [(one.text, one.start_s, one.end_s) for one in said] == [
            (line["text"], line["start_ms"] / 1000, line["end_ms"] / 1000) for line in own
        ]


@pytest.mark.parametrize("speaker", VOICES)
def test_every_line_ends_where_its_sound_ends_and_silence_follows(speaker: str) -> None:
    pcm = track(speaker)
    own = [line for line in script() if line["speaker"] == speaker]
    for line in own:
        assert np.abs(between(pcm, line["end_ms"] - 60, line["end_ms"])).max() > 0.003
    for line, following in pairwise(own):
        assert following["start_ms"] - line["end_ms"] >= 400
        assert (
            np.abs(between(pcm, line["end_ms"] + 20, following["start_ms"] - 20)).max() < 0.005
        )  # the codec rings


def test_somebody_interjects_while_the_other_speaks() -> None:
    lines = script()
    assert any(b["start_ms"] < a["end_ms"] and b["speaker"] != a["speaker"] for a, b in pairwise(lines))


@pytest.mark.parametrize("speaker", VOICES)
def test_every_line_is_heard_as_speech(speaker: str) -> None:
    pcm = track(speaker)
    frames = len(pcm) // FRAME_SAMPLES
    (heard,) = judge(VadModel(), [(VoiceActivity(), pcm[: frames * FRAME_SAMPLES])])
    frame_ms = FRAME_SAMPLES * 1000 / SAMPLE_RATE_HZ
    for line in script():
        if line["speaker"] == speaker:
            inside = heard[int(line["start_ms"] / frame_ms) + 1 : int(line["end_ms"] / frame_ms)]
            assert np.mean(inside > 0.5) > 0.7
