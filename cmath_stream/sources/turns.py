"""One track that several people share, and a file that says who speaks when → one Source a person.

The turns are RTTM, WebVTT with `<v Name>`, ELAN's EAF or STM. Whatever the file has of words goes to its
speakers too. Names stay as they are written, as far as a participant may be called so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cmath_stream.inputs import Source
from cmath_stream.scoring import Interval, merge, overlap_s
from cmath_stream.sources.names import distinct, participant_name
from realtime import captions as caption_files
from realtime import eaf, rttm
from realtime.captions import Captions
from realtime.errors import MediaError
from realtime.messages import Caption
from realtime.rttm import Turn

FORMATS = (".rttm", ".vtt", ".eaf", ".stm")


@dataclass(frozen=True, slots=True)
class Marked:
    """Who speaks when, and what of it is known in words."""

    turns: Sequence[Turn]  # in order of time
    words: Captions = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Shared:
    """The people of one track."""

    sources: list[Source]
    notes: list[str]  # what a person should know about them, a sentence each


def read(path: Path, recording: str) -> Marked:
    """The turns of `recording` (a stem, which RTTM and STM may know among others). Raises MediaError."""
    suffix = path.suffix.lower()
    if suffix == ".rttm":
        return Marked(rttm.read(path, recording))
    if suffix not in FORMATS:
        raise MediaError(f"{path}: turns must be one of {', '.join(FORMATS)}")
    words: Captions
    if suffix == ".eaf":
        turns, words = [], {}
        for each in eaf.parse(_text(path), str(path)):
            turns.append(Turn(each.speaker, each.start_ms / 1000, each.end_ms / 1000))
            if each.text:
                said = Caption(each.start_ms / 1000, each.end_ms / 1000, each.text)
                words.setdefault(each.speaker, []).append(said)
    else:
        words = caption_files.read(path, recording)
        if None in words:
            raise MediaError(f"{path}: {len(words[None])} captions name no speaker: turns need <v Name>")
        turns = [Turn(name or "", c.start_s, c.end_s) for name, said in words.items() for c in said]
    if not turns:
        raise MediaError(f"{path}: no turns in it")
    return Marked(sorted(turns, key=lambda turn: (turn.start_s, turn.end_s, turn.speaker)), words)


def shared(track: Path, marked: Marked, words: Captions | None = None) -> Shared:
    """The people of a track by their turns; `words`, where given, in place of those that the turns bring.

    Words under names that are none of the turns' go to whom they overlap longest, who then takes that name;
    words without a name go to whoever's turn they overlap longest. Raises MediaError where there is nobody.
    """
    notes = []
    turns = marked.turns
    given = dict(marked.words if words is None else words)
    nameless = given.pop(None, [])
    named = {name: said for name, said in given.items() if name is not None}
    known = {participant_name(turn.speaker).lower() for turn in turns}
    strangers = {n: said for n, said in named.items() if participant_name(n).lower() not in known}
    if strangers:
        heard = {participant_name(name).lower() for name in named}
        free = [turn for turn in turns if participant_name(turn.speaker).lower() not in heard]
        renamed = match_names(free, strangers)
        lost = sorted(set(strangers) - set(renamed.values()))
        if lost:
            speakers = ", ".join(sorted({turn.speaker for turn in turns}))
            raise MediaError(f"words of {lost[0]!r} fit none of the speakers of the turns: {speakers}")
        notes += [f"{old} is {new}, by whose turns the words are" for old, new in renamed.items()]
        turns = [Turn(renamed.get(t.speaker, t.speaker), t.start_s, t.end_s) for t in turns]
    names = distinct(turn.speaker for turn in turns)
    said: dict[str, list[Caption]] = {name: [] for name in names.values()}
    lower = {name.lower(): name for name in said}
    for speaker, captions in named.items():
        said[names.get(speaker) or lower[participant_name(speaker).lower()]] += captions
    for caption in nameless:
        said[names[_speaker_of(caption, turns)]].append(caption)
    overlapped_s = _overlapped_s(turns)
    if overlapped_s >= 0.05:
        notes.append(f"{overlapped_s:.1f} s where turns overlap: each of them hears the others there too")
    people = [
        Source(
            name, track, tuple(sorted(said[name], key=lambda c: (c.start_s, c.end_s))),
            turns=tuple(turn for turn in turns if turn.speaker == speaker),
        )
        for speaker, name in names.items()
    ]  # fmt: skip
    return Shared(people, notes)


def match_names(turns: Sequence[Turn], words: Mapping[str, Sequence[Caption]]) -> dict[str, str]:
    """Speaker of the turns → name in the words, pairing the greatest overlaps first, each name once."""
    pairs = []
    for speaker in sorted({turn.speaker for turn in turns}):
        own: list[Interval] = [(turn.start_s, turn.end_s) for turn in turns if turn.speaker == speaker]
        for name in sorted(words):
            said = [(caption.start_s, caption.end_s) for caption in words[name]]
            pairs.append((overlap_s(own, said), speaker, name))
    named: dict[str, str] = {}
    for seconds, speaker, name in sorted(pairs, key=lambda pair: -pair[0]):
        if seconds > 0 and speaker not in named and name not in named.values():
            named[speaker] = name
    return named


def _speaker_of(caption: Caption, turns: Sequence[Turn]) -> str:
    """Who says a caption: the nearest speaker where nobody's turn overlaps it."""
    return max(turns, key=lambda t: min(t.end_s, caption.end_s) - max(t.start_s, caption.start_s)).speaker


def _overlapped_s(turns: Sequence[Turn]) -> float:
    """Seconds in which more than one person speaks."""
    own: dict[str, list[Interval]] = {}
    for turn in turns:
        own.setdefault(turn.speaker, []).append((turn.start_s, turn.end_s))
    edges: Counter[float] = Counter()
    for intervals in own.values():
        for start_s, end_s in merge(intervals):
            edges[start_s] += 1
            edges[end_s] -= 1
    total, speaking, since_s = 0.0, 0, 0.0
    for at_s, change in sorted(edges.items()):
        total += (at_s - since_s) if speaking > 1 else 0.0
        speaking, since_s = speaking + change, at_s
    return total


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise MediaError(f"cannot read {path}: {error}") from None
