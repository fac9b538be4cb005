"""Text as a format can show it, which may be less than a text is."""

from __future__ import annotations

import re

# What XML 1.0 (§2.2) cannot hold, half surrogate pairs, and what no reader of captions would see.
_UNSHOWN = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def one_line(text: str) -> str:
    """Words with single blanks between them, on one line, in characters that every text format can hold."""
    return " ".join(_UNSHOWN.sub("\N{REPLACEMENT CHARACTER}", text).split())
