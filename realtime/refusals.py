"""How the routes beside WHIP say no: one line, as a problem document (RFC 9457)."""

from __future__ import annotations

import http
import re
from collections.abc import Awaitable, Callable

from aiohttp import web
from aiohttp.typedefs import Handler

from realtime.errors import SignalingError

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")


def require_name(what: str, name: str) -> str:
    """A room, session or participant name as given. Raises SignalingError 400."""
    if not _NAME.fullmatch(name):
        raise SignalingError(400, f"a {what} name is 1 to 64 of the characters A-Z a-z 0-9 _ . -")
    return name


def problem(status: int, detail: str) -> web.Response:
    """The document that a client reads."""
    document = {
        "type": "about:blank",
        "title": http.HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
    }
    headers = {"Retry-After": "5"} if status == 503 else {}
    return web.json_response(
        document, status=status, content_type="application/problem+json", headers=headers
    )


def refusing(handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> Handler:
    """Turn a SignalingError into its document; for handlers that raise it before they have answered."""

    async def guarded(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except SignalingError as error:
            return problem(error.status, error.detail)

    return guarded
