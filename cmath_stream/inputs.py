"""What the user names on the command line → one recording and its captions per participant."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cmath_stream.sources.names import participant_name
from realtime import captions as caption_files
from realtime.errors import MediaError
from realtime.messages import Caption
from realtime.recording import Recording
from realtime.rttm import Turn


@dataclass(frozen=True, slots=True)
class Source:
    """One participant's recording."""

    participant_id: str
    path: Path
    captions: tuple[Caption, ...] = ()
    channel: int | None = None  # of a stereo file; None = all mixed
    turns: tuple[Turn, ...] | None = None  # where this one speaks in a track of several; None = everywhere


def sources(
    files: Sequence[Path], captions: Sequence[Path] | None, participants: Sequence[str] | None
) -> list[Source]:
    """One Source a file. Names are the files' stems unless given.

    A caption file named after a recording (`anna.vtt` or `anna.captions.json` beside `anna.opus`) is that
    participant's; in any other, the speaker's name decides. Raises MediaError for what fits nobody.
    """
    if participants and len(participants) != len(files):
        raise MediaError(f"{len(participants)} participant names for {len(files)} files")
    names = list(participants) if participants else [_name(path) for path in files]
    for name in names:
        if not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", name):
            raise MediaError(f"participant name {name!r} may hold letters, digits, _ . - only (at most 64)")
        if names.count(name) > 1:
            raise MediaError(f"two participants are called {name!r}: give names with --participant")
    words: dict[str, list[Caption]] = {name: [] for name in names}
    for path in captions or ():
        for speaker, said in caption_files.read(path).items():
            words[owner_of(path, speaker, files, names)] += said
    return [
        Source(name, path, tuple(sorted(words[name], key=lambda c: (c.start_s, c.end_s))))
        for name, path in zip(names, files, strict=True)
    ]


def channels(file: Path, captions: Sequence[Path] | None, participants: Sequence[str]) -> list[Source]:
    """One Source a channel of the file, as a telephone system records a call; captions name their speakers.

    Raises MediaError where there are not as many channels as names, and for what fits nobody.
    """
    count = Recording.open(file).channels
    if len(participants) != count:
        raise MediaError(f"{len(participants)} participant names for 1 file of {count} channel(s)")
    people = sources([file] * count, captions, participants)
    return [replace(person, channel=channel) for channel, person in enumerate(people)]


def owner_of(path: Path, speaker: str | None, files: Sequence[Path], names: Sequence[str]) -> str:
    """Which participant a speaker of the file `path` is. Raises MediaError where it is nobody."""
    if len(names) == 1:
        return names[0]
    stem = path.name.partition(".")[0]
    owners = [name for name, file in zip(names, files, strict=True) if file.name.partition(".")[0] == stem]
    if len(owners) == 1:
        return owners[0]
    for name in names:
        if speaker is not None and name.lower() == participant_name(speaker).lower():
            return name
    who = f"speaker {speaker!r}" if speaker else "captions without a speaker"
    raise MediaError(f"{path}: {who} fits none of the participants {', '.join(names)}")


def _name(path: Path) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "-", path.name.partition(".")[0]).strip("-")[:64] or "participant"
