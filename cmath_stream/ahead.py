"""An iterator that works ahead: the next items are made in a thread while the last one is used.

Two halves of a job that follow each other then run on two cores, and what comes out is the same, in the same
order. Knows nothing of the items.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def ahead(items: Iterator[T], most: int) -> Generator[T, None, None]:
    """The same items, none of them None; at most `most` are made before they are asked for.

    What the iterator raises is raised here, after the items before it. It runs in one thread, and no more of
    it runs once this iterator is closed.
    """
    thread = ThreadPoolExecutor(1, thread_name_prefix="ahead")
    try:
        coming = deque(thread.submit(next, items, None) for _ in range(most))
        while (item := coming.popleft().result()) is not None:
            coming.append(thread.submit(next, items, None))
            yield item
    finally:
        thread.shutdown(cancel_futures=True)
