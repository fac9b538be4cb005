"""The rules of EmotionML 1.0 (W3C Recommendation, 22 May 2014) for what we write, checked one by one.

No validator of the format exists as a package. The numbers are those of the assertions in W3C's
implementation report, where there is one.
"""

from __future__ import annotations

import re
from xml.etree.ElementTree import Element, fromstring

NS = "{http://www.w3.org/2009/10/emotionml}"
_START = (  # XML 1.0, productions [4], [4a] and [7]
    "A-Z_a-z\xc0-\xd6\xd8-\xf6\xf8-\u02ff\u0370-\u037d\u037f-\u1fff\u200c-\u200d\u2070-\u218f\u2c00-\u2fef"
    "\u3001-\ud7ff\uf900-\ufdcf\ufdf0-\ufffd\U00010000-\U000effff"
)
_INSIDE = f"{_START}.0-9\xb7\u0300-\u036f\u203f-\u2040-"
_NAME, _TOKEN = f"[{_START}][{_INSIDE}]*", f"[:{_INSIDE}]+"
_FLOAT = r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?"
_REPRESENTATIONS = ("category", "dimension", "appraisal", "action-tendency")
_ATTRIBUTES: dict[str, dict[str, str]] = {  # what an element may have, and its lexical form; `!`: it must
    "emotionml": {"version!": r"1\.0", "category-set": ".+"},
    "vocabulary": {"type!": "category|dimension|appraisal|action-tendency", "id!": _NAME},
    "item": {"name!": _TOKEN},
    "info": {"id": _NAME},
    "emotion": {
        "version": r"1\.0", "id": _NAME, "category-set": ".+",
        "start": r"\d+", "end": r"\d+", "duration": r"\d+",
        "time-ref-uri": r"\S+", "time-ref-anchor-point": "start|end", "offset-to-start": r"[+-]?\d+",
        "expressed-through": rf"{_TOKEN}( {_TOKEN})*",
    },
    "category": {"name!": _TOKEN, "value": _FLOAT, "confidence": _FLOAT},
    "reference": {"uri!": r"\S+", "role": "expressedBy|experiencedBy|triggeredBy|targetedAt"},
}  # fmt: skip
_CHILDREN = {
    "emotionml": {"emotion", "vocabulary", "info"},
    "vocabulary": {"item"},
    "emotion": {"category", "reference", "info"},
}


def broken(document: bytes) -> list[str]:
    """What breaks a rule; nothing, if all are kept."""
    root = fromstring(document)
    if root.tag != f"{NS}emotionml":
        return [f"101, 102: the root is {root.tag}"]
    found = list(_elements(root))
    ids = [element.attrib["id"] for element in root.iter() if "id" in element.attrib]
    if len(set(ids)) != len(ids):
        found.append("an id (xsd:ID) is given twice")
    vocabularies = {}
    for vocabulary in root.iter(f"{NS}vocabulary"):
        names = [item.attrib["name"] for item in vocabulary]
        if not names or len(set(names)) != len(names):
            found.append("600-608: a vocabulary has no items, or one twice")
        vocabularies[f"#{vocabulary.get('id')}"] = vocabulary.get("type"), names
    for emotion in root.iter(f"{NS}emotion"):
        found += _emotion(emotion, emotion.get("category-set") or root.get("category-set"), vocabularies, ids)
    return found


def _elements(element: Element) -> list[str]:
    found = []
    name = element.tag.removeprefix(NS)
    allowed = {key.rstrip("!"): form for key, form in _ATTRIBUTES.get(name, {}).items()}
    required = {key.rstrip("!") for key in _ATTRIBUTES.get(name, {}) if key.endswith("!")}
    for key, value in element.attrib.items():
        if key not in allowed:
            found.append(f"{name} has an attribute {key}")
        elif not re.fullmatch(allowed[key], value):
            found.append(f"{name} {key}={value!r} is not of its form")
    found += [f"{name} has no {key}" for key in required - element.attrib.keys()]
    if sum(child.tag == f"{NS}info" for child in element) > 1:
        found.append(f"105, 155: {name} has two infos")
    for child in element:
        inner = child.tag.removeprefix(NS)
        if name == "info":
            if any(each.tag.startswith(NS) or not each.tag.startswith("{") for each in child.iter()):
                found.append(f"303: info has an element of EmotionML's own: {inner}")
        elif inner not in _CHILDREN.get(name, set()):
            found.append(f"{name} has a child {inner}")
        else:
            found += _elements(child)
    return found


def _emotion(
    emotion: Element,
    declared: str | None,
    vocabularies: dict[str, tuple[str | None, list[str]]],
    ids: list[str],
) -> list[str]:
    found = []
    categories = emotion.findall(f"{NS}category")
    names = [category.attrib["name"] for category in categories]
    if not any(child.tag.removeprefix(NS) in _REPRESENTATIONS for child in emotion):
        found.append("156: an emotion says of no emotion")
    kind, vocabulary = vocabularies.get(declared or "", (None, []))
    if names and kind != "category":
        found.append(f"210: no vocabulary of categories is declared: {declared}")
    found += [f"212: {name} is not in the vocabulary" for name in names if name not in vocabulary]
    if len(set(names)) != len(names):
        found.append("213: an emotion names a category twice")
    for category in categories:
        for key in ("value", "confidence"):
            if key in category.attrib and not 0 <= float(category.attrib[key]) <= 1:
                found.append(f"300, 500: {key} is outside [0, 1]")
    start, end = emotion.get("start"), emotion.get("end")
    if start and end and int(end) < int(start):
        found.append("an emotion ends before it starts")
    reference = emotion.get("time-ref-uri", "")
    if "offset-to-start" in emotion.attrib and not reference:
        found.append("an offset from nothing")
    if reference.startswith("#") and reference[1:] not in ids:
        found.append(f"time-ref-uri {reference} leads nowhere")
    return found
