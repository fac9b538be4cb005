"""Turns read and written."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime import rttm
from realtime.errors import MediaError
from realtime.rttm import Turn

TEXT = """;; two recordings
SPKR-INFO one 1 <NA> <NA> <NA> unknown Anna <NA>
SPEAKER one 1 2.500 1.000 <NA> <NA> Ben <NA> <NA>
SPEAKER one 1 0.250 0.500 <NA> <NA> Anna <NA>

SPEAKER two 1 1 1 <NA> <NA> MÉO069 <NA> <NA>
"""


def test_parse_sorts_the_turns_of_each_recording() -> None:
    assert rttm.parse(TEXT) == {
        "one": [Turn("Anna", 0.25, 0.75), Turn("Ben", 2.5, 3.5)],
        "two": [Turn("MÉO069", 1.0, 2.0)],
    }


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("hello", "f, line 1: not an RTTM line"),
        ("\nSPEAKER one 1 2.5 1.0 <NA>", "f, line 2: not an RTTM line"),
        ("SPEAKER one 1 x 1.0 <NA> <NA> A <NA> <NA>", "f, line 1: bad start or duration"),
        ("SPEAKER one 1 0 -1 <NA> <NA> A <NA> <NA>", "f, line 1: bad start or duration"),
        ("SPEAKER one 1 0 inf <NA> <NA> A <NA> <NA>", "f, line 1: bad start or duration"),
    ],
)
def test_malformed_lines_are_named(text: str, where: str) -> None:
    with pytest.raises(MediaError) as caught:
        rttm.parse(text, "f")
    assert str(caught.value).startswith(where)


def test_read_finds_a_recording_by_name(tmp_path: Path) -> None:
    path = tmp_path / "turns.rttm"
    path.write_text(TEXT, "utf-8")
    assert rttm.read(path, "two") == [Turn("MÉO069", 1.0, 2.0)]
    with pytest.raises(MediaError, match="no turns of recording 'three'; it knows: one, two"):
        rttm.read(path, "three")
    path.write_text(rttm.render("only", [Turn("A", 0, 1)]), "utf-8")
    assert rttm.read(path, "other name") == [Turn("A", 0.0, 1.0)]


def test_read_of_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="cannot read"):
        rttm.read(tmp_path / "none.rttm", "x")


turns = st.builds(
    lambda name, start, length: Turn(name, start / 1000, (start + length) / 1000),
    st.sampled_from(["anna", "ben", "c"]),
    st.integers(0, 10**6),
    st.integers(1, 10**5),
)


@given(st.lists(turns, min_size=1, max_size=20))
def test_what_is_written_reads_back(written: list[Turn]) -> None:
    read = rttm.parse(rttm.render("call", written))["call"]
    assert len(read) == len(written)
    expected = sorted(written, key=lambda turn: (round(turn.start_s, 3), round(turn.end_s, 3), turn.speaker))
    for got, turn in zip(read, expected, strict=True):
        assert got.speaker == turn.speaker
        assert got.start_s == pytest.approx(turn.start_s, abs=1e-6)
        assert got.end_s == pytest.approx(turn.end_s, abs=1e-6)


def test_names_with_blanks_survive_as_one_word() -> None:
    assert rttm.parse(rttm.render("my call", [Turn("Ben Smith", 0, 1)])) == {
        "my_call": [Turn("Ben_Smith", 0, 1)]
    }
