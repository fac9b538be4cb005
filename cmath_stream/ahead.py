"""An iterator that works ahead: the next items are made in a thread while the last one is used.

Two halves of a job that follow each other then run on two cores, and what comes out is the same, in the same
order. Knows nothing of the items.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


@contextmanager
def ahead(items: Iterator[T], most: int) -> Iterator[Iterator[T]]:
    """The same items, none of them None; at most `most` are made before they are asked for, from now on.

    What the iterator raises is raised where its item would have been. It runs in one thread, and no more of
    it runs once the block is left.
    """
    thread = ThreadPoolExecutor(1, thread_name_prefix="ahead")
    coming = deque(thread.submit(next, items, None) for _ in range(most))

    def made() -> Iterator[T]:
        while (item := coming.popleft().result()) is not None:
            coming.append(thread.submit(next, items, None))
            yield item

    try:
        yield made()
    finally:
        thread.shutdown(cancel_futures=True)
