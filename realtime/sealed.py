"""A file that grows and that nobody without the key can read: sealed pieces, one behind the other.

    8 bytes of magic, 16 of salt, then pieces: their length (4 bytes, big endian) and AES-256-GCM of them

The key of a file is HKDF-SHA256 of the installation's key and the salt. A piece's nonce is its number (11
bytes) and a byte that is 1 in the last one alone, as STREAM has it (Hoang, Reyhanitabar, Rogaway, Vizár,
CRYPTO 2015): none can be changed, swapped, left out or cut off unnoticed. Knows nothing of what is sealed.
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from realtime.errors import MediaError, SettingsError

MAGIC = b"cmtape\x00\x01"
_SALT_BYTES = 16
_KEY_BYTES = 32
_LENGTH_BYTES = 4
_MOST_BYTES = 1 << 26  # of one piece: a damaged length must not ask for all memory


def read_key(path: Path) -> bytes:
    """The installation's key, 32 bytes, from a file of 64 hexadecimal digits. Raises SettingsError."""
    try:
        key = bytes.fromhex(path.read_text("ascii"))
    except OSError as error:
        raise SettingsError(f"the key {path} cannot be read: {error.strerror}") from None
    except ValueError:
        key = b""
    if len(key) != _KEY_BYTES:
        raise SettingsError(
            f"the key {path} is not 64 hexadecimal digits: make one with `openssl rand -hex 32 > {path}`"
        )
    return key


class SealedWriter:
    """A new file, for its owner alone. Every method raises OSError."""

    def __init__(self, path: Path, key: bytes) -> None:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        self._file = os.fdopen(descriptor, "wb", buffering=0)
        salt = secrets.token_bytes(_SALT_BYTES)
        self._cipher = _cipher(key, salt)
        self._count = 0
        self._failed = False
        self._write(MAGIC + salt)

    def write(self, piece: bytes) -> None:
        """Seal and append; whoever reads now finds it."""
        self._append(piece, last=False)

    def close(self) -> None:
        """The file is whole, and on the disk."""
        with self._file:
            self._append(b"", last=True)
            os.fsync(self._file.fileno())

    def abandon(self) -> None:
        """Leave what is there, without an end."""
        self._file.close()

    def _append(self, piece: bytes, *, last: bool) -> None:
        sealed = self._cipher.encrypt(_nonce(self._count, last=last), piece, None)
        self._count += 1
        self._write(len(sealed).to_bytes(_LENGTH_BYTES, "big") + sealed)

    def _write(self, data: bytes) -> None:
        if self._failed:  # behind a piece that is not whole nothing could be read
            raise OSError(errno.EIO, "an earlier piece could not be written")
        left = memoryview(data)
        try:
            while left:  # a disk that is nearly full takes a part
                left = left[self._file.write(left) :]
        except OSError:
            self._failed = True
            raise


class SealedReader:
    """The pieces of a file, in order."""

    def __init__(self, path: Path, key: bytes) -> None:
        self.path = path
        self._key = key
        self.whole = False  # whether the file was closed; known once all pieces are read

    def __iter__(self) -> Iterator[bytes]:
        """Raises MediaError for what is no such file, another key, or a piece that was changed."""
        self.whole = False
        try:
            with self.path.open("rb") as file:
                head = file.read(len(MAGIC) + _SALT_BYTES)
                if len(head) < len(MAGIC) + _SALT_BYTES or not head.startswith(MAGIC):
                    raise MediaError(f"{self.path.name} is no recorded session")
                cipher = _cipher(self._key, head[len(MAGIC) :])
                number = 0
                while len(sealed := _sealed(file.read(_LENGTH_BYTES), file.read)) > 0:
                    piece = self._open(cipher, sealed, number)
                    if self.whole:
                        return
                    yield piece
                    number += 1
        except OSError as error:
            raise MediaError(f"{self.path.name} cannot be read: {error.strerror}") from None

    def _open(self, cipher: AESGCM, sealed: bytes, number: int) -> bytes:
        for last in (False, True):
            try:
                piece = cipher.decrypt(_nonce(number, last=last), sealed, None)
            except InvalidTag:
                continue
            self.whole = last
            return piece
        if number == 0:
            raise MediaError(f"{self.path.name} cannot be opened: another key, or damaged")
        raise MediaError(f"{self.path.name} is damaged after {number} pieces")


def _sealed(length: bytes, read: Callable[[int], bytes]) -> bytes:
    """The next piece as it lies in the file; nothing where the file ends within it."""
    size = int.from_bytes(length, "big") if len(length) == _LENGTH_BYTES else 0
    if not 0 < size <= _MOST_BYTES:
        return b""
    sealed = read(size)
    return sealed if len(sealed) == size else b""


def _cipher(key: bytes, salt: bytes) -> AESGCM:
    return AESGCM(HKDF(SHA256(), _KEY_BYTES, salt, b"cmath-stream tape").derive(key))


def _nonce(number: int, *, last: bool) -> bytes:
    return number.to_bytes(11, "big") + bytes([last])
