"""What a writer may want to know besides the events."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class About:
    """Of one file that is written."""

    name: str  # of the conversation, for a title or as a recording's name
    media: tuple[str, ...] = ()  # recordings, as paths from the file that is written
