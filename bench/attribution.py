"""How far `replay --speakers` can be trusted: voices told apart by sound alone, beside marked turns.

    python -m bench.attribution DATA

Every marked clip of DATA/clips, the demo's two voices laid into one track, and conversations made of acted
speech (DATA/ravdess: neutral, calm, happy and sad sentences of two or three actors: hard on purpose).
Once with the number of speakers given and once without. Confusion is the share of the heard time of marked
speech that goes to somebody else, under the best pairing of voices and people; time that nobody heard is not
its affair. Prints a line each and one JSON object.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import wave
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np

from cmath_stream.config import Settings
from cmath_stream.demo import dialogue
from cmath_stream.offline import build
from cmath_stream.replay import Replay
from cmath_stream.scoring import Interval, overlap_s
from cmath_stream.sources.attribution import attribute
from realtime import rttm, settings
from realtime.messages import SAMPLE_RATE_HZ, Pcm
from realtime.recording import Recording
from realtime.rttm import Turn

_ACTORS = ((1, 2), (2, 4), (3, 4), (4, 6), (5, 6), (6, 8), (1, 7, 12), (2, 8, 13), (3, 9, 14))
_LINES = 8  # of each actor
_PAUSE_S = (0.1, 1.0)


@dataclass(frozen=True, slots=True)
class Talk:
    """One track and its turns."""

    name: str
    path: Path
    turns: Sequence[Turn]


def talks(data: Path, folder: Path) -> Iterator[Talk]:
    """What is judged; tracks that are made lie in `folder`."""
    call = data / "clips/two_person_call"
    yield Talk("two_person_call/sample", call / "sample.flac", rttm.read(call / "sample.rttm", "sample"))
    meeting = data / "clips/meeting"
    for path in sorted(meeting.glob("*.flac")):
        yield Talk(f"meeting/{path.stem}", path, rttm.read(meeting / "train.rttm", path.stem))
    yield demo(folder)
    for number, actors in enumerate(_ACTORS):
        yield _acted(data / "ravdess", actors, number, folder)


def demo(folder: Path) -> Talk:
    """Both people of the demo in one track."""
    tracks = [_sound(person.path) for person in dialogue.people()]
    mixed = np.zeros(max(map(len, tracks)), np.float32)
    for track in tracks:
        mixed[: len(track)] += track
    turns = [Turn(line.speaker, line.start_ms / 1000, line.end_ms / 1000) for line in dialogue.script()]
    return Talk("demo", _write(folder / "demo.wav", mixed), turns)


def _acted(ravdess: Path, actors: Sequence[int], seed: int, folder: Path) -> Talk:
    """Sentences of actors in random order, none twice in a row by the same."""
    chance = np.random.default_rng(seed)
    parts, turns, at_s, last = [], [], 0.0, 0
    for _ in range(_LINES * len(actors)):
        last = int(chance.choice([actor for actor in actors if actor != last]))
        names = sorted(ravdess.glob(f"actor_{last:02d}/*.flac"))
        emotions = ("01", "02", "03", "04")
        said = _sound(names[int(chance.choice([n for n, p in enumerate(names) if p.stem[6:8] in emotions]))])
        loud = np.flatnonzero(np.abs(said) > 0.03 * np.abs(said).max())
        said = 0.3 * said[loud[0] : loud[-1]] / np.abs(said).max()
        pause = np.zeros(round(chance.uniform(*_PAUSE_S) * SAMPLE_RATE_HZ), np.float32)
        parts += [pause, said]
        at_s += len(pause) / SAMPLE_RATE_HZ
        turns.append(Turn(str(last), at_s, at_s + len(said) / SAMPLE_RATE_HZ))
        at_s = turns[-1].end_s
    track = np.concatenate(parts).astype(np.float32)
    track += chance.normal(0.0, 3e-4, len(track)).astype(np.float32)
    name = "acted/" + "+".join(map(str, actors))
    return Talk(name, _write(folder / f"{name.replace('/', '-')}.wav", track), turns)


def confusion(turns: Sequence[Turn], found: Sequence[Turn]) -> tuple[float, float]:
    """Seconds of marked speech that were heard, and those of them that went to somebody else."""
    people, voices = sorted({t.speaker for t in turns}), sorted({t.speaker for t in found})
    own = np.array([[overlap_s(_of(turns, p), _of(found, v)) for v in voices] for p in people])
    heard = overlap_s(_all(turns), _all(found))
    size = max(own.shape)
    square = np.zeros((size, size))
    square[: own.shape[0], : own.shape[1]] = own
    best = max(float(square[range(size), list(order)].sum()) for order in permutations(range(size)))
    return heard, max(heard - best, 0.0)


def judge(machine: Replay, talk: Talk, speakers: int | None) -> dict[str, Any]:
    """One talk, its speakers counted or not."""
    found = attribute(machine, talk.path, speakers, lambda _: None)
    heard_s, wrong_s = confusion(talk.turns, found.turns)
    return {
        "voices": len({turn.speaker for turn in found.turns}),
        "confusion": round(wrong_s / heard_s, 3),
        "confidence": round(float(np.mean([each.confidence for each in found.found])), 2),
    }


def _of(turns: Sequence[Turn], speaker: str) -> list[Interval]:
    return [(turn.start_s, turn.end_s) for turn in turns if turn.speaker == speaker]


def _all(turns: Sequence[Turn]) -> list[Interval]:
    return [(turn.start_s, turn.end_s) for turn in turns]


def _sound(path: Path) -> Pcm:
    return np.concatenate([chunk.pcm for chunk in Recording.open(path).audio()])


def _write(path: Path, pcm: Pcm) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, SAMPLE_RATE_HZ, 0, "NONE", ""))
        file.writeframes((pcm.clip(-1, 1) * 32767).astype("<i2").tobytes())
    return path


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="folder with clips/ and ravdess/")
    chosen = parser.parse_args()
    machine = build(settings.build(Settings, {"text": {"whisper": "none"}}))
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        for talk in talks(chosen.data, Path(name)):
            people = len({turn.speaker for turn in talk.turns})
            counted, alone = judge(machine, talk, people), judge(machine, talk, None)
            results[talk.name] = {"speakers": people, "counted": counted, "auto": alone}
            print(
                f"{talk.name:<24} {people} speakers: confusion {counted['confusion']:.0%}; "
                f"auto: {alone['voices']} voices, confusion {alone['confusion']:.0%}"
            )
    print(json.dumps(results))


if __name__ == "__main__":
    main()
