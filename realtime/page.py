"""The page: the files of `web/` at `/`, with what a browser has to know about them.

There is no build step and so no hash in a file's name: a browser asks each time whether it has the newest
(ETag, 304). The page is for everybody who can reach the server; what lies behind it asks for the token.
"""

from __future__ import annotations

import ipaddress
from pathlib import Path
from urllib.parse import quote

from aiohttp import web
from aiohttp.typedefs import Handler

_FOLDER = Path(__file__).with_name("web")
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",  # the system's own list may say otherwise
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}
_HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "img-src 'self'",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    ),
    "Permissions-Policy": "camera=(self), microphone=(self), geolocation=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def url_of(host: str, port: int, token: str | None) -> str:
    """Where the page is. The token is in the fragment, which no browser sends and no log keeps."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        shown = host
    else:  # an address that means "every one" is none that a browser could open
        shown = "localhost" if address.is_unspecified else f"[{host}]" if address.version == 6 else host
    return f"http://{shown}:{port}/" + (f"#token={quote(token, safe='')}" if token else "")


def add_routes(app: web.Application) -> None:
    """Put the page on `app`."""
    app.router.add_get("/", _file(_FOLDER / "index.html"))
    for path in sorted(_FOLDER.iterdir()):
        if path.suffix in _TYPES:
            app.router.add_get(f"/web/{path.name}", _file(path))


def _file(path: Path) -> Handler:
    headers = {**_HEADERS, "Content-Type": _TYPES[path.suffix]}

    async def send(_: web.Request) -> web.StreamResponse:
        return web.FileResponse(path, headers=headers)

    return send
