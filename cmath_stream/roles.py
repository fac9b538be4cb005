"""What each process of an installation does from start to end: ingest, worker, fusion.

Every role keeps the same order: connect → load → warm up → ready → serve until `stop` → drain → close.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import web

from cmath_stream.config import Settings, load_checkpoint, make_extractor
from realtime import status
from realtime.backlog import Backlog
from realtime.errors import SettingsError
from realtime.live_events import LiveEvents
from realtime.messages import Modality
from realtime.redis_bus import RedisConfig, check, connect
from realtime.redis_cluster import Client
from realtime.redis_events import EventLog
from realtime.redis_lease import ShardLeases
from realtime.redis_outbox import Outbox, Writer
from realtime.redis_reader import GroupReader
from realtime.register import Register
from realtime.server import IngestConfig, make_app
from realtime.session import Rooms
from realtime.status import status_door
from realtime.taping import Taping
from realtime.vad import VadModel
from realtime.wall_clock import NowMs, shared_clock
from workers.worker import run_worker

log = logging.getLogger(__name__)

Ready = Callable[[], None]
_FLUSH_S = 5.0  # for what the outbox still holds at the end
_AGAIN_S = 0.5  # between two attempts to cancel
_SHUTDOWN_S = 2.0  # for requests under way


@asynccontextmanager
async def served(config: RedisConfig) -> AsyncIterator[tuple[Client, NowMs]]:
    """A Redis that answers, and the time by it. Raises BusError."""
    async with connect(config) as client:
        await check(client)
        async with shared_clock(client) as now_ms:
            yield client, now_ms


async def ingest(config: Settings, stop: asyncio.Event, ready: Ready) -> None:
    """WebRTC in, messages out, until `stop`; then every session is flushed and closed."""
    async with served(config.redis) as (client, now_ms):
        outbox = Outbox(client, config.redis)
        carrier = asyncio.create_task(outbox.run(), name="outbox")
        backlog = Backlog(client, config.redis)
        watch = asyncio.create_task(backlog.run(), name="backlog")
        crowded = "Redis is away and too much waits for it"

        def refuse() -> str | None:
            return crowded if outbox.crowded else None

        def unread() -> int | None:
            return None if outbox.crowded else backlog.unread

        events = EventLog(client, config.redis)
        taping = Taping(config.tape, events)
        rooms = Rooms(config.session, VadModel(), outbox.put, refuse, unread, now_ms, taping.conversation)

        register = Register(client, config.redis, lambda: rooms.sessions)
        registering = asyncio.create_task(register.run(), name="register")

        async def is_ready() -> str | None:
            return refuse()

        app = make_app(rooms, config.ingest, is_ready, taping.records)
        LiveEvents(events, rooms.open_session, records=taping.records).add_routes(app)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=_SHUTDOWN_S)
        stopped = asyncio.create_task(_set(stop), name="until stopped")
        try:
            await runner.setup()
            await _listen(runner, config.ingest)
            log.info("ingest: http://%s:%s", config.ingest.host, config.ingest.port)
            ready()
            await asyncio.wait({stopped, carrier}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopped.cancel()
            watch.cancel()
            registering.cancel()
            try:
                await _close(runner, rooms, outbox, carrier)
            finally:
                await taping.close(_FLUSH_S)


async def _set(event: asyncio.Event) -> None:
    await event.wait()


async def _listen(runner: web.AppRunner, config: IngestConfig) -> None:
    try:
        await web.TCPSite(runner, config.host, config.port).start()
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else error
        raise SettingsError(f"{config.host}:{config.port}: {reason}; set ingest.host, ingest.port") from None


async def _close(runner: web.AppRunner, rooms: Rooms, outbox: Outbox, carrier: asyncio.Task[None]) -> None:
    """Peers, then sessions, then what they said: each whatever became of the one before."""
    try:
        await runner.cleanup()  # closes every peer, so that open utterances end
    finally:
        try:
            await rooms.close()
            await asyncio.wait_for(outbox.flush(), _FLUSH_S)
        except TimeoutError:
            log.error("ingest: %s messages could not be written to Redis and are lost", len(outbox))
        finally:
            while not carrier.done():  # redis-py may swallow a cancellation (asyncio.wait_for of Python 3.11)
                carrier.cancel()
                await asyncio.wait({carrier}, timeout=_AGAIN_S)
            if not carrier.cancelled():
                carrier.result()  # raises what ended it, if it ended by itself


async def worker(modality: Modality, config: Settings, name: str, stop: asyncio.Event, ready: Ready) -> None:
    """One extractor, until `stop`; the batch in hand is finished.

    `name` must differ between the workers of one modality, and be the same after a restart: under it a
    process finds the work that it had taken before it died.
    """
    async with served(config.redis) as (client, now_ms):
        reader = GroupReader(client, config.redis, "segments", modality, name)
        writer = Writer(client, config.redis, modality)
        warm = asyncio.Event()

        def is_ready() -> None:
            warm.set()
            ready()

        async with status_door(config.status, _once(warm)):
            extractor = make_extractor(modality, config)
            await run_worker(extractor, reader, writer, config.worker, stop, is_ready, now_ms)


async def fuse(config: Settings, name: str, stop: asyncio.Event, ready: Ready) -> None:
    """The fusion, until `stop`; utterances under way are finished."""
    from cmath_stream import compile as compiling
    from cmath_stream.compiled import keep_compiled, take
    from cmath_stream.engine import Engine
    from cmath_stream.service import FusionService

    checkpoint = load_checkpoint(config.fusion)
    engine = Engine(checkpoint, config.fusion.engine)
    compiling.chosen(config.fusion.engine.runtime)  # one that was named and is not to be had is said now
    runtime = take(engine, config.fusion.engine)
    async with served(config.redis) as (client, now_ms):
        reader = GroupReader(client, config.redis, "inbox", "fuse", "owner", shards=())
        leases = ShardLeases(client, config.redis, name)
        service = FusionService(
            engine, config.fusion.assembler, reader, EventLog(client, config.redis), leases, now_ms
        )
        warm = asyncio.Event()
        async with status_door(config.status, _once(warm)), asyncio.TaskGroup() as tasks:
            await service.warm_up()
            warm.set()
            ready()
            background = None
            if runtime == "eager":
                background = tasks.create_task(keep_compiled(engine, config.fusion, service.use))
            await service.run(stop)
            if background is not None:
                background.cancel()


def _once(warm: asyncio.Event) -> status.Ready:
    async def is_ready() -> str | None:
        return None if warm.is_set() else "the models are being loaded"

    return is_ready
