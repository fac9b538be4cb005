"""Public keys of who signs tokens: a JWK set (RFC 7517) in a file, read again when the file has changed.

A file and not a URL: whoever fetches the keys (a timer with curl) decides how often and from whom, and no
request ever waits for another server.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from realtime.errors import SettingsError

log = logging.getLogger(__name__)

ALGORITHMS: Final = ("RS256", "ES256", "EdDSA")
_MIN_RSA_BITS = 2048  # RFC 7518 §3.3


class KeyFile:
    """The keys of one file."""

    def __init__(self, path: Path) -> None:
        """Raises SettingsError."""
        self._path = path
        self._changed_ns = self._stamp()
        self._keys = _read(path)

    def find(self, kid: object, algorithm: object) -> jwt.PyJWK | None:
        """The key that a token's header means: by its id, or the only one there is for the algorithm."""
        self._refresh()
        fitting = [key for key in self._keys if key.algorithm_name == algorithm]
        if kid is None:
            return fitting[0] if len(fitting) == 1 else None
        return next((key for key in fitting if key.key_id == kid), None)

    def _refresh(self) -> None:
        """Follow the file, so that keys come and go without a restart; one that is broken changes nothing."""
        changed_ns = self._stamp()
        if changed_ns == self._changed_ns:
            return
        self._changed_ns = changed_ns
        try:
            self._keys = _read(self._path)
        except SettingsError as error:
            log.error("%s; the keys read before stay in use", error)

    def _stamp(self) -> int | None:
        try:
            return self._path.stat().st_mtime_ns
        except OSError:
            return None


def _read(path: Path) -> list[jwt.PyJWK]:
    try:
        document = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise SettingsError(f"ingest.jwt.jwks: {path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise SettingsError(f"ingest.jwt.jwks: {path} is not JSON") from None
    entries = document.get("keys") if isinstance(document, dict) else None
    found = [key for entry in entries if (key := _usable(entry))] if isinstance(entries, list) else []
    if not found:
        raise SettingsError(
            f"ingest.jwt.jwks: {path} is no JWK set with a public key for {', '.join(ALGORITHMS)}"
        )
    return found


def _usable(entry: Any) -> jwt.PyJWK | None:
    """A public key for signatures. A set may hold others: they are for somebody else (RFC 7517 §5)."""
    if not isinstance(entry, dict) or entry.get("use", "sig") != "sig" or "d" in entry:
        return None
    try:
        key = jwt.PyJWK(entry)
    except (jwt.PyJWTError, ValueError, TypeError):
        return None
    too_short = isinstance(key.key, RSAPublicKey) and key.key.key_size < _MIN_RSA_BITS
    return key if key.algorithm_name in ALGORITHMS and not too_short else None
