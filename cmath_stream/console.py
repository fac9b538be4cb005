"""What commands have in common: which Redis they ask, logs, and text that is plain whatever is in it."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

if TYPE_CHECKING:
    from realtime.redis_bus import RedisConfig
    from realtime.redis_cluster import Client

T = TypeVar("T")

RedisUrl = Annotated[str | None, typer.Option("--redis", metavar="URL", help="Redis; default $REDIS_URL.")]


def ask(context: typer.Context, url: str | None, job: Callable[[Client, RedisConfig], Awaitable[T]]) -> T:
    """What `job` finds out from the Redis that is meant. Raises SettingsError, BusError, or as `job` does."""
    from realtime.redis_bus import answering

    config = context.obj.with_redis(url).redis

    async def run() -> T:
        async with answering(config) as client:
            return await job(client, config)

    return asyncio.run(run())


def table(rows: Iterable[Sequence[object]]) -> str:
    """Columns of equal width; nothing is shortened, so that ids can be copied, or cut by awk.

    None is shown as `-`. Characters that a terminal would obey are not passed on: they may come from anyone.
    """
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in cells)
    return "\n".join(line.rstrip() for line in lines)


def plain_line(text: str) -> str:
    """A line without characters that a terminal would obey: names of files and of people come from anyone."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def _cell(value: object) -> str:
    return plain_line("-" if value is None or value == "" else str(value))


def set_up_logging(level: str) -> None:
    """To standard error, at this level; what other libraries have below a warning is left out.

    aiortc and aioice would tell session descriptions there: addresses of people, and ICE passwords.
    """
    logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(levelname).1s %(name)s: %(message)s")
    for name in ("realtime", "workers", "cmath_stream"):
        logging.getLogger(name).setLevel(level)
    logging.getLogger().setLevel(max(logging.WARNING, logging.getLogger("realtime").level))
