"""Long things of Redis a page at a time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, TypeVar

from realtime.redis_cluster import Client

PAGE = 500

T = TypeVar("T")


async def entries(client: Client, stream: str) -> AsyncIterator[tuple[bytes, dict[bytes, bytes]]]:
    """All entries of a stream, the oldest first; none of a stream that is not there."""
    after = "-"
    while True:
        page: Any = await client.xrange(stream, min=after, count=PAGE)
        for entry in page:
            yield entry
        if len(page) < PAGE:
            return
        after = f"({page[-1][0].decode()}"


def paged(items: Sequence[T]) -> Iterator[Sequence[T]]:
    """The items in their order, so many at once that one command or pipeline may take."""
    return (items[first : first + PAGE] for first in range(0, len(items), PAGE))
