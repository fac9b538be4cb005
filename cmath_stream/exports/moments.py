"""Moments on the wall clock, where events know them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from cmath_stream.events import Event

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def unix_ms(event: Event) -> int | None:
    """When what the event tells of began, in ms since 1970; None where it does not say."""
    try:
        moment = datetime.fromisoformat(event.get("started_at", ""))
    except ValueError:
        return None
    return None if moment.tzinfo is None else max(0, (moment - _EPOCH) // timedelta(milliseconds=1))


def iso(ms: int) -> str:
    """ISO 8601 in UTC, to the second."""
    return (_EPOCH + timedelta(milliseconds=ms)).strftime("%Y-%m-%dT%H:%M:%SZ")
