"""A stranger's pickle gives its data, and nothing in it runs."""

from __future__ import annotations

import builtins
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cmath_stream.training.data import DataError
from cmath_stream.training.safe_pickle import read_pickle

DATA: list[Any] = [
    {"Ses01": ["M", "F"], 3: [1, 2.5, None, True, 2**70]},
    np.arange(6, dtype=np.float32).reshape(2, 3),
    np.asfortranarray(np.arange(6, dtype=np.int64).reshape(2, 3)),
    np.array(["ab", "cde"]),
    np.array([b"ab"]),
    np.array([1.5, 2.5], dtype=">f4"),
    np.zeros((0, 4), np.float64),
    np.float32(0.5),
    np.int64(7),
    np.str_("word"),
    b"raw \xff",
    b"",
    {"a", "b"},
    frozenset({1}),
    ("x", ("y", np.ones(1))),
]


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def equal(a: Any, b: Any) -> bool:
    if isinstance(b, np.ndarray):
        same = isinstance(a, np.ndarray) and a.dtype == b.dtype.newbyteorder("=")
        return same and np.array_equal(a, b)
    if isinstance(b, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in b)
    if isinstance(b, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(equal, a, b))
    return type(a) is type(b) and bool(a == b)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_data_comes_back_in_every_protocol(tmp_path: Path, protocol: int) -> None:
    path = written(tmp_path / "x.pkl", pickle.dumps(DATA, protocol))
    assert equal(read_pickle(path), DATA)


def test_numpy_1_names_are_known_too(tmp_path: Path) -> None:
    packed = pickle.dumps(DATA, 0)
    assert b"numpy._core." in packed
    path = written(tmp_path / "x.pkl", packed.replace(b"numpy._core.", b"numpy.core."))
    assert equal(read_pickle(path), DATA)


def test_python_2_byte_strings_are_latin1(tmp_path: Path) -> None:
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n(I2\ntcnumpy\ndtype\n"
        b"(S'f4'\nI0\nI1\ntR(I3\nS'<'\nNNNI-1\nI-1\nI0\ntbI00\nS'\\x00\\x00\\x80?\\x00\\x00\\x00@'\ntb"
    )
    path = written(tmp_path / "x.pkl", b"(lp0\nS'caf\\xe9'\na" + array + b"ac__builtin__\nset\n((lI4\natRa.")
    assert equal(read_pickle(path), ["café", np.array([1, 2], np.float32), {4}])


def test_shared_and_circular_parts_end(tmp_path: Path) -> None:
    rows = [np.ones(2), np.zeros(3)]
    circle: list[Any] = [rows, rows]
    circle.append(circle)
    loaded = read_pickle(written(tmp_path / "x.pkl", pickle.dumps(circle)))
    assert loaded[0] is loaded[1]
    assert loaded[2] is loaded
    np.testing.assert_array_equal(loaded[0][1], np.zeros(3))


class Call:
    """Pickles as the call of a function."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self._made = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self._made


HOSTILE = {
    "system": (Call(os.system, "exit 1"), "system"),
    "eval": (Call(eval, "1 / 0"), r"builtin(s|__)\.eval"),
    "getattr": (Call(getattr, "x", "upper"), r"builtin(s|__)\.getattr"),
    "import": (Call(builtins.__import__, "os"), r"__import__"),
    "class": (Path("x"), "pathlib"),
    "object array": (np.array([[1], "x"], dtype=object), "dtype 'O8'"),
    "structure": (np.zeros(2, dtype=[("a", "f4"), ("b", "O")]), "dtype 'V12'"),
    "date": (np.zeros(2, dtype="M8[s]"), "dtype 'M8'"),
    "bytes bomb": (Call(bytes, 10**15), "takes 0 positional"),
    "list of types": ([set, 3], "a type where data"),
}


@pytest.mark.parametrize("protocol", (0, 2, 4))
@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_pickle_is_refused_in_one_line(tmp_path: Path, case: str, protocol: int) -> None:
    content, reason = HOSTILE[case]
    with pytest.raises(DataError, match=reason) as caught:
        read_pickle(written(tmp_path / "x.pkl", pickle.dumps(content, protocol)))
    assert "\n" not in str(caught.value)


def test_nothing_of_it_runs(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    packed = pickle.dumps(Call(os.system, f"touch {victim}"))
    with pytest.raises(DataError, match="system"):
        read_pickle(written(tmp_path / "x.pkl", packed))
    assert not victim.exists()
    pickle.loads(packed)  # the trap itself works
    assert victim.exists()


DTYPE = b"cnumpy\ndtype\n(S'f8'\nI0\nI1\ntR"


@pytest.mark.parametrize(
    ("packed", "reason"),
    [
        (b"", "not a readable pickle"),
        (b"\x80\x04\x95", "not a readable pickle"),
        (b"no pickle at all", "not a readable pickle"),
        (b"\x82\x01.", "extension 1"),
        (b"Pid\n.", "persistent"),
        (b"r\xff\xff\xff\x7f", "not a readable pickle"),  # a memo of two thousand million entries
        (b"\x8e\x00\x00\x00\x00\x00\x01\x00\x00x", "not a readable pickle"),  # bytes that are not there
        (b"cnumpy._core.multiarray\nscalar\n(dS'x'\nb.", "sets the state of"),
        (b"cnumpy._core.multiarray\nscalar\n}b.", "sets the state of"),
        (b"cnumpy\ndtype\n}S'a'\nS'b'\nsb.", "sets the state of"),
        (b"cnumpy\nndarray\n(tR.", "without contents"),
        (DTYPE + b".", "a type where data"),
        (b"cnumpy._core.numeric\n_frombuffer\n(S'8 bytes.'\n" + DTYPE + b"(I1000000\nttR.", "of 8 bytes"),
        (b"cnumpy._core.numeric\n_frombuffer\n(S'8 bytes.'\n" + DTYPE + b"(I-1\nI-1\nttR.", "of 8 bytes"),
        (b"cnumpy._core.numeric\n_frombuffer\n((lI1\na" + DTYPE + b"(I1\nttR.", "other than bytes"),
        (b"c_codecs\nencode\n(S'x'\nS'zip'\ntR.", "codec 'zip'"),
    ],
)
def test_forged_opcodes_are_refused(tmp_path: Path, packed: bytes, reason: str) -> None:
    with pytest.raises(DataError, match=reason) as caught:
        read_pickle(written(tmp_path / "x.pkl", packed))
    assert "\n" not in str(caught.value)


def test_a_small_file_makes_no_large_data(tmp_path: Path) -> None:
    once = b"c_codecs\nencode\n(h\x00tR"  # the string of the memo, as bytes, over and over
    packed = b"(S'" + b"x" * 100_000 + b"'\nq\x00" + once * 1_000 + b"l."
    with pytest.raises(DataError, match="far more data than it holds"):
        read_pickle(written(tmp_path / "x.pkl", packed))
    with pytest.raises(DataError, match="larger than 100 bytes"):
        read_pickle(tmp_path / "x.pkl", largest_bytes=100)


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.pkl: cannot be read"):
        read_pickle(tmp_path / "none.pkl")
