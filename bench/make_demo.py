"""Synthesise the demo dialogue: two voices, two tracks on one time line, words and times known exactly.

    python bench/make_demo.py [--out cmath_stream/demo]

It needs espeak-ng (Debian: apt-get install espeak-ng).
What the media prove and what not stands in cmath_stream/demo/README.md. The feeling of a line colours voice,
speed and loudness a little; it is the words that carry it.
"""

from __future__ import annotations

import argparse
import io
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import av
import numpy as np

from realtime.messages import Pcm

RATE_HZ = 24_000  # a rate that Opus knows
BIT_RATE = 24_000
LEAD_S, TAIL_S = 0.6, 1.0  # silence before the first and after the last line
SILENT = 0.01  # of a line's peak: the synthesiser's own padding lies below
PAUSE_S = 0.15  # longest pause inside a line: espeak-ng waits at a full stop as long as an endpointer does


@dataclass(frozen=True, slots=True)
class Manner:
    """How a feeling sounds: espeak-ng's pitch (0..99) and words a minute, relative; loudness in dB."""

    pitch: int
    speed: float
    gain_db: float


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the script."""

    speaker: str
    feeling: str
    text: str
    gap_s: float  # silence since the last line ended
    over_last_s: float | None = None  # a backchannel: starts this long after the start of the last line


@dataclass(frozen=True, slots=True)
class Spoken:
    """A line on the time line; its end is the true end of the sound, not of the synthesiser's padding."""

    speaker: str
    start_ms: int
    end_ms: int
    text: str
    feeling: str


VOICES = {"anna": ("en-us+f3", 52, 184), "ben": ("en-us+m3", 40, 178)}  # voice, pitch, words a minute
MANNERS = {
    "neutral": Manner(0, 1.0, 0.0),
    "joy": Manner(16, 1.08, 2.0),
    "surprise": Manner(22, 1.05, 2.0),
    "anger": Manner(4, 1.12, 4.0),
    "sadness": Manner(-14, 0.84, -4.0),
    "fear": Manner(12, 1.14, -1.0),
    "disgust": Manner(-8, 0.92, 0.0),
}
SCRIPT = (
    Line("anna", "neutral", "Hi Ben. The mail came this morning.", 0.0),
    Line("ben", "neutral", "Okay. Just put the letters on the table.", 0.5),
    Line("anna", "surprise", "Wait, what? Oh my God, this one is from the university!", 0.6),
    Line("ben", "fear", "Oh no. I'm so scared to open it. What if they said no?", 0.5),
    Line("anna", "surprise", "Oh wow! You got in! I can't believe it!", 0.9),
    Line("ben", "joy", "Yes! I did it! This is the best day of my life! I'm so happy!", 0.4),
    Line("anna", "surprise", "Wow!", 0.0, over_last_s=1.7),
    Line("ben", "neutral", "It starts in September, in Lisbon.", 0.8),
    Line("anna", "sadness", "So you are leaving. I will miss you so much.", 0.7),
    Line("ben", "sadness", "I know. I'm so sorry. I hate saying goodbye.", 0.6),
    Line("anna", "anger", "Then why did you hide it from me? You lied to me! I'm furious!", 0.7),
    Line("ben", "anger", "Stop yelling at me! That is so unfair! I never lied!", 0.4),
    Line("anna", "disgust", "Ugh, what is that smell? That is disgusting!", 0.9),
    Line("ben", "fear", "Oh no, the oven! There is smoke everywhere! I'm scared!", 0.5),
    Line("anna", "joy", "It's only the toast! Come on, let's celebrate! I'm so happy for you!", 0.7),
    Line("ben", "joy", "Thank you! That's great! I love you!", 0.5),
)


