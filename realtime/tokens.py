"""Signed bearer tokens: JSON Web Tokens (RFC 7519) that name a room, what may be done in it, and until when.

    {"room": "demo", "actions": ["publish", "subscribe"], "purpose": "research", "sub": "anna",
     "iat": 1764144000, "exp": 1764147600}

The header's `alg` only chooses among what was configured: HS256 goes with the shared secret and nothing
else, RS256, ES256 and EdDSA with the key file and nothing else (RFC 8725 §3.1). `none` is no choice.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeGuard

import jwt

from realtime.errors import AccessDenied
from realtime.grants import Grant
from realtime.jwks import KeyFile

MAX_LIFE_S: Final = 3600
LEEWAY_S: Final = 30  # clocks of who signs and who checks may differ by so much
MIN_SECRET_BYTES: Final = 32  # RFC 7518 §3.2: a key of HS256 is at least as long as its hash

_SHARED = "HS256"


@dataclass(frozen=True, slots=True)
class JwtConfig:
    """Whose signed tokens are taken; nobody's by default."""

    secret: str | None = field(default=None, repr=False)  # shared with who mints, HS256; 32 bytes or more
    jwks: str | None = None  # file of public keys, a JWK set (RFC 7517): RS256, ES256, EdDSA
    audience: str | None = None  # what `aud` has to name; None = a token that names one is refused

    def __post_init__(self) -> None:
        if self.secret is not None and len(self.secret.encode()) < MIN_SECRET_BYTES:
            raise ValueError(
                f"the secret must have at least {MIN_SECRET_BYTES} bytes: `openssl rand -hex 32`"
            )

    @property
    def enabled(self) -> bool:
        """Whether signed tokens are taken at all."""
        return self.secret is not None or self.jwks is not None


class Verifier:
    """Checks tokens against one configuration."""

    def __init__(self, config: JwtConfig) -> None:
        """Raises SettingsError for a key file that cannot be used."""
        self._secret = config.secret
        self._keys = KeyFile(Path(config.jwks)) if config.jwks is not None else None
        self._audience = config.audience

    def verify(self, token: str) -> Grant:
        """What the token allows. Raises AccessDenied 401 (`invalid_token`, RFC 6750 §3.1)."""
        try:
            key, algorithm = self._key(jwt.get_unverified_header(token))
            claims = jwt.decode(
                token,
                key,
                algorithms=[algorithm],
                audience=self._audience,
                leeway=LEEWAY_S,
                options={"require": ["exp"]},
            )
        except jwt.ExpiredSignatureError:
            raise _invalid("the token has expired; ask for a new one") from None
        except jwt.ImmatureSignatureError:
            raise _invalid("the token is not valid yet") from None
        except jwt.InvalidAudienceError:
            raise _invalid("the token is for another audience") from None
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError):
            raise _invalid("the token is not valid") from None  # and its text goes nowhere
        return _grant(claims, time.time())

    def _key(self, header: dict[str, Any]) -> tuple[Any, str]:
        algorithm = header.get("alg")
        if algorithm == _SHARED and self._secret is not None:
            return self._secret.encode(), _SHARED
        if algorithm != _SHARED and self._keys is not None:
            key = self._keys.find(header.get("kid"), algorithm)
            if key is not None:
                return key.key, key.algorithm_name
        raise jwt.InvalidKeyError("no key")


def mint(
    secret: str,
    *,
    room: str,
    actions: Iterable[str],
    purpose: str | None = None,
    participant: str | None = None,
    audience: str | None = None,
    life_s: int = MAX_LIFE_S,
) -> str:
    """A token signed with the shared secret, valid from now on."""
    now_s = int(time.time())
    claims = {"room": room, "actions": list(actions), "purpose": purpose, "sub": participant, "aud": audience}
    said = {name: value for name, value in claims.items() if value is not None}
    return jwt.encode(said | {"iat": now_s, "exp": now_s + life_s}, secret, _SHARED)


def _grant(claims: dict[str, Any], now_s: float) -> Grant:
    """The claims as an allowance. PyJWT has held their times against the clock, not against each other."""
    room, actions = claims.get("room"), claims.get("actions")
    if not isinstance(room, str) or not _is_strings(actions):
        raise _invalid("the token lacks the claims room (a name) and actions (a list)")
    purpose, participant = claims.get("purpose"), claims.get("sub")
    if not _is_strings([each for each in (purpose, participant) if each is not None]):
        raise _invalid("the claims purpose and sub of the token must be text")
    expires_s, issued_s = claims["exp"], claims.get("iat")
    if not _is_number(expires_s) or not (issued_s is None or _is_number(issued_s)):
        raise _invalid("the claims exp and iat of the token must be numbers")
    life_s = expires_s - (now_s + LEEWAY_S if issued_s is None else issued_s)
    if life_s > MAX_LIFE_S:
        raise _invalid("the token is valid for more than an hour; ask for a shorter one")
    return Grant(room, frozenset(actions), purpose, participant)


def _is_strings(value: Any) -> TypeGuard[list[str]]:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _invalid(detail: str) -> AccessDenied:
    return AccessDenied(401, detail, "invalid_token")
