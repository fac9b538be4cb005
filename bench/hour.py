"""Offline replay of a long call: how much faster than it was spoken, and in how much memory.

    python -m bench.hour [--minutes 60] [--out docs/results/performance/replay.json]

Lays the demo's dialogue end to end, with pauses and levels of its own each time, into one stereo WAV file, a
channel a person, beside its captions. Runs `cmath-stream replay` on it in a process of its own, and once more
with a stopwatch on each stage (`bench.stages`), whose events must be the same bytes. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import wave
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from cmath_stream.benchmarks.figures import machine
from cmath_stream.demo import dialogue
from cmath_stream.inputs import Source
from realtime.messages import SAMPLE_RATE_HZ, Caption
from realtime.recording import Recording

_LONGEST_PAUSE_S = 3.0  # between two dialogues; their own pauses are 0.4 to 0.9 s
_LOWEST_GAIN = 0.4
_POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class Call:
    """A recorded call on disk."""

    sound: Path
    captions: Path
    people: tuple[str, ...]
    seconds: float
    speech_s: float  # of all lines together


@dataclass(frozen=True, slots=True)
class Run:
    """What one replay took."""

    wall_s: float
    cpu_s: float  # of all its threads
    peaks_mb: tuple[float, ...]  # the highest resident size so far, at every poll


def make(folder: Path, minutes: float) -> Call:
    """The same call for the same length."""
    people = dialogue.people()
    tracks = np.stack([_track(person) for person in people], 1)  # [S, people]
    varied = np.random.default_rng(0)
    sound, captions = folder / "call.wav", folder / "call.json"
    said: list[dict[str, Any]] = []
    samples = 0
    with wave.open(str(sound), "wb") as file:
        file.setnchannels(len(people))
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE_HZ)
        while samples < minutes * 60 * SAMPLE_RATE_HZ:
            pause = round(varied.uniform(0.0, _LONGEST_PAUSE_S) * SAMPLE_RATE_HZ)
            spoken = np.pad(varied.uniform(_LOWEST_GAIN, 1.0) * tracks, ((0, pause), (0, 0)))
            file.writeframes((spoken * 32767).astype("<i2").tobytes())
            said += [_caption(p, caption, samples) for p in people for caption in p.captions]
            samples += len(spoken)
    captions.write_text(json.dumps(said), "utf-8")
    speech_s = sum(caption["end_ms"] - caption["start_ms"] for caption in said) / 1000
    names = tuple(person.participant_id for person in people)
    return Call(sound, captions, names, samples / SAMPLE_RATE_HZ, speech_s)


def _track(person: Source) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.concatenate([chunk.pcm for chunk in Recording.open(person.path).audio()])


def _caption(person: Source, caption: Caption, samples: int) -> dict[str, Any]:
    later_s = samples / SAMPLE_RATE_HZ
    moved = asdict(replace(caption, start_s=caption.start_s + later_s, end_s=caption.end_s + later_s))
    start_ms, end_ms = (round(moved.pop(key) * 1000) for key in ("start_s", "end_s"))
    return {"speaker": person.participant_id, "start_ms": start_ms, "end_ms": end_ms, **moved}


def replay(program: Sequence[str], call: Call, out: Path) -> Run:
    """Replay in a process of its own; `program` is what runs the command line."""
    names = [word for name in call.people for word in ("--participant", name)]
    command = [sys.executable, "-m", *program, "replay", str(call.sound), *names]
    command += ["--captions", str(call.captions), "--out", str(out)]
    began_s = time.perf_counter()
    child = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    peaks_mb: list[float] = []
    while True:
        pid, status, usage = os.wait4(child.pid, os.WNOHANG)
        if pid:
            break
        peaks_mb.append(_peak_mb(child.pid))
        time.sleep(_POLL_S)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {child.returncode}")
    wall_s = time.perf_counter() - began_s
    return Run(wall_s, usage.ru_utime + usage.ru_stime, (*peaks_mb, usage.ru_maxrss / 1024))


def _peak_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text("utf-8").splitlines()
    found = [int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:")]
    return found[0] if found else 0.0  # gone, and not yet waited for


def measure(minutes: float) -> dict[str, Any]:
    """The JSON object."""
    busy = machine()
    with tempfile.TemporaryDirectory(prefix="cmath-stream-hour-") as name:
        folder = Path(name)
        call = make(folder, minutes)
        events, again, stages = (folder / each for each in ("events.jsonl", "again.jsonl", "stages.json"))
        run = replay(["cmath_stream"], call, events)
        watched = replay(["bench.stages", str(stages)], call, again)
        utterances = events.read_text("utf-8").count('"type":"emotion.utterance"')
        return {
            "bench": "replay",
            "participants": len(call.people),
            "captions": True,
            "audio_s": round(call.seconds, 1),
            "speech_share": round(call.speech_s / call.seconds / len(call.people), 3),
            "utterances": utterances,
            "wall_s": round(run.wall_s, 1),
            "cpu_s": round(run.cpu_s, 1),
            "real_time_factor": round(run.wall_s / call.seconds, 5),
            "faster_than_speech": round(call.seconds / run.wall_s, 1),
            "watched_cpu_s": round(watched.cpu_s, 1),
            "stages_cpu_s": json.loads(stages.read_bytes()),
            "peak_mb": {
                "quarter": round(run.peaks_mb[len(run.peaks_mb) // 4], 1),
                "end": round(run.peaks_mb[-1], 1),
            },
            "same_bytes": events.read_bytes() == again.read_bytes(),
            "machine": busy,
        }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--out", type=Path, default=None)
    given = parser.parse_args()
    result = measure(given.minutes)
    if given.out is not None:
        given.out.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
