"""The door to the network: nobody listens off loopback without a token, and how a token is carried."""

from __future__ import annotations

import hmac
import ipaddress

from realtime.errors import SettingsError


def require_token_off_loopback(host: str, token: str | None, *, signed: bool = False) -> None:
    """Refuse to open a door to the network that nobody guards; `signed` tokens guard it too.

    Raises SettingsError.
    """
    if token is not None and len(token) < 16:
        raise SettingsError("the bearer token must have at least 16 characters")
    if token is None and not signed and not is_loopback(host):
        raise SettingsError(
            f"{host or 'an empty host'} can be reached from the network: "
            "set a bearer token or a secret for signed ones, or bind to 127.0.0.1"
        )


def is_loopback(host: str) -> bool:
    """Whether a server bound to `host` is reached from this machine only. Names other than localhost are not
    looked up: what they resolve to can change.
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def bearer_of(header: str | None) -> str | None:
    """The token of an `Authorization` header (RFC 6750 §2.1); None where it carries none."""
    scheme, _, given = (header or "").partition(" ")
    return given.strip() or None if scheme.lower() == "bearer" else None


def is_same(given: str, token: str) -> bool:
    """Whether it is the token, in constant time."""
    return hmac.compare_digest(given.encode(errors="replace"), token.encode())
