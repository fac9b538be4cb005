"""Working ahead changes neither the items nor their order, stays within its bound, and ends with its user."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from cmath_stream.ahead import ahead


def test_the_same_items_in_order_from_one_other_thread() -> None:
    threads: set[int] = set()

    def items() -> Iterator[int]:
        for number in range(100):
            threads.add(threading.get_ident())
            yield number

    with ahead(items(), 2) as coming:
        assert list(coming) == list(range(100))
    assert len(threads) == 1 and threading.get_ident() not in threads


def test_no_more_than_the_bound_is_made_before_it_is_asked_for() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for number in range(100):
            made.append(number)
            yield number

    with ahead(items(), 2) as coming:
        for number in range(10):
            assert next(coming) == number
            assert len(made) <= number + 1 + 2
    assert len(made) <= 12


def test_it_begins_before_anything_is_asked_for() -> None:
    begun = threading.Event()

    def items() -> Iterator[int]:
        begun.set()
        yield 1

    with ahead(items(), 1):
        assert begun.wait(10)


def test_an_error_comes_after_what_was_made_before_it() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("broken")

    with ahead(items(), 3) as coming:
        assert next(coming) == 1
        with pytest.raises(ValueError, match="broken"):
            next(coming)


def test_nothing_of_nothing() -> None:
    with ahead(iter(()), 2) as coming:
        assert list(coming) == []
