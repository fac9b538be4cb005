"""How a process is: `/healthz` (its event loop turns), `/readyz` (it can take work), `/metrics` (Prometheus).

The ingest has them among its routes; a role without HTTP of its own may open a door for them alone. They tell
nothing of anybody, and so they ask for no token.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiohttp import web

from realtime import telemetry
from realtime.errors import SettingsError

Ready = Callable[[], Awaitable[str | None]]  # None = ready, else why not, in one line


@dataclass(frozen=True, slots=True)
class StatusConfig:
    """The door of a worker or fusion; the ingest answers on its own port."""

    host: str = "127.0.0.1"
    port: int = 0  # 0: no door

    def __post_init__(self) -> None:
        if not 0 <= self.port < 65536:
            raise ValueError(f"port must lie between 0 and 65535, got {self.port}")


async def always_ready() -> str | None:
    """For who has nothing to wait for."""
    return None


def add_routes(app: web.Application, ready: Ready) -> None:
    """The three of them."""

    async def readyz(_: web.Request) -> web.Response:
        why_not = await ready()
        return web.Response(text=f"{why_not or 'ready'}\n", status=503 if why_not else 200)

    app.add_routes([web.get("/healthz", _healthz), web.get("/readyz", readyz), web.get("/metrics", _metrics)])


@asynccontextmanager
async def status_door(config: StatusConfig, ready: Ready) -> AsyncIterator[None]:
    """Open while the block runs, if a port is set. Raises SettingsError where it cannot be had."""
    if not config.port:
        yield
        return
    app = web.Application()
    add_routes(app, ready)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, config.host, config.port).start()
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else error
            raise SettingsError(f"status: {config.host}:{config.port}: {reason}; set status.port") from None
        yield
    finally:
        await runner.cleanup()


async def _healthz(_: web.Request) -> web.Response:
    return web.Response(text="ok\n")


async def _metrics(_: web.Request) -> web.Response:
    return web.Response(body=telemetry.render(), headers={"Content-Type": telemetry.CONTENT_TYPE})
