"""A bar for what takes long."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

T = TypeVar("T")


def bar(*extra: TextColumn, show: bool = True) -> Progress:
    """Title, bar, count and time left, then `extra` columns; not `show`: nothing is written."""
    columns = (TextColumn("[bold]{task.description}"), BarColumn(), MofNCompleteColumn())
    return Progress(*columns, TimeRemainingColumn(), *extra, disable=not show)


def watched(items: Sequence[T], title: str, show: bool) -> Iterator[T]:
    """The items, with a bar of how many are done."""
    with bar(show=show) as shown:
        yield from shown.track(items, description=title)
