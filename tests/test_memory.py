"""Pages: a row is found by what it is and what its convolutions look at, and the oldest gives way."""

from __future__ import annotations

import numpy as np

from cmath_stream.memory import Pages
from cmath_stream.window import Row


def row(name: str = "u") -> Row:
    return Row(name, 0, {"text": np.zeros(2, np.float32)})


def test_a_row_is_found_by_identity() -> None:
    pages, one, same = Pages(4), row(), row()
    assert pages.find((one,)) is None
    page = pages.take((one,))
    assert pages.find((one,)) == page
    assert pages.find((same,)) is None  # a revision is another row, though it may say the same


def test_a_row_behind_another_halo_is_another_page() -> None:
    pages, before, late, one = Pages(4), row("a"), row("b"), row("c")
    pages.take((before, one))
    assert pages.find((late, one)) is None
    assert pages.find((before, one)) is not None


def test_what_was_not_asked_for_longest_gives_way() -> None:
    pages, rows = Pages(3), [row(str(n)) for n in range(4)]
    taken = [pages.take((each,)) for each in rows[:3]]
    assert sorted(taken) == [0, 1, 2]
    pages.find((rows[0],))
    assert pages.take((rows[3],)) == taken[1]
    assert pages.find((rows[1],)) is None
    assert [pages.find((each,)) is not None for each in rows] == [True, False, True, True]
    assert len(pages) == 3


def test_a_kept_row_cannot_be_mistaken_for_a_new_one() -> None:
    """While a page is held its row is too, so its identity cannot be given to another object."""
    pages = Pages(1000)
    for n in range(200):
        pages.take((row(str(n)),))
    assert all(pages.find((row(str(n)),)) is None for n in range(200))
