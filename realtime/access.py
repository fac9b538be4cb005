"""The door of every route: who comes in with which token, and with what allowance (RFC 6750).

All routes ask for a token but the few that are named here; a new route is closed until it says otherwise.
What the token has to allow is said by the handler, which knows the room: `grant_of(request).require(…)`.
A token counts in the Authorization header alone, or as a WebSocket's subprotocol (realtime.sockets): a URL
ends up in logs (RFC 6750 §5.3).
"""

from __future__ import annotations

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

from realtime import telemetry
from realtime.auth import bearer_of, is_same
from realtime.errors import AccessDenied
from realtime.grants import EVERYTHING, Grant
from realtime.refusals import problem
from realtime.tokens import Verifier

_OPEN = {"/", "/healthz", "/readyz", "/metrics"}  # the page asks by itself; the rest tells nothing of anybody
_GRANT = web.RequestKey("grant", Grant)


def bearer_middleware(token: str | None, verifier: Verifier | None) -> Middleware:
    """Ask for the static token, which allows everything, or a signed one; for none where there is neither.

    401 for a token that is missing or invalid; the 403 of one that does not reach so far is the handler's.
    """

    @web.middleware
    async def bearer(request: web.Request, handler: Handler) -> web.StreamResponse:
        if is_open(request.method, request.path):
            return await handler(request)
        try:
            request[_GRANT] = _grant(request.headers.get(hdrs.AUTHORIZATION), token, verifier)
        except AccessDenied as error:
            telemetry.SESSIONS_REJECTED_TOTAL.labels(reason="unauthorized").inc()
            return problem(error)
        return await handler(request)

    return bearer


def is_open(method: str, path: str) -> bool:
    """Whether a request needs no token: a preflight has none, a GET of WHIP tells nothing (RFC 9725 §4.1)."""
    if method == hdrs.METH_OPTIONS or path in _OPEN or path.startswith("/web/"):
        return True
    return path.startswith("/whip/") and method in (hdrs.METH_GET, hdrs.METH_HEAD)


def grant_of(request: web.Request) -> Grant:
    """What the request's token allows; for handlers of routes that are not open."""
    return request[_GRANT]


def _grant(header: str | None, token: str | None, verifier: Verifier | None) -> Grant:
    if token is None and verifier is None:
        return EVERYTHING
    given = bearer_of(header)
    if given is None:
        raise AccessDenied(401, "a valid bearer token is needed")
    if token is not None and is_same(given, token):
        return EVERYTHING
    if verifier is None:
        raise AccessDenied(401, "a valid bearer token is needed", "invalid_token")
    return verifier.verify(given)
