"""Pickles of strangers, read without running them: plain containers, text, numbers and numpy arrays, no more.

A pickle is a program. Here the only names it may call are stand-ins of ours: numpy's own rebuilding code
never sees its data either, since a forged dtype or array state could make numpy follow wild pointers.
Knows the pickle format and numpy's layout in it; not what the data means.
"""

from __future__ import annotations

import io
import pickle
import struct
from collections.abc import Callable
from math import prod
from pathlib import Path
from pickle import _Unpickler  # the one in Python: its opcodes can be narrowed, its memo is a dict
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from cmath_stream.training.data import DataError

LARGEST_BYTES = 4 << 30  # the largest community file has about a quarter of it
_KINDS = "biufUS"  # booleans, numbers and text: neither objects, nor structures, nor raw memory


class _Malformed(Exception):
    """The pickle asks for something that is not data; says what."""


def read_pickle(path: Path, *, largest_bytes: int = LARGEST_BYTES) -> Any:
    """The data of a pickle of Python 2 (byte strings as latin1) or 3, of numpy 1 or 2.

    Made of list, tuple, dict, set, str, bytes, int, float, bool, None, numpy arrays and scalars.
    Raises DataError, in one line, where the file asks for anything else, is no pickle, or is too large.
    """
    try:
        if path.stat().st_size > largest_bytes:
            raise DataError(f"{path}: larger than {largest_bytes} bytes")
        packed = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    try:
        loaded = _Restricted(packed).load()
        return _finished(loaded, {})
    except _Malformed as error:
        raise DataError(f"{path}: refused: {error}") from error
    except (
        pickle.UnpicklingError,
        struct.error,
        EOFError,
        ArithmeticError,
        AssertionError,
        AttributeError,
        LookupError,
        MemoryError,
        NotImplementedError,
        RecursionError,
        TypeError,
        ValueError,
    ) as error:  # what damaged opcodes run into
        raise DataError(f"{path}: not a readable pickle: {_first_line(error)}") from error


class _Dtype:
    """Stand-in for numpy.dtype: a description, of which a real one is made only where that is harmless."""

    __slots__ = ("order", "typestr")
    __hash__ = None  # type: ignore[assignment]  # no key and no member of a set

    def __init__(self, typestr: str | bytes, *_: Any) -> None:
        self.typestr = typestr.decode("latin1") if isinstance(typestr, bytes) else str(typestr)
        self.order = "="

    def real(self) -> np.dtype[Any]:
        """The numpy dtype. Raises _Malformed for objects, structures and what else is no plain value."""
        dtype = np.dtype(self.typestr)
        if dtype.kind not in _KINDS or dtype.itemsize == 0:
            raise _Malformed(f"it asks for an array of dtype {self.typestr[:20]!r}, which is not data")
        if self.order == ">":
            return dtype.newbyteorder(">")
        return dtype.newbyteorder("<") if self.order == "<" else dtype


class _Array:
    """Stand-in for numpy.ndarray between its birth and its contents."""

    __slots__ = ("values",)
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, *_: Any) -> None:
        self.values: NDArray[Any] | None = None


