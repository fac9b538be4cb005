"""The rolling window keeps order, speakers and revisions."""

from __future__ import annotations

import numpy as np

from cmath_stream.window import Window


def vectors(value: float) -> dict[str, np.ndarray]:
    return {"text": np.full(3, value, np.float32)}


def test_speakers_are_numbered_by_first_appearance_for_ever() -> None:
    window = Window(rows=2)
    for n, pid in enumerate(["ben", "anna", "carl", "ben"]):
        rows = window.put(f"u{n}", pid, vectors(n))
    assert [row.speaker for row in rows] == [2, 0]  # ben is still 0 though his first row has left


def test_a_revision_replaces_its_row_and_sees_only_what_was_before() -> None:
    window = Window(rows=4)
    for n in range(3):
        window.put(f"u{n}", "anna", vectors(n))
    seen = window.put("u1", "anna", vectors(9.0))
    assert [row.utterance_id for row in seen] == ["u0", "u1"]
    assert seen[-1].vectors["text"][0] == 9.0
    assert [row.vectors["text"][0] for row in window.put("u3", "anna", vectors(3.0))] == [0.0, 9.0, 2.0, 3.0]


def test_a_revision_of_what_has_left_stands_alone_and_changes_nothing() -> None:
    window = Window(rows=2)
    for n in range(4):
        window.put(f"u{n}", "anna", vectors(n))
    assert [row.utterance_id for row in window.put("u0", "anna", vectors(9.0), revision=1)] == ["u0"]
    assert [row.utterance_id for row in window.put("u4", "anna", vectors(4.0))] == ["u3", "u4"]


def test_the_oldest_row_leaves() -> None:
    window = Window(rows=3)
    for n in range(10):
        rows = window.put(f"u{n}", "anna", vectors(n))
    assert [row.utterance_id for row in rows] == ["u7", "u8", "u9"]
