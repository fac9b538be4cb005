"""Make one track per speaker of a mono mix, as if each had spoken into a microphone of their own.

    python bench/split_by_rttm.py mix.flac mix.rttm OUT [--stm mix.stm]

Inside a speaker's turns the mix is kept (with whoever talks over them), elsewhere there is digital silence.
Writes `<speaker>.flac` (16 kHz mono) and, with words, `<speaker>.captions.json`. Where the words carry other
names than the turns, each name goes to the speaker whose turns it overlaps longest, and the track takes it.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np

from cmath_stream.scoring import merge
from cmath_stream.sources.gate import opened
from cmath_stream.sources.turns import match_names
from realtime import captions, rttm
from realtime.errors import CmathStreamError, MediaError
from realtime.messages import SAMPLE_RATE_HZ, Caption, Pcm
from realtime.recording import Recording
from realtime.rttm import Turn


@dataclass(frozen=True, slots=True)
class SpeakerTrack:
    """What was written of one speaker; `turns` carry the track's name."""

    name: str
    path: Path
    captions_path: Path | None  # None where no words are known
    turns: tuple[Turn, ...]


def split(
    audio_path: Path, rttm_path: Path, out_dir: Path, stm_path: Path | None = None
) -> list[SpeakerTrack]:
    """Write the tracks of every speaker of `audio_path` into `out_dir`, in order of the speakers' names.

    The turns are those the RTTM file gives under the stem of `audio_path`. Raises MediaError.
    """
    turns = rttm.read(rttm_path, audio_path.stem)
    chunks = list(Recording.open(audio_path).audio())
    if not chunks:
        raise MediaError(f"{audio_path} holds no sound")
    mix = np.zeros(round(chunks[-1].end_s * SAMPLE_RATE_HZ), np.float32)
    for chunk in chunks:
        start = round(chunk.start_s * SAMPLE_RATE_HZ)
        mix[start : start + len(chunk.pcm)] = chunk.pcm[: len(mix) - start]
    words = captions.read(stm_path) if stm_path else {}
    named = match_names(turns, {name: said for name, said in words.items() if name is not None})
    out_dir.mkdir(parents=True, exist_ok=True)
    tracks = []
    for speaker in sorted({turn.speaker for turn in turns}):
        name = named.get(speaker, speaker)
        own = tuple(Turn(name, turn.start_s, turn.end_s) for turn in turns if turn.speaker == speaker)
        path = out_dir / f"{_file_name(name)}.flac"
        speech = merge([(turn.start_s, turn.end_s) for turn in own])
        _write_flac(path, mix * opened(speech, 0, len(mix)))
        said = words.get(name)
        captions_path = _write_captions(path.with_suffix(".captions.json"), name, said) if said else None
        tracks.append(SpeakerTrack(name, path, captions_path, own))
    return tracks


def _write_flac(path: Path, pcm: Pcm) -> None:
    with av.open(str(path), "w", format="flac") as container:
        stream = container.add_stream("flac", rate=SAMPLE_RATE_HZ, layout="mono")
        samples = np.clip(np.rint(pcm * 32767), -32768, 32767).astype(np.int16)[None]  # [1, T]
        for start in range(0, samples.shape[1], 4096):
            block = np.ascontiguousarray(samples[:, start : start + 4096])
            frame = av.AudioFrame.from_ndarray(block, format="s16", layout="mono")
            frame.sample_rate, frame.pts = SAMPLE_RATE_HZ, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _write_captions(path: Path, speaker: str, said: Sequence[Caption]) -> Path:
    items = [
        {
            "start_ms": round(caption.start_s * 1000),
            "end_ms": round(caption.end_s * 1000),
            "text": caption.text,
            "speaker": speaker,
        }
        for caption in said
    ]
    path.write_text(json.dumps(items, indent=1, ensure_ascii=False) + "\n", "utf-8")
    return path


def _file_name(speaker: str) -> str:
    return re.sub(r"[^\w.-]", "_", speaker).lstrip(".") or "_"


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="One track per speaker of a mono mix.")
    parser.add_argument(
        "audio", type=Path, help="the mix; the RTTM file knows it by its file name without suffix"
    )
    parser.add_argument("rttm", type=Path, help="who speaks when")
    parser.add_argument("out", type=Path, help="folder for the tracks; made if missing")
    parser.add_argument("--stm", type=Path, help="the words with their times (.stm, .vtt or .json)")
    chosen = parser.parse_args(arguments)
    try:
        tracks = split(chosen.audio, chosen.rttm, chosen.out, chosen.stm)
    except CmathStreamError as error:
        print(f"split_by_rttm: {error}", file=sys.stderr)
        return 1
    for track in tracks:
        spoken_s = sum(turn.end_s - turn.start_s for turn in track.turns)
        print(f"{track.path}: {len(track.turns)} turns, {spoken_s:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
