"""An ingest server whose sessions a test makes up: what it publishes is what the subscribers see."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

from cmath_stream.events import event_id, to_json
from realtime.live_events import LiveEvents, LiveEventsConfig
from realtime.redis_bus import RedisConfig
from realtime.redis_cluster import Client
from realtime.redis_events import EventLog
from realtime.seats import OpenSession
from realtime.server import IngestConfig, make_app
from realtime.tokens import JwtConfig
from tests.fake_rooms import FakeRooms

TOKEN = "a-token-of-sixteen-or-more/+"


@dataclass
class Served:
    """A server, and the hand that publishes behind it."""

    url: str
    live: LiveEvents
    log: EventLog
    routes: set[tuple[str, str]] = field(default_factory=set)  # method and pattern of each
    open: dict[str, OpenSession] = field(default_factory=dict)  # by room

    async def say(self, session_id: str, kind: str, subject: str, **fields: object) -> None:
        fact = event_id(session_id, subject)
        event = {"schema": "emotion-event/1", "type": kind, "event_id": fact, "session_id": session_id}
        await self.log.publish(session_id, fact, to_json(event | fields))

    async def start(self, session_id: str, room: str = "room") -> None:
        self.open[room] = OpenSession(session_id, "demo")
        await self.say(session_id, "session.started", "started", room=room, purpose="demo", clock="arrival")

    async def emotion(self, session_id: str, n: int, *, final: bool = True, text: str = "") -> None:
        await self.say(
            session_id, "emotion.utterance", f"{n}{final}", participant_id="ann", utterance_id=f"ann.{n}",
            revision=int(final), is_final=final, label="joy", text=text,
        )  # fmt: skip

    async def end(self, session_id: str) -> None:
        for room in [room for room, held in self.open.items() if held.id == session_id]:
            del self.open[room]
        await self.say(session_id, "session.closed", "closed", at_ms=9, reason="empty", totals={})


@asynccontextmanager
async def served(
    client: Client,
    *,
    port: int = 0,
    token: str | None = None,
    jwt: JwtConfig | None = None,
    live: LiveEventsConfig | None = None,
) -> AsyncIterator[Served]:
    """The server, on a free port unless one is given; closed at the end as a real one is."""
    config = RedisConfig()
    app = make_app(FakeRooms(), IngestConfig(token=token, jwt=jwt or JwtConfig(), loopback_only=True))
    open_sessions: dict[str, OpenSession] = {}
    log = EventLog(client, config)
    live_events = LiveEvents(log, open_sessions.get, live or LiveEventsConfig(), lambda room: room == "kept")
    live_events.add_routes(app)
    here = Served("", live_events, log, _routes(app), open_sessions)
    runner = web.AppRunner(app, shutdown_timeout=2.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        here.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield here
    finally:
        await runner.cleanup()


def _routes(app: web.Application) -> set[tuple[str, str]]:
    return {
        (route.method, route.resource.canonical)
        for route in app.router.routes()
        if route.resource is not None
    }
