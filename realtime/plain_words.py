"""Words from anywhere as one line that no terminal obeys. Knows characters; not where words come from."""

from __future__ import annotations

# Controls, C1 among them, and what turns the direction of writing; joiners stay, words are spelled with them.
_OBEYED = [*range(0x20), *range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A)]
_BLANKS = dict.fromkeys(_OBEYED, " ")


def plain(words: str) -> str:
    """Without controls, every stretch of blanks as one."""
    return " ".join(words.translate(_BLANKS).split())
