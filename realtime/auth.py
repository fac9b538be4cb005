"""Who may publish and listen: one bearer token, or the loopback interface."""

from __future__ import annotations

import hmac
import ipaddress

from realtime.errors import SettingsError


def require_token_off_loopback(host: str, token: str | None) -> None:
    """Refuse to open a door to the network that nobody guards. Raises SettingsError."""
    if token is not None and len(token) < 16:
        raise SettingsError("the bearer token must have at least 16 characters")
    if token is None and not is_loopback(host):
        raise SettingsError(
            f"{host or 'an empty host'} can be reached from the network: "
            "set a bearer token, or bind to 127.0.0.1"
        )


def is_loopback(host: str) -> bool:
    """Whether a server bound to `host` is reached from this machine only. Names other than localhost are not
    looked up: what they resolve to can change.
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def authorized(header: str | None, token: str) -> bool:
    """Whether an `Authorization` header carries the token (RFC 6750 §2.1), in constant time."""
    scheme, _, given = (header or "").partition(" ")
    right = hmac.compare_digest(given.strip().encode(errors="replace"), token.encode())
    return right and scheme.lower() == "bearer"