class _Restricted(_Unpickler):
    """The unpickler that can reach nothing but the stand-ins, and makes no more than the file can hold."""

    stack: list[Any]
    dispatch: ClassVar[dict[int, Callable[..., None]]] = dict(_Unpickler.dispatch)

    def __init__(self, packed: bytes) -> None:
        super().__init__(io.BytesIO(packed), encoding="latin1")
        self._budget = 4 * len(packed) + 4096  # a copy or two of everything; the memo could ask for millions
        self._allowed: dict[tuple[str, str], Callable[..., Any]] = {
            ("numpy", "dtype"): _Dtype,
            ("numpy", "ndarray"): _Array,
            ("_codecs", "encode"): self._encode,
        }
        for home in ("numpy.core", "numpy._core"):  # numpy 1, numpy 2
            self._allowed[f"{home}.multiarray", "_reconstruct"] = _Array
            self._allowed[f"{home}.multiarray", "scalar"] = self._scalar
            self._allowed[f"{home}.numeric", "_frombuffer"] = self._array
        for home in ("builtins", "__builtin__"):
            self._allowed[home, "bytes"] = _no_bytes
            self._allowed[home, "set"] = self._set
            self._allowed[home, "frozenset"] = lambda members=(): frozenset(self._set(members))

    def find_class(self, module: str, name: str) -> Any:
        """A stand-in, whatever Python would have under that name."""
        found = self._allowed.get((module, name))
        if found is None:
            raise _Malformed(f"it asks for {module[:60]}.{name[:60]}, which is not data".replace("\n", " "))
        return found

    def get_extension(self, code: int) -> None:
        """The registry of extensions would answer with names of its own."""
        raise _Malformed(f"it asks for extension {code}, which is not data")

    def load_build(self) -> None:
        """Give a stand-in its contents; anything else would have its attributes written over."""
        state = self.stack.pop()
        made = self.stack[-1]
        if isinstance(made, _Dtype):
            made.order = str(state[1])  # the rest follows from the description for every kind read here
        elif isinstance(made, _Array):
            shape, dtype, fortran, content = state[-4:]  # numpy puts a version before them
            made.values = self._array(content, dtype, shape, "F" if fortran else "C")
        else:
            raise _Malformed(f"it sets the state of a {type(made).__name__}, which is not data")

    dispatch[pickle.BUILD[0]] = load_build

    def _array(self, content: Any, dtype: Any, shape: Any, order: str = "C") -> NDArray[Any]:
        """The array over exactly the bytes that came: a shape alone takes no memory."""
        if not isinstance(dtype, _Dtype):
            raise _Malformed("it makes an array without a dtype")
        real = dtype.real()
        if not isinstance(content, (bytes, bytearray, str)):
            raise _Malformed("it makes an array of something other than bytes")
        raw = content.encode("latin1") if isinstance(content, str) else bytes(content)
        self._spend(len(raw))
        sizes = tuple(int(size) for size in shape)
        if min(sizes, default=0) < 0 or prod(sizes) * real.itemsize != len(raw):
            raise _Malformed(f"it makes an array of shape {sizes} of {len(raw)} bytes")
        flat = np.frombuffer(raw, dtype=real).astype(real.newbyteorder("="))  # a writable copy
        return flat.reshape(sizes, order="F" if order == "F" else "C")

    def _scalar(self, dtype: Any, content: Any) -> Any:
        return self._array(content, dtype, ())[()]

    def _encode(self, text: str, encoding: str = "latin1") -> bytes:
        if encoding not in ("latin1", "latin-1", "iso-8859-1"):  # others are programs: zip, bz2
            raise _Malformed(f"it asks for the codec {encoding[:20]!r}, which is not data")
        self._spend(len(text))
        return text.encode("latin1")

    def _set(self, members: Any = ()) -> set[Any]:
        self._spend(len(members))
        return set(members)

    def _spend(self, size: int) -> None:
        self._budget -= size
        if self._budget < 0:
            raise _Malformed("it makes far more data than it holds")


def _no_bytes() -> bytes:
    return b""  # how Python 3 writes them for Python 2; with an argument it would be a memory bomb


def _finished(value: Any, seen: dict[int, Any]) -> Any:
    """`value` with the arrays in the places of their stand-ins; shared parts stay shared.

    `seen` maps the identity of a list or dict to itself, changed in place, so that a circle ends.
    """
    if isinstance(value, _Array):
        if value.values is None:
            raise _Malformed("it leaves an array without contents")
        return value.values
    if isinstance(value, _Dtype) or callable(value):
        raise _Malformed("it leaves a type where data belongs")
    if isinstance(value, (list, dict)):
        if id(value) not in seen:
            seen[id(value)] = value
            if isinstance(value, list):
                value[:] = [_finished(part, seen) for part in value]
            else:
                for key in value:
                    value[key] = _finished(value[key], seen)
        return value
    if isinstance(value, tuple):
        if id(value) not in seen:
            seen[id(value)] = tuple(_finished(part, seen) for part in value)
        return seen[id(value)]
    return value


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
