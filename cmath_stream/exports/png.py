"""PNG: the picture of `plot`, who said what when and what emotion was heard in it. It is not read back."""

from __future__ import annotations

from collections.abc import Iterable
from typing import BinaryIO

from cmath_stream.events import Event
from cmath_stream.exports.about import About
from cmath_stream.exports.said import one_session


def write(events: Iterable[Event], file: BinaryIO, about: About) -> None:
    """Draw the events of one session. Raises MediaError for several."""
    from cmath_stream.plot import timeline  # matplotlib takes a second to load

    timeline(one_session(events), file, about.name)
