"""ELAN's EAF 3.0: a tier a participant with the words, and child tiers for what was made of them.

The child tiers are `emotion@NAME`, `confidence@NAME`, `used@NAME` and `missing@NAME`. A property of the
document for each event keeps what the tiers do not say, so the same events can be read back. Whoever corrects
times, words, an emotion or a tier's participant in ELAN has corrected the event; the other child tiers are
for the eye.
"""

from __future__ import annotations

import mimetypes
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, count
from pathlib import Path
from typing import BinaryIO
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from cmath_stream.events import SCHEMA, Event
from cmath_stream.exports.about import About
from cmath_stream.exports.canon import checked, decoded
from cmath_stream.exports.leftover import difference, merged, to_ascii
from cmath_stream.exports.moments import iso, unix_ms
from cmath_stream.exports.said import Numbered, in_order, said
from cmath_stream.exports.shown_text import one_line
from realtime.errors import MediaError

_OURS, _EVENT = "cmath-stream", "cmath-stream event"  # beginnings of the names of properties
_EMOTION = "emotion"
_XSI = "{http://www.w3.org/2001/XMLSchema-instance}noNamespaceSchemaLocation"
_CONSTRAINTS = {  # ELAN expects the declarations of all four
    "Time_Subdivision": "Divides its parent's time without gaps",
    "Symbolic_Subdivision": "Divides its parent in order, without times",
    "Symbolic_Association": "One to one with its parent",
    "Included_In": "Has times within its parent's, gaps are allowed",
}


def write(events: Iterable[Event], file: BinaryIO, about: About) -> None:
    """Write the events of one session. Raises MediaError for several."""
    conversation = said(events)
    root = Element(
        "ANNOTATION_DOCUMENT",
        {"AUTHOR": "cmath-stream", "DATE": _date(conversation.others), "FORMAT": "3.0", "VERSION": "3.0",
         _XSI: "http://www.mpi.nl/tools/elan/EAFv3.0.xsd"},
    )  # fmt: skip
    header = SubElement(root, "HEADER", MEDIA_FILE="", TIME_UNITS="milliseconds")
    for path in about.media:
        kind = mimetypes.guess_type(path)[0] or "unknown"
        SubElement(header, "MEDIA_DESCRIPTOR", MEDIA_URL=path, RELATIVE_MEDIA_URL=path, MIME_TYPE=kind)
    _property(header, _OURS, SCHEMA)
    slots = _slots(SubElement(root, "TIME_ORDER"), conversation.utterances)
    emotions = {name: f"cve{n}" for n, name in enumerate(_emotions(conversation.utterances), start=1)}
    ids, names = (f"a{n}" for n in count(1)), set[str]()
    for own in _without_overlap(conversation.utterances):
        annotated = _tiers(root, own, slots, emotions, ids, names)
        for number, event in own:
            left = difference(event, _shown(*_spoken(event), _label(event)))
            _property(header, f"{_EVENT} {number} {annotated[number]}", to_ascii(left))
    for number, event in conversation.others:
        _property(header, f"{_EVENT} {number}", to_ascii(event))
    _property(header, "lastUsedAnnotationId", next(ids).removeprefix("a"))
    _definitions(root, emotions)
    ElementTree.indent(root)
    ElementTree.ElementTree(root).write(file, "utf-8", xml_declaration=True)


def read(path: Path) -> Iterator[Event]:
    """The events again. Raises MediaError where the file was not written here or is damaged."""
    try:
        root = ElementTree.parse(path).getroot()
    except (ElementTree.ParseError, ValueError) as error:
        raise MediaError(f"{path}: not XML: {error}") from None
    properties = {each.get("NAME", ""): each.text or "" for each in root.iter("PROPERTY")}
    if root.tag != "ANNOTATION_DOCUMENT" or properties.get(_OURS) != SCHEMA:
        raise MediaError(f"{path}: no events in it: this EAF file was not written by cmath-stream")
    yield from in_order(_numbered(root, properties, path))


# ---- writing ---------------------------------------------------------------------------------------


def _without_overlap(utterances: Sequence[Numbered]) -> list[list[Numbered]]:
    """Utterances by participant, and where some of one participant overlap, which ELAN forbids, by two."""
    lanes: list[list[Numbered]] = []
    for number, event in utterances:
        speaker, start_ms, _, _ = _spoken(event)
        for lane in lanes:
            other, _, end_ms, _ = _spoken(lane[-1][1])
            if other == speaker and end_ms <= start_ms:
                lane.append((number, event))
                break
        else:
            lanes.append([(number, event)])
    return lanes


