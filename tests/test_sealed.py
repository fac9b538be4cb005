"""Sealed files: read back whole with the key, and with nothing else; no change goes unnoticed."""

from __future__ import annotations

import stat
from itertools import accumulate
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realtime.errors import MediaError, SettingsError
from realtime.sealed import MAGIC, SealedReader, SealedWriter, read_key

KEY, OTHER = bytes(range(32)), bytes(32)
PIECES = [b"first", b"", b"second" * 1000, b"x"]
HEAD = len(MAGIC) + 16
OVERHEAD = 4 + 16  # length and tag


def sealed(path: Path, pieces: list[bytes] = PIECES, *, close: bool = True) -> Path:
    writer = SealedWriter(path, KEY)
    for piece in pieces:
        writer.write(piece)
    writer.close() if close else writer.abandon()
    return path


def test_what_was_written_comes_back_in_order(tmp_path: Path) -> None:
    reader = SealedReader(sealed(tmp_path / "a"), KEY)
    assert list(reader) == PIECES
    assert reader.whole
    assert list(reader) == PIECES  # and again


def test_a_file_is_its_owners_and_says_nothing(tmp_path: Path) -> None:
    path = sealed(tmp_path / "a", [b"marked words"] * 3)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert b"marked" not in path.read_bytes()
    again = sealed(tmp_path / "b", [b"marked words"] * 3)
    assert path.read_bytes()[HEAD:] != again.read_bytes()[HEAD:]  # each file has a key of its own
    with pytest.raises(FileExistsError):
        SealedWriter(path, KEY)


def test_another_key_opens_nothing(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="a cannot be opened: another key, or damaged"):
        list(SealedReader(sealed(tmp_path / "a"), OTHER))


def test_a_file_that_was_cut_off_gives_what_is_there_and_is_not_whole(tmp_path: Path) -> None:
    whole = sealed(tmp_path / "a").read_bytes()
    ends = list(accumulate((OVERHEAD + len(piece) for piece in PIECES), initial=HEAD))
    path = tmp_path / "cut"
    for size in range(HEAD, len(whole), 7):
        path.write_bytes(whole[:size])
        reader = SealedReader(path, KEY)
        assert list(reader) == PIECES[: sum(size >= end for end in ends[1:])]
        assert not reader.whole
    unclosed = SealedReader(sealed(tmp_path / "b", close=False), KEY)
    assert (list(unclosed), unclosed.whole) == (PIECES, False)


def test_pieces_cannot_be_swapped_or_left_out(tmp_path: Path) -> None:
    whole = sealed(tmp_path / "a", [b"11", b"22"]).read_bytes()
    head, one, two, end = (whole[:HEAD], *(whole[HEAD + n * (OVERHEAD + 2) :][: OVERHEAD + 2] for n in (0, 1)), whole[-OVERHEAD:])  # fmt: skip  # noqa: E501
    path = tmp_path / "b"
    for parts in ((two, one, end), (two, end), (one, end), (one, one, two, end)):
        path.write_bytes(head + b"".join(parts))
        with pytest.raises(MediaError):
            list(SealedReader(path, KEY))


@settings(deadline=None)
@given(at=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_a_changed_bit_is_an_error_or_a_cut_never_other_words(
    tmp_path_factory: pytest.TempPathFactory, at: int, bit: int
) -> None:
    path = tmp_path_factory.mktemp("bit") / "a"
    changed = bytearray(sealed(path).read_bytes())
    changed[at % len(changed)] ^= 1 << bit
    path.write_bytes(changed)
    reader, read = SealedReader(path, KEY), []
    try:
        for piece in reader:
            read.append(piece)
    except MediaError as error:
        assert "\n" not in str(error)
    else:
        assert not reader.whole
    assert read == PIECES[: len(read)]


def test_what_is_no_such_file_is_said(tmp_path: Path) -> None:
    for name, content in (("empty", b""), ("wav", b"RIFF" + bytes(100))):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(MediaError, match=f"{name} is no recorded session"):
            list(SealedReader(tmp_path / name, KEY))
    with pytest.raises(MediaError, match="gone cannot be read: No such file"):
        list(SealedReader(tmp_path / "gone", KEY))


def test_keys(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text(KEY.hex() + "\n")
    assert read_key(path) == KEY
    for wrong in ("", "ab", KEY.hex() + "00", "x" * 64, "ä" * 64):
        path.write_text(wrong)
        with pytest.raises(SettingsError, match="is not 64 hexadecimal digits: make one with `openssl"):
            read_key(path)
    with pytest.raises(SettingsError, match="cannot be read: No such file"):
        read_key(tmp_path / "gone")