def make(out_dir: Path) -> list[Spoken]:
    """Write the tracks, the script and the captions; returns the script with its measured times."""
    placed: list[tuple[Line, int, Pcm]] = []
    floor = round(LEAD_S * RATE_HZ)  # end of what was said so far, samples
    for line in SCRIPT:
        pcm = _say(line)
        if line.over_last_s is None:
            start = floor + round(line.gap_s * RATE_HZ)
        else:
            start = placed[-1][1] + round(line.over_last_s * RATE_HZ)
        placed.append((line, start, pcm))
        floor = max(floor, start + len(pcm))
    out_dir.mkdir(parents=True, exist_ok=True)
    script = [
        Spoken(
            line.speaker,
            round(start * 1000 / RATE_HZ),
            round((start + len(pcm)) * 1000 / RATE_HZ),
            line.text,
            line.feeling,
        )
        for line, start, pcm in placed
    ]
    _write_json(out_dir / "script.json", [asdict(spoken) for spoken in script])
    for speaker in VOICES:
        track = np.zeros(floor + round(TAIL_S * RATE_HZ), np.float32)
        for line, start, pcm in placed:
            if line.speaker == speaker:
                track[start : start + len(pcm)] += pcm
        _write_opus(out_dir / f"{speaker}.opus", track)
        said = [
            {
                "start_ms": spoken.start_ms,
                "end_ms": spoken.end_ms,
                "text": spoken.text,
                "speaker": speaker,
                "language": "en",
            }
            for spoken in script
            if spoken.speaker == speaker
        ]
        _write_json(out_dir / f"{speaker}.captions.json", said)
    return script


def _say(line: Line) -> Pcm:
    """The line at RATE_HZ, without the silence around it."""
    voice, pitch, speed = VOICES[line.speaker]
    manner = MANNERS[line.feeling]
    command = ["espeak-ng", "--stdout", "-v", voice, "-p", str(pitch + manner.pitch)]
    command += ["-s", str(round(speed * manner.speed)), line.text]
    wav = subprocess.run(command, check=True, capture_output=True).stdout
    resampler = av.AudioResampler("flt", "mono", RATE_HZ)
    with av.open(io.BytesIO(wav), "r") as container:
        frames = [out for frame in container.decode(audio=0) for out in resampler.resample(frame)]
    pcm = np.concatenate([frame.to_ndarray()[0] for frame in (*frames, *resampler.resample(None))])
    pcm = _tighten(pcm)
    level = 0.08 * 10 ** (manner.gain_db / 20) / np.sqrt(np.mean(pcm**2))
    spoken: Pcm = np.clip(pcm * level, -0.95, 0.95).astype(np.float32)
    return spoken


def _tighten(pcm: Pcm) -> Pcm:
    """Without the silence at both ends, and with no pause longer than PAUSE_S."""
    loud = np.flatnonzero(np.abs(pcm) > SILENT * np.abs(pcm).max())
    quiet = round(PAUSE_S / 2 * RATE_HZ)  # kept on both sides of a shortened pause
    keep = np.zeros(len(pcm), bool)
    for start, end in zip(loud, [*loud[1:], loud[-1]], strict=True):
        keep[start : min(end, start + quiet)] = True
        keep[max(start, end - quiet) : end + 1] = True
    return pcm[keep]


def _write_opus(path: Path, pcm: Pcm) -> None:
    with av.open(str(path), "w", format="ogg") as container:
        stream = container.add_stream("libopus", rate=RATE_HZ, layout="mono")
        stream.bit_rate = BIT_RATE
        frame = av.AudioFrame.from_ndarray(
            (pcm * 32767).astype(np.int16)[None], format="s16", layout="mono"
        )  # [1, T]
        frame.sample_rate, frame.pts = RATE_HZ, 0
        for packet_frame in av.AudioResampler("s16", "mono", RATE_HZ, frame_size=480).resample(frame):
            container.mux(stream.encode(packet_frame))
        container.mux(stream.encode(None))


def _write_json(path: Path, items: Sequence[dict[str, object]]) -> None:
    lines = ",\n".join(" " + json.dumps(item, ensure_ascii=False) for item in items)
    path.write_text(f"[\n{lines}\n]\n", "utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="Synthesise the two-person demo dialogue with espeak-ng.")
    parser.add_argument("--out", type=Path, default=Path("cmath_stream/demo"), help="folder for the media")
    out_dir: Path = parser.parse_args(arguments).out
    if shutil.which("espeak-ng") is None:
        print("make_demo: espeak-ng is not installed (Debian: apt-get install espeak-ng)", file=sys.stderr)
        return 1
    for spoken in make(out_dir):
        times = f"{spoken.start_ms / 1000:6.2f}-{spoken.end_ms / 1000:5.2f}"
        print(f"{times} {spoken.speaker:5} {spoken.feeling:8} {spoken.text}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
