"""WebSockets of the ingest: who may open one, and how a browser says so.

A browser cannot set headers on a WebSocket, and a token in a URL ends up in logs. So the client offers two
subprotocols, `cmath-stream` and `bearer.` + the token in unpadded base64url; here the second becomes the
Authorization header that the bearer rule looks at. Nor do browsers ask before a page of another origin
opens a socket: that is refused, or any site the user visits could listen on a loopback server.
"""

from __future__ import annotations

import base64

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from realtime.errors import SignalingError
from realtime.refusals import problem

PROTOCOL = "cmath-stream"
_BEARER = "bearer."


def subprotocols(token: str | None) -> tuple[str, ...]:
    """What a client offers."""
    if token is None:
        return (PROTOCOL,)
    return PROTOCOL, _BEARER + base64.urlsafe_b64encode(token.encode()).decode().rstrip("=")


@web.middleware
async def socket_middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Goes before the bearer rule."""
    if request.headers.get(hdrs.UPGRADE, "").lower() != "websocket":
        return await handler(request)
    origin = request.headers.get(hdrs.ORIGIN)
    if origin is not None and origin.partition("://")[2] != request.host:
        return problem(SignalingError(403, "a page of another origin may not open a socket here"))
    token = _token(request.headers.get(hdrs.SEC_WEBSOCKET_PROTOCOL, ""))
    if token is None:
        return await handler(request)
    headers = request.headers.copy()
    headers[hdrs.AUTHORIZATION] = f"Bearer {token}"
    return await handler(request.clone(headers=headers))


def _token(offered: str) -> str | None:
    for protocol in offered.split(","):
        if (name := protocol.strip()).startswith(_BEARER):
            encoded = name.removeprefix(_BEARER)
            try:
                return base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)).decode()
            except ValueError:  # not ASCII, not base64, not UTF-8
                return None
    return None
