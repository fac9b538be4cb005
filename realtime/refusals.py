"""How a route says no: one line, as a problem document (RFC 9457)."""

from __future__ import annotations

import http
import json
import math
import re
from collections.abc import Awaitable, Callable

from aiohttp import web
from aiohttp.typedefs import Handler

from realtime.errors import AccessDenied, SignalingError

_RETRY_AFTER_S = 5  # where nobody knows better
_REALM = 'Bearer realm="cmath-stream"'  # RFC 6750 §3: the scheme, and at least one parameter
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")


def require_name(what: str, name: str) -> str:
    """A room, session or participant name as given. Raises SignalingError 400."""
    if not _NAME.fullmatch(name):
        raise SignalingError(400, f"a {what} name is 1 to 64 of the characters A-Z a-z 0-9 _ . -")
    return name


def problem(error: SignalingError) -> web.Response:
    """The document that a client reads, with what the status asks for beside it."""
    document: dict[str, object] = {
        "type": "about:blank",
        "title": http.HTTPStatus(error.status).phrase,
        "status": error.status,
        "detail": error.detail,
    }
    if error.accepted:
        document["accepted"] = list(error.accepted)
    body = json.dumps(document).encode()  # as bytes: JSON has no charset parameter (RFC 8259 §11)
    response = web.Response(status=error.status, body=body, content_type="application/problem+json")
    if error.status in (429, 503):
        response.headers["Retry-After"] = str(math.ceil(error.retry_after_s or _RETRY_AFTER_S))
    if isinstance(error, AccessDenied):
        why = f', error="{error.code}", error_description="{error.detail}"' if error.code else ""
        response.headers["WWW-Authenticate"] = _REALM + why
    return response


def refusing(handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> Handler:
    """Turn a SignalingError into its document; for handlers that raise it before they have answered."""

    async def guarded(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except SignalingError as error:
            return problem(error)

    return guarded
