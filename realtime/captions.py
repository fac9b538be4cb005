"""Given words: WebVTT, SubRip, STM and JSON captions as lists per speaker.

The parsers take text and touch nothing; `read` picks one by the file's suffix. The key None holds the
captions that name no speaker. Every parser raises MediaError, naming file and line (or JSON item), for
malformed input.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from realtime.errors import MediaError
from realtime.messages import Caption
from realtime.plain_words import plain

Captions = dict[str | None, list[Caption]]

_ARROW = re.compile(r"^\s*(\S+)\s+-->\s+(\S+)")
_CLOCK = re.compile(r"^(?:(\d+):)?([0-5]?\d):([0-5]?\d)[.,](\d{1,3})$")
_VOICE = re.compile(r"<v(?:\.[^\s>]*)?\s+([^>]+)>")
_EMOTION = re.compile(r"<c\.emotion>.*?</c>")  # what an export of ours says beneath the words
_TAG = re.compile(r"<[^>]*>")
_STM_LABEL = re.compile(r"^<[^>]*>$")  # the optional sixth field: <o,f0,male>


def parse_vtt(text: str, source: str = "WebVTT") -> Captions:
    """WebVTT (W3C): `<v Name>` names the speaker; a cue with several voices becomes several captions.

    Several voices in one cue share its whole time, as the format gives no finer one. Emotions that
    `cmath-stream export` wrote into a cue are left out: they are no words.
    """
    lines = text.removeprefix("\ufeff").splitlines()
    if not lines or not re.match(r"WEBVTT(\s|$)", lines[0]):
        raise MediaError(f"{source}, line 1: a WebVTT file begins with WEBVTT")
    head = next((i for i, line in enumerate(lines) if not line.strip() or "-->" in line), len(lines))
    captions: Captions = {}
    for start_s, end_s, payload in _cues(lines[head:], head + 1, source):
        parts = _VOICE.split(_EMOTION.sub("", payload))  # [before, name, words, name, words, …]
        spoken = [(None, parts[0]), *zip(parts[1::2], parts[2::2], strict=True)]
        for speaker, words in spoken:
            _add(captions, html.unescape(speaker) if speaker else None, start_s, end_s, _plain(words))
    return _sorted(captions)


def parse_srt(text: str, source: str = "SRT") -> Captions:
    """SubRip. It knows no speakers: all captions lie under None."""
    captions: Captions = {}
    for start_s, end_s, payload in _cues(text.removeprefix("\ufeff").splitlines(), 1, source):
        _add(captions, None, start_s, end_s, _plain(payload))
    return _sorted(captions)


def parse_stm(text: str, source: str = "STM", recording: str | None = None) -> Captions:
    """STM (NIST): `recording channel speaker start end [<labels>] words`, seconds.

    With `recording`, of a file that knows several that one alone.
    """
    recordings: dict[str, Captions] = {}
    for number, line in enumerate(text.removeprefix("\ufeff").splitlines(), start=1):
        if not line.strip() or line.startswith(";;"):
            continue
        fields = line.split(maxsplit=5)
        if len(fields) < 5:
            raise MediaError(f"{source}, line {number}: a line is: recording channel speaker start end words")
        start_s, end_s = (_number(field, f"{source}, line {number}") for field in fields[3:5])
        _check_order(start_s, end_s, f"{source}, line {number}")
        words = fields[5] if len(fields) > 5 else ""
        label, _, rest = words.partition(" ")
        words = rest if _STM_LABEL.match(label) else words
        if words.strip().lower() != "ignore_time_segment_in_scoring":
            _add(recordings.setdefault(fields[0], {}), fields[2], start_s, end_s, _plain(words))
    if recording is not None and len(recordings) > 1:
        if recording not in recordings:
            known = ", ".join(sorted(recordings))
            raise MediaError(f"{source} has no words of recording {recording!r}; it knows: {known}")
        return _sorted(recordings[recording])
    captions: Captions = {}
    for each in recordings.values():
        for speaker, said in each.items():
            captions.setdefault(speaker, []).extend(said)
    return _sorted(captions)


def parse_json(text: str, source: str = "JSON") -> Captions:
    """A list of `{"start_ms"|"start_s", "end_ms"|"end_s", "text", "speaker"?, "language"?}`.

    Other keys are ignored, so that a richer file (a script with intentions, say) serves as captions.
    """
    try:
        items = json.loads(text)
    except json.JSONDecodeError as error:
        raise MediaError(f"{source}, line {error.lineno}: not JSON: {error.msg}") from None
    if not isinstance(items, list):
        raise MediaError(f"{source}: captions are a JSON list of objects")
    captions: Captions = {}
    for index, item in enumerate(items):
        where = f"{source}, item {index}"
        if not isinstance(item, dict):
            raise MediaError(f"{where}: not an object")
        start_s, end_s = _moment(item, "start", where), _moment(item, "end", where)
        _check_order(start_s, end_s, where)
        words, speaker, language = (_string(item, key, where) for key in ("text", "speaker", "language"))
        if words is None:
            raise MediaError(f"{where}: no text")
        _add(captions, speaker, start_s, end_s, words, language)
    return _sorted(captions)


PARSERS: dict[str, Callable[[str, str], Captions]] = {
    ".vtt": parse_vtt,
    ".srt": parse_srt,
    ".stm": parse_stm,
    ".json": parse_json,
}


def read(path: Path, recording: str | None = None) -> Captions:
    """Captions of a file, its format told by the suffix; an STM may know several recordings.

    Raises MediaError as the parsers do.
    """
    parser = PARSERS.get(path.suffix.lower())
    if parser is None:
        raise MediaError(f"{path}: captions must be one of {', '.join(PARSERS)}")
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise MediaError(f"cannot read {path}: {error}") from None
    return parse_stm(text, str(path), recording) if parser is parse_stm else parser(text, str(path))


def _cues(lines: list[str], first: int, source: str) -> Iterator[tuple[float, float, str]]:
    """(start, end, text) of the blocks of a WebVTT or SubRip file; `first` is the number of `lines[0]`."""
    block: list[tuple[int, str]] = []
    for number, line in enumerate([*lines, ""], start=first):
        if line.strip():
            block.append((number, line))
            continue
        if block and not re.match(r"(NOTE|STYLE|REGION)\b", block[0][1]):
            yield from _cue(block, source)
        block = []


def _cue(block: list[tuple[int, str]], source: str) -> Iterator[tuple[float, float, str]]:
    timing = next((i for i, (_, line) in enumerate(block[:2]) if "-->" in line), None)
    if timing is None:
        raise MediaError(f"{source}, line {block[0][0]}: a caption without a line of times")
    number, line = block[timing]
    match = _ARROW.match(line)
    start_s, end_s = (_clock_s(text) for text in match.groups()) if match else (None, None)
    if start_s is None or end_s is None:
        raise MediaError(f"{source}, line {number}: bad times: {line.strip()[:60]!r}")
    _check_order(start_s, end_s, f"{source}, line {number}")
    yield start_s, end_s, " ".join(text for _, text in block[timing + 1 :])


def _clock_s(text: str) -> float | None:
    match = _CLOCK.match(text)
    if match is None:
        return None
    hours, minutes, seconds, fraction = match.groups()
    return int(hours or 0) * 3600 + int(minutes) * 60 + int(seconds) + int(fraction.ljust(3, "0")) / 1000


def _moment(item: dict[str, Any], edge: str, where: str) -> float:
    for key, scale in ((f"{edge}_ms", 1000.0), (f"{edge}_s", 1.0)):
        if key in item:
            value = item[key]
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise MediaError(f"{where}: {key} is not a number")
            return value / scale
    raise MediaError(f"{where}: neither {edge}_ms nor {edge}_s")


def _string(item: dict[str, Any], key: str, where: str) -> str | None:
    value = item.get(key)
    if value is not None and not isinstance(value, str):
        raise MediaError(f"{where}: {key} is not a string")
    return value


def _number(text: str, where: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise MediaError(f"{where}: {text!r} is not a time in seconds") from None


def _check_order(start_s: float, end_s: float, where: str) -> None:
    if not 0 <= start_s < end_s < float("inf"):
        raise MediaError(f"{where}: a caption must end after it starts, got {start_s:g} to {end_s:g} s")


def _plain(words: str) -> str:
    return html.unescape(_TAG.sub("", words))


def _add(
    captions: Captions,
    speaker: str | None,
    start_s: float,
    end_s: float,
    text: str,
    language: str | None = None,
) -> None:
    if words := plain(text):
        tag = plain(language) if language else None
        captions.setdefault(speaker, []).append(Caption(start_s, end_s, words, tag))


def _sorted(captions: Captions) -> Captions:
    for one in captions.values():
        one.sort(key=lambda caption: (caption.start_s, caption.end_s))
    return captions
