"""EmotionML 1.0 (W3C Recommendation, 22 May 2014): an utterance an `emotion`, with a `category` an emotion.

`value` of a category is the probability of its emotion. Times are `start` and `end` in ms since 1970 where
the moment of the session is known, else `offset-to-start` and `duration` in ms from its zero. An `info` in
each keeps, in elements of our own namespace as the recommendation wants it, what the rest does not say, so
the same events can be read back. Whoever corrects a time, a word, a value or the participant has corrected
the event.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from cmath_stream.events import Event
from cmath_stream.exports.about import About
from cmath_stream.exports.canon import checked, decoded
from cmath_stream.exports.leftover import difference, merged, to_ascii
from cmath_stream.exports.moments import unix_ms
from cmath_stream.exports.said import Numbered, in_order, said
from cmath_stream.exports.shown_text import one_line
from realtime.errors import MediaError

_EML = "http://www.w3.org/2009/10/emotionml"
_CS = "https://schemas.cmath-stream.org/emotion-event/1"
_SESSION = "session"  # id of the root's info, from which the times count
_THROUGH = {"text": "text", "audio": "voice", "visual": "face"}  # the recommendation's words for our senses
_NO_NAME = re.compile(  # a character that no Nmtoken (XML 1.0, §2.3) has
    "[^-.:0-9A-Z_a-z\xb7\xc0-\xd6\xd8-\xf6\xf8-\u037d\u037f-\u1fff\u200c\u200d\u203f\u2040\u2070-\u218f"
    "\u2c00-\u2fef\u3001-\ud7ff\uf900-\ufdcf\ufdf0-\ufffd\U00010000-\U000effff]"
)


def write(events: Iterable[Event], file: BinaryIO, _: About) -> None:
    """Write the events of one session. Raises MediaError for several."""
    conversation = said(events)
    started = (unix_ms(event) for _, event in conversation.others if event["type"] == "session.started")
    zero_ms = next(started, None)
    sets: dict[tuple[str, ...], str] = {}
    for _number, event in conversation.utterances:
        sets.setdefault(_names(event), f"emotions-{len(sets) + 1}")
    root = Element("emotionml", {"xmlns": _EML, "xmlns:cs": _CS, "version": "1.0"})
    info = SubElement(root, "info", id=_SESSION)
    if zero_ms is not None:
        SubElement(info, "cs:zero").text = str(zero_ms)
    for number, event in conversation.others:
        SubElement(info, "cs:event", n=str(number)).text = to_ascii(event)
    for names, key in sets.items():
        vocabulary = SubElement(root, "vocabulary", type="category", id=key)
        for name in names:
            SubElement(vocabulary, "item", name=name)
    for number, event in conversation.utterances:
        _add(root, number, event, f"#{sets[_names(event)]}", zero_ms)
    ElementTree.indent(root)
    ElementTree.ElementTree(root).write(file, "utf-8", xml_declaration=True)


def read(path: Path) -> Iterator[Event]:
    """The events again. Raises MediaError where the file was not written here or is damaged."""
    try:
        root = ElementTree.parse(path).getroot()
    except (ElementTree.ParseError, ValueError) as error:
        raise MediaError(f"{path}: not XML: {error}") from None
    info = root.find(f"{{{_EML}}}info[@id='{_SESSION}']")
    if root.tag != f"{{{_EML}}}emotionml" or info is None:
        raise MediaError(f"{path}: no events in it: this EmotionML was not written by cmath-stream")
    yield from in_order(_numbered(root, info, path))


# ---- writing ---------------------------------------------------------------------------------------


def _add(root: Element, number: int, event: Event, vocabulary: str, zero_ms: int | None) -> None:
    start_ms = int(event["start_ms"])
    end_ms = max(start_ms, int(event["end_ms"]))
    if zero_ms is None:
        times = {"time-ref-uri": f"#{_SESSION}", "offset-to-start": str(start_ms)}
        times["duration"] = str(end_ms - start_ms)
    else:
        times = {"start": str(zero_ms + start_ms), "end": str(zero_ms + end_ms)}
    emotion = SubElement(root, "emotion", {"id": f"u{number}", "category-set": vocabulary, **times})
    through = [word for sense, word in _THROUGH.items() if event["modalities"][sense]["used"]]
    if through:
        emotion.set("expressed-through", " ".join(through))
    words, person = one_line(event.get("text", "")), one_line(event["participant_id"])
    emotion.text = f"\n    {words}\n    " if words else None
    names, values = _names(event), [entry["probability"] for entry in event["emotions"]]
    for name, value in zip(names, values, strict=True):
        SubElement(emotion, "category", name=name, value=repr(value))
    info = SubElement(emotion, "info")
    SubElement(info, "cs:participant").text = person
    left = difference(event, _shown(person, start_ms, end_ms, words, zip(names, values, strict=True)))
    SubElement(info, "cs:rest", n=str(number)).text = to_ascii(left)


def _names(event: Event) -> tuple[str, ...]:
    """The emotions' names as the vocabulary can have them: tokens, no two the same."""
    names: dict[str, None] = {}
    for entry in event["emotions"]:
        name = _NO_NAME.sub("_", entry["name"])
        while name in names:
            name += "_"
        names[name] = None
    return tuple(names)


