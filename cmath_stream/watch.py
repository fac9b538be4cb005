"""`tail`: the public event stream of Redis, as a live table, as lines or as JSON."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager

from rich.console import Console
from rich.live import Live

from cmath_stream.events import Event, to_json
from cmath_stream.live_table import LiveTable, line
from realtime.redis_bus import RedisConfig, check, connect
from realtime.redis_events import EventLog

Entry = tuple[str, Event]  # id in the stream, event

_BLOCK_MS = 1000
_COUNT = 100


@asynccontextmanager
async def following(
    config: RedisConfig, session_id: str | None, after_id: str
) -> AsyncIterator[AsyncIterator[Entry]]:
    """Entries of a session, or of all (None), after `after_id` ("0" = all kept, "$" = new only)."""
    async with aclosing(_follow(config, session_id, after_id)) as entries:
        yield entries


async def room_entries(config: RedisConfig, room: str, after_id: str) -> AsyncGenerator[Entry, None]:
    """Entries of the next session of a room, each once, until it has closed; take it with `aclosing`."""
    sid, seen = "", set()
    async with following(config, None, after_id) as entries:
        async for entry_id, event in entries:
            if not sid and event["type"] == "session.started" and event["room"] == room:
                sid = event["session_id"]
            if event["session_id"] == sid and event["event_id"] not in seen:  # the feed may repeat itself
                seen.add(event["event_id"])
                yield entry_id, event
                if event["type"] == "session.closed":
                    return


async def _follow(config: RedisConfig, session_id: str | None, after_id: str) -> AsyncGenerator[Entry, None]:
    async with connect(config) as client:
        await check(client)
        log = EventLog(client, config)
        last_id = await log.last_id(session_id) if after_id == "$" else after_id
        while True:
            for entry_id, event in await log.read(session_id, last_id, _BLOCK_MS, _COUNT):
                last_id = entry_id
                yield entry_id, event


async def tail(config: RedisConfig, session_id: str | None, after_id: str, *, as_json: bool) -> None:
    """Show events until interrupted, or until the one session asked for has closed."""
    table = LiveTable()
    console = Console()
    live = Live(table, console=console, refresh_per_second=8) if console.is_terminal and not as_json else None
    if live is not None:
        live.start()
    try:
        async with following(config, session_id, after_id) as entries:
            async for _, event in entries:
                if as_json:
                    print(to_json(event), flush=True)
                elif table.add(event) and live is None:
                    print(line(event), flush=True)
                if session_id is not None and event["type"] == "session.closed":
                    break
    except BrokenPipeError:
        sys.stderr.close()  # `tail | head`: nobody reads any more, which is no error
    finally:
        if live is not None:
            live.stop()
