"""ELAN's annotation format (.eaf, Max Planck Institute): who was annotated when. Text in, data out.

A tier belongs to the speaker of its PARTICIPANT attribute, or else of its name. Time slots without a time are
spread evenly between the neighbours that have one, as ELAN shows them.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from xml.etree import ElementTree

from realtime.errors import MediaError
from realtime.plain_words import plain


@dataclass(frozen=True, slots=True)
class Annotation:
    """One annotation of one tier."""

    speaker: str
    start_ms: int
    end_ms: int
    text: str


def parse(text: str, source: str = "EAF") -> list[Annotation]:
    """The annotations of all tiers that stand by themselves, in order of time; the tiers below them, which
    say more about the same stretches, are left out.

    Raises MediaError, naming `source`, for anything that is not EAF.
    """
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise MediaError(f"{source}: not XML: {error}") from None
    if root.tag != "ANNOTATION_DOCUMENT":
        raise MediaError(f"{source}: not an ELAN file: it begins with <{root.tag[:40]}>")
    slots = _slots(root, source)
    tiers = [tier for tier in root.iter("TIER") if tier.get("PARENT_REF") is None]
    found = [each for tier in tiers for each in _annotations(tier, slots, source)]
    return sorted(found, key=lambda each: (each.start_ms, each.end_ms, each.speaker))


def _slots(root: ElementTree.Element, source: str) -> dict[str, float]:
    """Time of every slot, ms."""
    slots = [(slot.get("TIME_SLOT_ID", ""), slot.get("TIME_VALUE")) for slot in root.iter("TIME_SLOT")]
    known = [(place, _time_ms(value, source)) for place, (_, value) in enumerate(slots) if value is not None]
    places = [place for place, _ in known]
    times: dict[str, float] = {}
    for place, (slot, _) in enumerate(slots):
        after = bisect(places, place)
        if not after or (after == len(known) and places[-1] != place):
            raise MediaError(f"{source}: time slot {slot[:20]!r} has no time, nor neighbours that have one")
        first, start_ms = known[after - 1]
        last, end_ms = known[min(after, len(known) - 1)]
        times[slot] = start_ms + (end_ms - start_ms) * (place - first) / max(last - first, 1)
    return times


def _time_ms(value: str, source: str) -> int:
    if not (value.isascii() and value.isdigit() and len(value) < 12):
        raise MediaError(f"{source}: {value[:20]!r} is not a time in milliseconds")
    return int(value)


def _annotations(tier: ElementTree.Element, slots: Mapping[str, float], source: str) -> Iterator[Annotation]:
    name = tier.get("TIER_ID", "")
    speaker = (tier.get("PARTICIPANT") or "").strip() or name
    for each in tier.iter("ALIGNABLE_ANNOTATION"):
        start_ms, end_ms = (slots.get(each.get(f"TIME_SLOT_REF{edge}", "")) for edge in (1, 2))
        words = plain(each.findtext("ANNOTATION_VALUE") or "")
        if start_ms is None or end_ms is None or end_ms <= start_ms:
            raise MediaError(f"{source}, tier {name[:40]!r}: annotation {words[:30]!r} has no length")
        yield Annotation(speaker, round(start_ms), round(end_ms), words)
