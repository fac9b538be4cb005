"""Names of people as they are written anywhere → names of participants, which also go into keys and paths."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

LONGEST = 64


def participant_name(said: str) -> str:
    """Letters of any script, digits, `_ . -`, at most 64; all else, as blanks and controls, becomes `-`."""
    plain = unicodedata.normalize("NFC", said)
    return re.sub(r"[^\w.-]+", "-", plain).strip("-")[:LONGEST] or "participant"


def distinct(said: Iterable[str]) -> dict[str, str]:
    """Every name, in order of first appearance → its participant's; no two become the same."""
    names: dict[str, str] = {}
    for each in dict.fromkeys(said):
        name, count = participant_name(each), 1
        while name in names.values():
            count += 1
            name = f"{participant_name(each)[: LONGEST - 4]}-{count}"
        names[each] = name
    return names
