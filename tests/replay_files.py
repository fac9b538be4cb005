"""The recordings, words, turns and labels that docs/REPLAY.md speaks of, made of the demo's two voices."""

from __future__ import annotations

import json
import shutil
import wave
from pathlib import Path
from typing import Any

import numpy as np

from realtime import rttm
from realtime.recording import Recording
from realtime.rttm import Turn

DEMO = Path(__file__).resolve().parent.parent / "cmath_stream" / "demo"
RATE_HZ = 16_000


def write_wav(path: Path, pcm: np.ndarray, rate: int = RATE_HZ) -> Path:
    """[S] or [S, channels], -1..1, as 16-bit."""
    with wave.open(str(path), "wb") as file:
        file.setparams((1 if pcm.ndim == 1 else pcm.shape[1], 2, rate, 0, "NONE", ""))
        file.writeframes((pcm.clip(-1, 1) * 32767).astype("<i2").tobytes())
    return path


def make(folder: Path) -> None:
    """All of them."""
    for name in ("anna", "ben"):
        for suffix in (".opus", ".captions.json"):
            shutil.copy(DEMO / f"{name}{suffix}", folder)
    script = json.loads((DEMO / "script.json").read_text("utf-8"))
    tracks = [
        np.concatenate([c.pcm for c in Recording.open(DEMO / f"{n}.opus").audio()]) for n in ("anna", "ben")
    ]
    length = max(map(len, tracks))
    both = np.stack([np.pad(track, (0, length - len(track))) for track in tracks], 1)
    write_wav(folder / "call.wav", both)
    write_wav(folder / "mix.wav", both.sum(1))
    turns = [Turn(line["speaker"], line["start_ms"] / 1000, line["end_ms"] / 1000) for line in script]
    (folder / "mix.rttm").write_text(rttm.render("mix", turns), "utf-8")
    (folder / "talk.vtt").write_text(_vtt(script), "utf-8")
    said = [
        {
            "utterance": n,
            "speaker": line["speaker"],
            "text": line["text"],
            "emotion": line["feeling"],
            "start_s": line["start_ms"] / 1000,
            "end_s": line["end_ms"] / 1000,
        }
        for n, line in enumerate(script)
    ]
    (folder / "talk.jsonl").write_text(json.dumps({"dialogue": "talk_1", "utterances": said}) + "\n", "utf-8")
    rows = [f"{line['speaker']},{line['start_ms']},{line['end_ms']},{line['feeling']}" for line in script]
    (folder / "labels.csv").write_text("\n".join(["participant,start_ms,end_ms,emotion", *rows]) + "\n")
    _clips(folder / "clips", tracks, script)
    _recordings(folder / "recordings", both)
    _features(folder / "features.npz")


def _vtt(script: list[dict[str, object]]) -> str:
    def clock(ms: int) -> str:
        return f"{ms // 60_000:02d}:{ms // 1000 % 60:02d}.{ms % 1000:03d}"

    cues = []
    for line in script:
        start, end = (clock(int(str(line[edge]))) for edge in ("start_ms", "end_ms"))
        cues.append(f"{start} --> {end}\n<v {line['speaker']}>{line['text']}")
    return "WEBVTT\n\n" + "\n\n".join(cues) + "\n"


def _clips(folder: Path, tracks: list[np.ndarray], script: list[dict[str, object]]) -> None:
    """A sound file for all lines but the last."""
    folder.mkdir()
    for number, line in enumerate(script[:-1]):
        track = tracks[("anna", "ben").index(str(line["speaker"]))]
        first, last = (int(str(line[edge])) * RATE_HZ // 1000 for edge in ("start_ms", "end_ms"))
        write_wav(folder / f"dia1_utt{number}.wav", track[first:last])


def _recordings(folder: Path, both: np.ndarray) -> None:
    """What an analyst's folder may hold: two that are well, one that was cut, one that is empty."""
    (folder / "monday").mkdir(parents=True)
    write_wav(folder / "monday" / "first.wav", both[: 20 * RATE_HZ].sum(1))
    write_wav(folder / "second.wav", both[20 * RATE_HZ :].sum(1))
    cut = write_wav(folder / "cut.wav", both[: 12 * RATE_HZ].sum(1))
    cut.write_bytes(cut.read_bytes()[: 9 * 2 * RATE_HZ])
    (folder / "empty.wav").touch()


def _features(path: Path) -> None:
    """Two videos in the shape that the shipped checkpoint `mosi-provided` takes; the numbers mean nothing."""
    rng = np.random.default_rng(0)
    widths = {"text": 100, "audio": 73, "visual": 100}
    columns: dict[str, Any] = {name: rng.normal(size=(8, width)) for name, width in widths.items()}
    np.savez(
        path,
        dialogue=np.repeat(["video-1", "video-2"], 4),
        utterance=np.tile(np.arange(4), 2),
        label=rng.integers(0, 2, 8),
        classes=np.array(["negative", "positive"]),
        **columns,
    )
