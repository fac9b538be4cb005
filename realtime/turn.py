"""ICE servers for clients, TURN servers with a login that is good for some hours.

The login is what coturn's `use-auth-secret` takes (draft-uberti-behave-turn-rest-00 §2.2): when it ends, as
the user name, and its HMAC under a secret that the relay shares. It names nobody, and a client that keeps it
keeps nothing that lasts. The ingest itself needs no relay: its address has to be reachable.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field

from aiortc.rtcicetransport import parse_stun_turn_uri

IceServer = dict[str, str]  # as a browser's RTCIceServer: urls, and with a login username and credential


@dataclass(frozen=True, slots=True)
class TurnConfig:
    """The relay that clients are told of; none by default."""

    urls: tuple[str, ...] = ()  # turn: or turns:, e.g. "turn:turn.example.org:3478?transport=tcp"
    secret: str = field(default="", repr=False)  # shared with the relay: coturn's static-auth-secret
    hours: float = 12.0  # a login is good for; longer than a call lasts

    def __post_init__(self) -> None:
        for url in self.urls:
            if not url.startswith(("turn:", "turns:")) or not _is_uri(url):
                raise ValueError(f"urls: {url!r} is not a turn: URL")
        if self.urls and not self.secret:
            raise ValueError("a relay without a login serves the whole internet: secret must be set")
        if self.hours <= 0:
            raise ValueError("hours must be positive")


def is_stun(url: str) -> bool:
    """Whether an ICE server can be used without a login."""
    return url.startswith("stun:") and _is_uri(url)


def ice_servers(stun: Iterable[str], turn: TurnConfig, unix_s: float) -> list[IceServer]:
    """What a client is given now."""
    servers: list[IceServer] = [{"urls": url} for url in stun]
    if turn.urls:
        user = f"{int(unix_s + turn.hours * 3600)}:{secrets.token_hex(4)}"
        mac = hmac.new(turn.secret.encode(), user.encode(), hashlib.sha1).digest()
        login = {"username": user, "credential": base64.b64encode(mac).decode()}
        servers += [{"urls": url, **login} for url in turn.urls]
    return servers


def links(servers: Iterable[IceServer]) -> list[str]:
    """As Link header values (RFC 9725 §4.6)."""
    found = []
    for server in servers:
        link = f'<{server["urls"]}>; rel="ice-server"'
        if "username" in server:
            link += f'; username="{server["username"]}"; credential="{server["credential"]}"'
            link += '; credential-type="password"'
        found.append(link)
    return found


def _is_uri(url: str) -> bool:
    try:
        parse_stun_turn_uri(url)
    except ValueError:
        return False
    return True
