"""Tokens for tests: right ones, and wrong in every way that a test asks for."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import jwt

SECRET = "a-secret-of-thirty-two-bytes-or-more"


def claims(**changes: Any) -> dict[str, Any]:
    """Those of a sound token for the room `room`; a change to None takes one away."""
    now_s = int(time.time())
    sound = {"room": "room", "actions": ["publish", "subscribe"], "iat": now_s, "exp": now_s + 600}
    return {name: value for name, value in (sound | changes).items() if value is not None}


def signed(
    key: Any = SECRET, algorithm: str = "HS256", headers: dict[str, Any] | None = None, **changes: Any
) -> str:
    """A token of these claims."""
    return jwt.encode(claims(**changes), key, algorithm, headers=headers)


def raw(header: object, body: object, signature: bytes = b"") -> str:
    """A token that no library would make."""
    return ".".join(_base64url(part) for part in (_json(header), _json(body), signature))


def _json(value: object) -> bytes:
    return value if isinstance(value, bytes) else json.dumps(value).encode()


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