def _tiers(
    root: Element,
    own: Sequence[Numbered],
    slots: Mapping[tuple[int, bool], str],
    emotions: Mapping[str, str],
    ids: Iterator[str],
    names: set[str],
) -> dict[int, str]:
    """Add a tier of utterances and its child tiers; the ids of its annotations by the events' numbers."""
    person = _spoken(own[0][1])[0]
    tier = SubElement(
        root, "TIER", LINGUISTIC_TYPE_REF="utterance", PARTICIPANT=person, TIER_ID=_unused(person, names)
    )
    annotated: dict[int, str] = {}
    for number, event in own:
        annotated[number] = next(ids)
        about = {"ANNOTATION_ID": annotated[number], "TIME_SLOT_REF1": slots[number, False]}
        about["TIME_SLOT_REF2"] = slots[number, True]
        _annotation(tier, "ALIGNABLE_ANNOTATION", about, _spoken(event)[3])
    for kind, value_of in _CHILDREN.items():
        child = SubElement(
            root, "TIER", LINGUISTIC_TYPE_REF=kind, PARENT_REF=tier.attrib["TIER_ID"], PARTICIPANT=person,
            TIER_ID=_unused(f"{kind}@{tier.attrib['TIER_ID']}", names),
        )  # fmt: skip
        for number, event in own:
            value = value_of(event)
            if value:
                about = {"ANNOTATION_ID": next(ids), "ANNOTATION_REF": annotated[number]}
                if kind == _EMOTION:
                    about["CVE_REF"] = emotions[value]
                _annotation(child, "REF_ANNOTATION", about, value)
    return annotated


def _spoken(event: Event) -> tuple[str, int, int, str]:
    """Participant, start and end in ms, words; an annotation of ELAN has a length."""
    start_ms, end_ms = int(event["start_ms"]), int(event["end_ms"])
    speaker = one_line(event["participant_id"])
    return speaker, start_ms, max(end_ms, start_ms + 1), one_line(event.get("text", ""))


def _label(event: Event) -> str:
    return one_line(event["label"] or "")


def _confidence(event: Event) -> str:
    return f"{max(emotion['probability'] for emotion in event['emotions']):.2f}"


def _used(event: Event) -> str:
    return " ".join(name for name in ("text", "audio", "visual") if event["modalities"][name]["used"])


def _missing(event: Event) -> str:
    senses = ((name, event["modalities"][name]) for name in ("text", "audio", "visual"))
    return one_line("; ".join(f"{name}: {sense['reason']}" for name, sense in senses if not sense["used"]))


_CHILDREN = {_EMOTION: _label, "confidence": _confidence, "used": _used, "missing": _missing}


def _emotions(utterances: Iterable[Numbered]) -> dict[str, None]:
    names: dict[str, None] = {}
    for _, event in utterances:
        names |= dict.fromkeys(one_line(emotion["name"]) for emotion in event["emotions"])
        names[_label(event)] = None
    names.pop("", None)
    return names


def _slots(order: Element, utterances: Iterable[Numbered]) -> dict[tuple[int, bool], str]:
    """Add the time slots, in order of time; the id of each by (number of the event, is it the end)."""
    times = [
        (ms, number, is_end) for number, event in utterances for is_end, ms in enumerate(_spoken(event)[1:3])
    ]
    slots: dict[tuple[int, bool], str] = {}
    for place, (ms, number, is_end) in enumerate(sorted(times), start=1):
        slots[number, bool(is_end)] = f"ts{place}"
        SubElement(order, "TIME_SLOT", TIME_SLOT_ID=f"ts{place}", TIME_VALUE=str(ms))
    return slots


def _annotation(tier: Element, kind: str, about: dict[str, str], value: str) -> None:
    annotation = SubElement(SubElement(tier, "ANNOTATION"), kind, about)
    SubElement(annotation, "ANNOTATION_VALUE").text = value


def _property(header: Element, name: str, value: str) -> None:
    SubElement(header, "PROPERTY", NAME=name).text = value


def _unused(name: str, names: set[str]) -> str:
    free = next(each for each in chain([name], (f"{name} ({n})" for n in count(2))) if each not in names)
    names.add(free)
    return free


