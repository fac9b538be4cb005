"""What a format cannot show is kept beside what it shows, so that the two make the same event again.

`shown` is the part of an event that a reader of the file will find by the format's own means. Where that is
not exactly what the event says (blanks that a format folds, a number of another kind) the event's own value
is left over too, and counts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from cmath_stream.events import Event


def difference(event: Mapping[str, Any], shown: Mapping[str, Any]) -> Event:
    """What of `event` does not follow from `shown`, which has no key that the event lacks."""
    left: Event = {}
    for key, value in event.items():
        if key not in shown:
            left[key] = value
        elif isinstance(value, dict) and isinstance(shown[key], dict):
            inner = difference(value, shown[key])
            if inner:
                left[key] = inner
        elif not _same(value, shown[key]):
            left[key] = value
    return left


def merged(shown: Mapping[str, Any], left: Mapping[str, Any]) -> Event:
    """The event again: `merged(shown, difference(event, shown)) == event`."""
    event: Event = dict(shown)
    for key, value in left.items():
        both = isinstance(value, dict) and isinstance(event.get(key), dict)
        event[key] = merged(event[key], value) if both else value
    return event


def to_ascii(event: Mapping[str, Any]) -> str:
    """JSON on one line that no text format can take for its own: plain ASCII, and no `>`."""
    return json.dumps(event, separators=(",", ":")).replace(">", "\\u003e")


def _same(one: Any, other: Any) -> bool:
    """Equal, and of the same kind: 1, 1.0 and True are three values of JSON."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)
