"""The bundled dialogue: who speaks, and when each line of theirs starts and ends."""

from __future__ import annotations

import json
from pathlib import Path

from cmath_stream.annotation import Line
from cmath_stream.inputs import Source, sources

_FOLDER = Path(__file__).parent


def people() -> list[Source]:
    """Anna and Ben, with what they say."""
    names = ("anna", "ben")
    return sources(
        [_FOLDER / f"{n}.opus" for n in names], [_FOLDER / f"{n}.captions.json" for n in names], None
    )


def script() -> list[Line]:
    """Every line, its times measured on the waveform."""
    lines = json.loads((_FOLDER / "script.json").read_text("utf-8"))
    return [Line(said["speaker"], said["start_ms"], said["end_ms"]) for said in lines]