def _date(others: Iterable[Numbered]) -> str:
    """The format wants one; where the start of the session is not known it is plainly none."""
    started = (unix_ms(event) for _, event in others if event["type"] == "session.started")
    return iso(next(started, None) or 0)


def _definitions(root: Element, emotions: Mapping[str, str]) -> None:
    SubElement(
        root,
        "LINGUISTIC_TYPE",
        GRAPHIC_REFERENCES="false",
        LINGUISTIC_TYPE_ID="utterance",
        TIME_ALIGNABLE="true",
    )
    for kind in _CHILDREN:
        controlled = {"CONTROLLED_VOCABULARY_REF": "emotions"} if kind == _EMOTION else {}
        SubElement(
            root, "LINGUISTIC_TYPE", controlled, CONSTRAINTS="Symbolic_Association",
            GRAPHIC_REFERENCES="false", LINGUISTIC_TYPE_ID=kind, TIME_ALIGNABLE="false",
        )  # fmt: skip
    SubElement(
        root, "LANGUAGE", LANG_DEF="http://cdb.iso.org/lg/CDB-00130975-001", LANG_ID="und",
        LANG_LABEL="undetermined (und)",
    )  # fmt: skip
    for stereotype, description in _CONSTRAINTS.items():
        SubElement(root, "CONSTRAINT", DESCRIPTION=description, STEREOTYPE=stereotype)
    vocabulary = SubElement(root, "CONTROLLED_VOCABULARY", CV_ID="emotions")
    SubElement(vocabulary, "DESCRIPTION", LANG_REF="und")
    for name, entry in emotions.items():
        SubElement(
            SubElement(vocabulary, "CV_ENTRY_ML", CVE_ID=entry), "CVE_VALUE", DESCRIPTION="", LANG_REF="und"
        ).text = name


# ---- reading ---------------------------------------------------------------------------------------


def _numbered(root: Element, properties: Mapping[str, str], path: Path) -> Iterator[Numbered]:
    """Every property an event: with an annotation's id as the rest of an utterance, else whole."""
    slots = {slot.get("TIME_SLOT_ID"): slot.get("TIME_VALUE") for slot in root.iter("TIME_SLOT")}
    labels = {
        annotation.get("ANNOTATION_REF"): annotation.findtext("ANNOTATION_VALUE") or ""
        for tier in root.iter("TIER")
        if tier.get("LINGUISTIC_TYPE_REF") == _EMOTION
        for annotation in tier.iter("REF_ANNOTATION")
    }
    spoken = {
        annotation.get("ANNOTATION_ID"): (tier.get("PARTICIPANT"), annotation)
        for tier in root.iter("TIER")
        for annotation in tier.iter("ALIGNABLE_ANNOTATION")
    }
    for name, value in properties.items():
        number, _, annotation_id = name.removeprefix(_EVENT).strip().partition(" ")
        if not name.startswith(_EVENT) or not number.isdecimal():
            continue
        where = f"{path}, event {number}"
        left = decoded(value, where)
        if not annotation_id:
            yield int(number), checked(left, where)
            continue
        person, annotation = spoken.pop(annotation_id, (None, None))
        if annotation is None or not isinstance(left, dict):
            raise MediaError(f"{where}: its annotation {annotation_id} is missing")
        start_ms, end_ms = (slots.get(annotation.get(f"TIME_SLOT_REF{n}")) or "" for n in (1, 2))
        if not (start_ms.isdecimal() and end_ms.isdecimal()):
            raise MediaError(f"{where}: its annotation {annotation_id} has no times")
        words = annotation.findtext("ANNOTATION_VALUE") or ""
        shown = _shown(person or "", int(start_ms), int(end_ms), words, labels.get(annotation_id, ""))
        yield int(number), checked(merged(shown, left), where)
    if spoken:
        raise MediaError(
            f"{path}: annotation {next(iter(spoken))} is none of cmath-stream's: no event goes with it"
        )


def _shown(person: str, start_ms: int, end_ms: int, words: str, label: str) -> Event:
    """What the tiers say of an utterance."""
    return {
        "type": "emotion.utterance",
        "participant_id": person,
        "start_ms": start_ms,
        "end_ms": end_ms,
        **({"text": words} if words else {}),
        "label": label or None,
        "abstained": not label,
    }
