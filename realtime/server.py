"""The ingest server: WHIP, the page, health and metrics on one aiohttp application.

`make_app` builds it, whoever runs it adds routes of its own and starts it; the application's shutdown
closes every peer, so that open utterances are flushed.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from aiohttp import web

from realtime import page, status
from realtime.access import bearer_middleware
from realtime.auth import require_token_off_loopback
from realtime.loop_lag import watch_loop_lag
from realtime.mesh import Mesh
from realtime.purposes import RULE, PurposeConfig
from realtime.rate_limit import RateLimit
from realtime.seats import Rooms
from realtime.sockets import socket_middleware
from realtime.tokens import JwtConfig, Verifier
from realtime.turn import IceServer, TurnConfig, ice_servers, is_stun
from realtime.webrtc import PeerConfig
from realtime.whip import Whip, cors_middleware

log = logging.getLogger(__name__)

_PICTURE_THREADS = 2  # shared: JPEG compression releases the GIL, and one peer has one picture in flight


@dataclass(frozen=True, slots=True)
class IngestConfig:
    """Where the ingest listens and what it takes."""

    host: str = "127.0.0.1"
    port: int = 8080
    token: str | None = field(
        default=None, repr=False
    )  # opens everything; off loopback this or `jwt` is needed
    jwt: JwtConfig = field(default_factory=JwtConfig)  # signed tokens: a room, actions, an hour at most
    purposes: PurposeConfig = field(default_factory=PurposeConfig)
    ice_servers: tuple[str, ...] = ()  # stun: URLs; none by default
    turn: TurnConfig = field(default_factory=TurnConfig)  # the relay that clients are told of
    loopback_only: bool = False  # media on 127.0.0.1 only (tests, demo)
    max_participants: int = 64  # in this process; more are told to come back later
    requests_per_s: float = 20.0  # POST, PATCH and DELETE of one client address, on average
    requests_burst: int = 200  # and at once: a whole office behind one address may join together
    video_fps: float = 5.0  # pictures kept of each participant, per second
    connect_timeout_s: float = 15.0
    dead_peer_s: float = 8.0
    shutdown_s: float = 5.0  # to flush and close all peers

    def __post_init__(self) -> None:
        if not 0 <= self.port < 65536:
            raise ValueError(f"port must lie between 0 and 65535, got {self.port}")
        if self.max_participants < 1:
            raise ValueError(f"max_participants must be at least 1, got {self.max_participants}")
        if not self.requests_per_s > 0 or self.requests_burst < 1:
            raise ValueError("requests_per_s must be positive and requests_burst at least 1")
        for name in ("video_fps", "connect_timeout_s", "dead_peer_s", "shutdown_s"):
            if not 0 < getattr(self, name) < 3600:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        for url in self.ice_servers:
            if not is_stun(url):
                raise ValueError(f"ice_servers: {url!r} is not a stun: URL; relays are told in turn.urls")


def make_app(
    rooms: Rooms,
    config: IngestConfig,
    ready: status.Ready = status.always_ready,
    records: Callable[[str], bool] = lambda _room: False,
) -> web.Application:
    """The application; `records` says whether sessions of a room are recorded.

    Raises SettingsError for an open door to the network, or keys that cannot be read.
    """
    require_token_off_loopback(config.host, config.token, signed=config.jwt.enabled)
    verifier = Verifier(config.jwt) if config.jwt.enabled else None
    if allowed := config.purposes.allow_restricted:
        log.warning("ingest.purposes.allow_restricted lets in %s, though %s", ", ".join(allowed), RULE)
    pictures = ThreadPoolExecutor(_PICTURE_THREADS, thread_name_prefix="pictures")
    peer_config = PeerConfig(
        ice_servers=config.ice_servers,
        loopback_only=config.loopback_only,
        video_fps=config.video_fps,
        connect_timeout_s=config.connect_timeout_s,
        dead_peer_s=config.dead_peer_s,
    )
    limit = RateLimit(config.requests_per_s, config.requests_burst)

    def for_clients() -> list[IceServer]:
        return ice_servers(config.ice_servers, config.turn, time.time())

    whip = Whip(
        rooms, peer_config, config.max_participants, limit, pictures, config.purposes, records, for_clients
    )
    app = web.Application(
        middlewares=[cors_middleware, socket_middleware, bearer_middleware(config.token, verifier)]
    )
    whip.add_routes(app)
    Mesh(for_clients).add_routes(app)
    page.add_routes(app)
    status.add_routes(app, ready)

    async def shut_down(_: web.Application) -> None:
        await whip.close(config.shutdown_s)
        pictures.shutdown(wait=False, cancel_futures=True)

    app.on_shutdown.append(shut_down)
    app.cleanup_ctx.append(_loop_lag)
    return app


async def _loop_lag(_: web.Application) -> AsyncIterator[None]:
    watch = asyncio.create_task(watch_loop_lag(), name="loop lag")
    yield
    watch.cancel()
    await asyncio.gather(watch, return_exceptions=True)
