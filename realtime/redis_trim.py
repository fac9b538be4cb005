"""How job streams stay short: what every group has done with is dropped.

Never by XDEL: it makes the groups' `lag` unknown, by which the ingest and the operator know how far the
workers are behind.
"""

from __future__ import annotations

from typing import Any

from realtime.redis_cluster import Client

_Id = tuple[int, int]


async def floors(client: Client, stream: str) -> dict[str, _Id]:
    """Group → the first entry id that it may still need. Raises ResponseError where there is no stream."""
    found = {}
    groups: Any = await client.xinfo_groups(stream)
    for group in groups:
        pending: Any = await client.xpending(stream, group["name"])
        oldest = pending["min"]  # not acknowledged; None where there is none
        milliseconds, number = order(oldest or group["last-delivered-id"])
        found[group["name"].decode()] = (milliseconds, number if oldest else number + 1)
    return found


async def trim(client: Client, stream: str, *, exactly: bool = False) -> None:
    """Drop what is done. Whole nodes of the stream (100 entries) by default, which costs next to nothing."""
    needed = await floors(client, stream)
    if needed:
        milliseconds, number = min(needed.values())
        await client.xtrim(stream, minid=f"{milliseconds}-{number}", approximate=not exactly)


def order(entry_id: bytes) -> _Id:
    """An entry id as what it is ordered by."""
    milliseconds, number = map(int, entry_id.split(b"-"))
    return milliseconds, number
