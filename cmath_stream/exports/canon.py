"""The canonical event: valid by the schema, its keys in the order in which they are published.

So two files with the same events, in whatever format they were kept, give the same JSON lines.
"""

from __future__ import annotations

import json
from typing import Any

from cmath_stream.events import Event
from cmath_stream.exports.schema_check import problem
from realtime.errors import MediaError

# One order for every object of every event; what is not named comes after it, as it came.
_ORDER = {
    key: rank
    for rank, key in enumerate(
        "schema seq type event_id session_id room purpose participant_id utterance_id revision is_final"
        " index start_ms end_ms notice at_ms continues clock started_at started endpoint queue text"
        " language used reason quality label emotions abstained modalities context window speakers model"
        " name version labels engine precision latency_ms probability audio visual fuse total faces"
        " lost_ms utterances half_life_ms consent totals dropped".split()
    )
}


def checked(value: object, where: str) -> Event:
    """A decoded JSON value as a canonical event. Raises MediaError, naming `where`, if it is none."""
    wrong = problem(value)
    if wrong is not None:
        raise MediaError(f"{where}: {wrong}")
    event: Event = _ordered(value)
    return event


def decoded(text: str | bytes, where: str) -> object:
    """The JSON value of a text. Raises MediaError, naming `where`, for what is no JSON, NaN included."""
    try:
        return json.loads(text, parse_constant=_refuse)
    except UnicodeDecodeError:
        raise MediaError(f"{where}: not UTF-8") from None
    except (ValueError, RecursionError) as error:
        said = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
        raise MediaError(f"{where}: not JSON: {said}") from None


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is no number of JSON")


def _ordered(value: Any) -> Any:
    if isinstance(value, dict):
        keys = sorted(value, key=lambda key: _ORDER.get(key, len(_ORDER)))
        return {key: _ordered(value[key]) for key in keys}
    if isinstance(value, list):
        return [_ordered(item) for item in value]
    return value