# ---- reading ---------------------------------------------------------------------------------------


def _numbered(root: Element, info: Element, path: Path) -> Iterator[Numbered]:
    zero = info.findtext(f"{{{_CS}}}zero")
    if zero is not None and not zero.strip().isdecimal():
        raise MediaError(f"{path}: the session's zero is no time: {zero!r:.40}")
    zero_ms = int(zero) if zero is not None else None
    for element in info.iterfind(f"{{{_CS}}}event"):
        yield _number(element, path), checked(_kept(element, path), f"{path}, event {element.get('n')}")
    for emotion in root.iterfind(f"{{{_EML}}}emotion"):
        where = f"{path}, emotion {emotion.get('id', '')}"
        rest = emotion.find(f"{{{_EML}}}info/{{{_CS}}}rest")
        left = None if rest is None else _kept(rest, path)
        if rest is None or not isinstance(left, dict):
            raise MediaError(f"{where}: its info is missing, and with it a part of its event")
        try:
            shown = _read(emotion, zero_ms)
        except (KeyError, ValueError):
            raise MediaError(f"{where}: no times, or no probabilities, that can be read") from None
        yield _number(rest, path), checked(merged(shown, left), where)


def _number(element: Element, path: Path) -> int:
    number = element.get("n", "")
    if not number.isdecimal():
        raise MediaError(f"{path}: an event without its number: n={number!r:.40}")
    return int(number)


def _kept(element: Element, path: Path) -> object:
    return decoded(element.text or "", f"{path}, event {element.get('n')}")


def _read(emotion: Element, zero_ms: int | None) -> Event:
    """What an emotion says. Raises KeyError or ValueError where it lacks what every one of ours has."""
    if zero_ms is None:
        start_ms = int(emotion.attrib["offset-to-start"])
        end_ms = start_ms + int(emotion.attrib["duration"])
    else:
        start_ms, end_ms = (int(emotion.attrib[edge]) - zero_ms for edge in ("start", "end"))
    categories = emotion.findall(f"{{{_EML}}}category")
    values = [(each.attrib["name"], _value(each.attrib["value"])) for each in categories]
    words = one_line(" ".join([emotion.text or "", *(child.tail or "" for child in emotion)]))
    person = emotion.findtext(f"{{{_EML}}}info/{{{_CS}}}participant") or ""
    return _shown(person, start_ms, end_ms, words, values)


def _shown(person: str, start_ms: int, end_ms: int, words: str, values: Iterable[tuple[str, float]]) -> Event:
    emotions = [{"name": name, "probability": value} for name, value in values]
    return {
        "type": "emotion.utterance",
        "participant_id": person,
        "start_ms": start_ms,
        "end_ms": end_ms,
        **({"text": words} if words else {}),
        "emotions": emotions,
        "label": max(emotions, key=_probability)["name"],
        "abstained": False,
    }


def _probability(entry: Event) -> float:
    return float(entry["probability"])


def _value(text: str) -> float:
    return int(text) if text.isdecimal() else float(text)
