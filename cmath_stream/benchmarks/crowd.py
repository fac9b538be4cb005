"""Many participants in one process, each a peer connection of its own, that play packets encoded before.

The process says "ready" when all of them are connected, plays when a line comes in on standard input, and
ends with one line of JSON about what it sent.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from cmath_stream.benchmarks.packets import Encoded, PlayedPackets, read_pictures, read_sound
from realtime.errors import CmathStreamError
from realtime.messages import Caption
from realtime.playing import SendClock
from realtime.publish import calling, endpoint, play

_JOINING = 4  # at once: a handshake costs the ingest more than a second of media
_AFTER_S = 1.0  # between the last packet and the goodbye, for what is still on its way


@dataclass(frozen=True, slots=True)
class Member:
    """One participant."""

    name: str
    room: str
    sound: str  # file of Opus packets
    captions: tuple[Caption, ...]  # of that file
    pictures: bool
    offset_s: float  # where in the file it begins
    phase_s: float  # how long after the first one it begins


@dataclass(frozen=True, slots=True)
class Plan:
    """What one process plays."""

    whip: str  # URL without the room
    audio_frames: int  # of each participant
    video_frames: int  # of each participant with pictures
    video: str | None  # file of VP8 packets
    fps: int
    members: tuple[Member, ...]


@dataclass(frozen=True, slots=True)
class Played:
    """What one process has sent."""

    audio_frames: int
    video_frames: int
    lost: int  # participants whose connection the ingest ended
    late_p99_ms: float  # how late packets were given to aiortc: the players' fault, not the ingest's


def write_plan(plan: Plan, path: Path) -> None:
    """As JSON."""
    path.write_text(json.dumps(asdict(plan)), "utf-8")


def read_plan(path: Path) -> Plan:
    """The same back."""
    fields = json.loads(path.read_text("utf-8"))
    members = (
        Member(**{**member, "captions": tuple(Caption(**caption) for caption in member["captions"])})
        for member in fields["members"]
    )
    return Plan(**{**fields, "members": tuple(members)})


def words_from(captions: Sequence[Caption], offset_s: float, loop_s: float, until_s: float) -> list[Caption]:
    """Captions of a looped recording as they are heard from `offset_s` on, for `until_s`.

    Of a line that the start or the end cuts in two nothing is said.
    """
    heard = []
    for turn in range(int((offset_s + until_s) // loop_s) + 1):
        moved_s = turn * loop_s - offset_s
        for caption in captions:
            start_s, end_s = caption.start_s + moved_s, caption.end_s + moved_s
            if start_s >= 0 and end_s <= until_s:
                heard.append(Caption(start_s, end_s, caption.text, caption.language))
    return heard


async def perform(plan: Plan) -> None:
    """Join, say so, wait for the word, play, tell what was sent. Raises CmathStreamError."""
    sounds = {member.sound: read_sound(Path(member.sound)) for member in plan.members}
    pictures = read_pictures(Path(plan.video), plan.fps) if plan.video else None
    clock, joining, joined = SendClock(), asyncio.Semaphore(_JOINING), asyncio.Barrier(len(plan.members) + 1)

    lost = 0

    async def take_part(member: Member) -> list[PlayedPackets]:
        nonlocal lost
        sound, words = _sound(member, sounds[member.sound], plan, clock)
        tracks = [sound]
        if member.pictures and pictures is not None:
            tracks.append(PlayedPackets(pictures, plan.video_frames, clock, phase_s=member.phase_s))
        async with AsyncExitStack() as stack:
            async with joining:
                url = endpoint(f"{plan.whip}/{member.room}", member.name)
                line = await stack.enter_async_context(calling(url, tracks, None))
            await joined.wait()
            try:
                await play(sound, line, words, clock)
            except CmathStreamError:  # part of what a load does to an ingest: the others play on
                lost += 1
            await asyncio.sleep(_AFTER_S)
        return tracks

    async with asyncio.TaskGroup() as group:
        parts = [group.create_task(take_part(member), name=member.name) for member in plan.members]
        await joined.wait()
        print("ready", flush=True)
        if not await asyncio.to_thread(sys.stdin.readline):
            raise CmathStreamError("whoever asked for this crowd is gone")
        clock.start()
    played = _played([track for part in parts for track in part.result()], lost)
    print(json.dumps(asdict(played)), flush=True)


def _sound(
    member: Member, media: Encoded, plan: Plan, clock: SendClock
) -> tuple[PlayedPackets, list[Caption]]:
    first = round(member.offset_s / media.period_s)
    track = PlayedPackets(media, plan.audio_frames, clock, first=first, phase_s=member.phase_s)
    until_s = plan.audio_frames * media.period_s
    return track, words_from(member.captions, first * media.period_s, media.duration_s, until_s)


def _played(tracks: Sequence[PlayedPackets], lost: int) -> Played:
    sent = {kind: sum(len(t.late_s) for t in tracks if t.kind == kind) for kind in ("audio", "video")}
    late_s = np.concatenate([track.late_s for track in tracks])
    return Played(sent["audio"], sent["video"], lost, round(float(np.percentile(late_s, 99)) * 1000, 1))
