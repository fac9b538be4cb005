"""WebVTT (W3C): an utterance a cue, in the voice of its speaker, with the emotion beneath the words.

A NOTE beside the cue, which no player shows, keeps what the cue does not say, so the same events can be read
back. Whoever corrects a cue's times, speaker, words or class (the emotion) has corrected the event.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from cmath_stream.events import Event
from cmath_stream.exports.about import About
from cmath_stream.exports.canon import checked, decoded
from cmath_stream.exports.leftover import difference, merged, to_ascii
from cmath_stream.exports.said import Numbered, in_order, said
from cmath_stream.exports.shown_text import one_line
from realtime.errors import MediaError

_HEAD = "WEBVTT emotion-event/1"
_COLOURS = {
    "joy": "#f0b429", "surprise": "#5cc8d6", "anger": "#ff8077", "disgust": "#a3c95c", "fear": "#c3a2f5",
    "sadness": "#8fb4ff", "neutral": "#d5d8dd",
}  # fmt: skip
_NOTE = re.compile(r"NOTE cmath-stream (\d+) (\{.*\})")
_TIMES = re.compile(r"(\d+):(\d\d):(\d\d)\.(\d{3}) --> (\d+):(\d\d):(\d\d)\.(\d{3})(?:\s.*)?")
_VOICE = re.compile(r"<v(?:\.([^\s.>]+))? ([^>]+)>(.*)", re.DOTALL)
_EMOTION = re.compile(r"\s*<c\.emotion>[^<]*</c>$")


def write(events: Iterable[Event], file: BinaryIO, _: About) -> None:
    """Write the events of one session. Raises MediaError for several."""
    conversation = said(events)
    style = "\n".join(f"::cue(.{label}) {{ color: {colour} }}" for label, colour in _COLOURS.items())
    blocks = [_HEAD, f"STYLE\n{style}"]
    for number, event in conversation.utterances:
        cue = _cue(event)
        left = difference(event, _shown(cue, str(number)))
        blocks += [_note(number, left), f"{number}\n{cue}"]
    blocks += [_note(number, event) for number, event in conversation.others]
    file.write(("\n\n".join(blocks) + "\n").encode())


def read(path: Path) -> Iterator[Event]:
    """The events again. Raises MediaError, naming the cue, where it was not written here or is damaged."""
    try:
        text = path.read_text("utf-8-sig")
    except UnicodeDecodeError:
        raise MediaError(f"{path}: not UTF-8") from None
    if not text.startswith(_HEAD):
        raise MediaError(f"{path}: no events in it: this WebVTT file was not written by cmath-stream")
    yield from in_order(_numbered([block.strip("\n") for block in re.split(r"\n\n+", text)], path))


def _numbered(blocks: list[str], path: Path) -> Iterator[Numbered]:
    notes = {int(note[1]): note[2] for note in map(_NOTE.fullmatch, blocks) if note}
    for block in blocks[1:]:
        number, _, cue = block.partition("\n")
        if re.match(r"(NOTE|STYLE|REGION)\b", block) or not block:
            continue
        where = f"{path}, cue {number:.20}"
        if not number.isdecimal() or int(number) not in notes:
            raise MediaError(f"{where}: its NOTE is missing, and with it the rest of its event")
        left = decoded(notes.pop(int(number)), where)
        assert isinstance(left, dict)  # as _NOTE wants it
        yield int(number), checked(merged(_shown(cue, where), left), where)
    for place, note in notes.items():
        where = f"{path}, NOTE {place}"
        event = decoded(note, where)
        if isinstance(event, dict) and "type" not in event:
            raise MediaError(f"{where}: its cue is missing, and with it a part of its event")
        yield place, checked(event, where)


def _note(number: int, event: Event) -> str:
    return f"NOTE cmath-stream {number} {to_ascii(event)}"


def _cue(event: Event) -> str:
    start_ms, end_ms = int(event["start_ms"]), int(event["end_ms"])
    best = max(event["emotions"], key=lambda emotion: emotion["probability"])
    label, share = event["label"], f"{best['probability']:.0%}"
    emotion = f"{label} {share}" if label else f"({best['name']}?) {share}"
    voice = f"<v.{_class(label)} " if label and _class(label) else "<v "
    name = html.escape(one_line(event["participant_id"]), quote=False) or "?"
    words = html.escape(one_line(event.get("text", "")), quote=False)
    lines = [f"<c.emotion>{html.escape(one_line(emotion), quote=False)}</c>"]
    return f"{_clock(start_ms)} --> {_clock(max(end_ms, start_ms + 1))}\n{voice}{name}>" + "\n".join(
        [words, *lines] if words else lines
    )


def _shown(cue: str, where: str) -> Event:
    """What a cue says: the opposite of `_cue`."""
    times, _, payload = cue.partition("\n")
    clocks, voice = _TIMES.fullmatch(times), _VOICE.fullmatch(payload)
    if clocks is None or voice is None:
        raise MediaError(f"{where}: no cue of one voice with its times")
    words = html.unescape(_EMOTION.sub("", voice[3]))
    return {
        "type": "emotion.utterance",
        "participant_id": html.unescape(voice[2]),
        "start_ms": _ms(*clocks.groups()[:4]),
        "end_ms": _ms(*clocks.groups()[4:]),
        **({"text": " ".join(words.split())} if words else {}),
        "label": voice[1],
        "abstained": voice[1] is None,
    }


def _class(label: str) -> str:
    return re.sub(r"[^\w-]", "", label)


def _clock(ms: int) -> str:
    return f"{ms // 3_600_000:02d}:{ms // 60_000 % 60:02d}:{ms // 1000 % 60:02d}.{ms % 1000:03d}"


def _ms(*clock: str) -> int:
    hours, minutes, seconds, fraction = map(int, clock)
    return (hours * 3600 + minutes * 60 + seconds) * 1000 + fraction
