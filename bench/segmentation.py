"""How well utterances fit the turns that people marked, on real recordings, offline or over a real call.

    python -m bench.segmentation DATA [--live] [--clean]

Every mono mix with turns is split into one track a speaker and played as one conversation: through `replay`
(twice, to compare the bytes) or, with --live, as WebRTC participants of a running installation. `--clean`
leaves out the loud-voice detector, which digital silence between the turns of a split track favours.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import secrets
import socket
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.split_by_rttm import split
from cmath_stream.config import Settings
from cmath_stream.events import Event, to_json
from cmath_stream.inputs import Source, sources
from cmath_stream.offline import build
from cmath_stream.publishing import publish_all
from cmath_stream.replay import Replay
from cmath_stream.scoring import SegmentationScore, score
from cmath_stream.supervise import everything
from cmath_stream.watch import room_entries
from realtime import settings
from realtime.redis_bus import RedisConfig
from realtime.rttm import Turn

_CLOSE_S = 30.0  # for the last events of a call


@dataclass(frozen=True, slots=True)
class Clip:
    """One conversation: its people, and their turns where somebody marked them."""

    name: str
    people: tuple[Source, ...]
    turns: tuple[Turn, ...]


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a clip."""

    name: str
    segments: list[Turn]
    started: int
    ended: int  # utterances with exactly one end
    same_bytes: bool | None  # of two replays; None = not replayed
    score: SegmentationScore | None  # None = nobody marked the turns


def clips(data: Path, folder: Path) -> Iterator[Clip]:
    """The conversations in the data folder, split into tracks under `folder`."""
    mixes: list[tuple[Path, str, Path | None]] = [
        (
            data / "two_person_call/sample.flac",
            "two_person_call/sample.rttm",
            data / "two_person_call/sample.stm",
        )
    ]
    mixes += [(path, "meeting/train.rttm", None) for path in sorted((data / "meeting").glob("*.flac"))]
    for path, turns, words in mixes:
        tracks = split(path, data / turns, folder / path.stem, words)
        people = sources([t.path for t in tracks], [t.captions_path for t in tracks if t.captions_path], None)
        marked = [
            Turn(person.participant_id, turn.start_s, turn.end_s)
            for person, track in zip(people, tracks, strict=True)
            for turn in track.turns
        ]
        yield Clip(f"{path.parent.name}/{path.stem}", tuple(people), tuple(marked))
    yield Clip("talkers", tuple(sources(sorted((data / "talkers").glob("*.mp4")), None, None)), ())


def replayed(machine: Replay, clip: Clip) -> Result:
    """A clip through `replay`, twice."""
    first, second = ([*machine.run(clip.people, lambda _: None)] for _ in range(2))
    same = [to_json(event) for event in first] == [to_json(event) for event in second]
    return _result(clip, first, {}, same)


async def called(whip_root: str, redis_url: str, clip: Clip) -> Result:
    """A clip as a live call."""
    room = f"bench-{secrets.token_hex(4)}"
    told: list[Event] = []

    async def listen() -> None:
        async with aclosing(room_entries(RedisConfig(url=redis_url), room, "$")) as entries:
            async for _, event in entries:
                told.append(event)

    listening = asyncio.create_task(listen(), name="listen")
    reports = await publish_all(clip.people, f"{whip_root}/{room}", speed=1.0, token=None)
    await asyncio.wait_for(listening, _CLOSE_S)
    return _result(clip, told, {r["participant"]: r["session_offset_ms"] for r in reports}, None)


def _result(clip: Clip, told: Sequence[Event], offsets_ms: dict[str, int], same: bool | None) -> Result:
    final = [event for event in told if event.get("is_final")]
    segments = [_segment(event, offsets_ms.get(event["participant_id"], 0)) for event in final]
    started = sum(event["type"] == "utterance.started" for event in told)
    ends = [event["utterance_id"] for event in final]
    ended = len(set(ends))
    marked = score(segments, clip.turns) if clip.turns else None
    return Result(clip.name, segments, started, ended if ended == len(ends) else -1, same, marked)


def _segment(event: Event, offset_ms: int) -> Turn:
    """An utterance in the time of its participant's file."""
    edges = (event[edge] - offset_ms for edge in ("start_ms", "end_ms"))
    return Turn(event["participant_id"], *(edge / 1000 for edge in edges))


async def _all_live(everybody: Sequence[Clip], config: Path | None) -> list[Result]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environ = {"INGEST__PORT": str(port), "INGEST__LOOPBACK_ONLY": "true", "SESSION__LINGER_S": "1"}
    environ = {f"CMATH_STREAM__{key}": value for key, value in environ.items()}
    arguments = ["--config", str(config)] if config else []
    async with everything(arguments, os.environ.get("REDIS_URL"), environ) as running:
        whip = f"http://127.0.0.1:{port}/whip"
        return [await called(whip, running.redis_url, clip) for clip in everybody]


def main() -> int:
    """Command line; returns the exit status: 1 if an utterance was lost or two replays differ."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="folder with the clips")
    parser.add_argument("--live", action="store_true", help="publish over WebRTC in place of replaying")
    parser.add_argument("--clean", action="store_true", help="speech detector alone, no loud voice")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        everybody = list(clips(chosen.data / "clips", Path(name)))
        config = Path(name) / "settings.toml"
        config.write_text(
            f"[session.conversation]\nnonverbal = {str(not chosen.clean).lower()}\n[text]\nwhisper = 'none'\n"
        )
        if chosen.live:
            results = asyncio.run(_all_live(everybody, config))
        else:
            machine = build(settings.load(Settings, config, {}))
            results = [replayed(machine, clip) for clip in everybody]
    total, meetings = SegmentationScore(), SegmentationScore()
    for result in results:
        same = {None: "", True: ", same bytes twice", False: ", TWO REPLAYS DIFFER"}[result.same_bytes]
        counts = f"{result.started:3d} utterances, {result.ended} ended{same}"
        print(f"{result.name:<24}{counts}  {result.score or ''}")
        if result.score is not None:
            total += result.score
            meetings += result.score if result.name.startswith("meeting") else SegmentationScore()
    print(f"{'meetings':<24}{meetings}\n{'all':<24}{total}")
    good = all(r.started == r.ended and r.same_bytes is not False for r in results)
    print(
        json.dumps({"live": chosen.live, "loud_voice": not chosen.clean, "whole": good, "all": asdict(total)})
    )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
