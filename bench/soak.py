"""Calls without end: does anything grow, does anything stay behind?

    python -m bench.soak [--minutes 30] [--rooms 4] [--out docs/results/performance/soak.json]

Every role in a process of its own; in each room the demo's two people call, hang up and call again. Looked at
every few seconds: resident memory of each role, jobs that wait. At the end: one emotion of each line that was
said, no key without an expiry but the streams that are trimmed, nothing waiting. Memory is flat where its
median over the last fifth of the time is within 5 % of that over the second fifth; the first one fills
caches. `load` is the share of all cores that everything on the machine took, publishers included. Prints one
JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import statistics
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from cmath_stream.benchmarks.figures import machine
from cmath_stream.benchmarks.watching import busy_s, cpu_s, rss_mb
from cmath_stream.call import Installation, call, installation
from cmath_stream.demo import dialogue
from cmath_stream.events import Event
from realtime.backlog import Backlog
from realtime.redis_bus import RedisConfig, connect

_LOOK_S = 5.0
_FLAT = 0.05
_ENDLESS = ("work:", "fence:", "feed")  # streams that are trimmed, and one number a shard


async def measure(minutes: float, rooms: int) -> dict[str, Any]:
    """The JSON object."""
    busy = machine()
    counts: Counter[str] = Counter()
    memory_mb: dict[str, list[float]] = defaultdict(list)
    lags: list[int] = []
    environ = {"CMATH_STREAM__TEXT__WHISPER": "none"}
    async with installation([], environ) as up:
        config = RedisConfig(url=up.running.redis_url)
        async with connect(config) as client:
            backlog = Backlog(client, config)

            async def look() -> None:
                while True:
                    for role, pid in up.running.pids.items():
                        memory_mb[role].append(rss_mb(pid))
                    await backlog.look()
                    lags.append(-1 if backlog.unread is None else backlog.unread)
                    await asyncio.sleep(_LOOK_S)

            looking = asyncio.create_task(look(), name="look")
            began_s, began_busy_s = time.monotonic(), busy_s(None)
            began_cpu_s = sum(map(cpu_s, up.running.pids.values()))
            end_s = began_s + minutes * 60
            await asyncio.gather(*(_room(up, room, end_s, counts) for room in range(rooms)))
            took_s = time.monotonic() - began_s
            looking.cancel()
            await backlog.look()
            keys = [key.decode() async for key in client.scan_iter()]
            endless = [key for key in keys if await client.ttl(key) == -1]
            return {
                "bench": "soak",
                "minutes": round(took_s / 60, 1),
                "rooms": rooms,
                "calls": counts["calls"],
                "lines": counts["lines"],
                "emotions": counts["emotions"],
                "dropped": counts["dropped"],
                "cores_used": round((sum(map(cpu_s, up.running.pids.values())) - began_cpu_s) / took_s, 2),
                "load": round((busy_s(None) - began_busy_s) / took_s / (os.cpu_count() or 1), 2),
                "memory_mb": {role: _growth(each) for role, each in memory_mb.items()},
                "most_waiting": max(lags),
                "waiting_at_end": backlog.unread,
                "keys": len(keys),
                "keys_without_end": [key for key in endless if not key.startswith(_bounded(config))],
                "machine": busy,
            }


async def _room(up: Installation, room: int, end_s: float, counts: Counter[str]) -> None:
    """One call after the other. They begin apart, as calls do."""
    people = dialogue.people()

    def count(event: Event) -> None:
        counts["emotions"] += event.get("is_final") is True
        counts["dropped"] += event["type"] == "utterance.dropped"

    await asyncio.sleep(7.3 * room)
    for n in itertools.count():
        if time.monotonic() > end_s:
            return
        await call(up, people, f"soak-{room}-{n}", count)
        counts["calls"] += 1
        counts["lines"] += len(dialogue.script())


def _bounded(config: RedisConfig) -> tuple[str, ...]:
    return tuple(f"{config.prefix}{name}" for name in _ENDLESS)


def _growth(mb: list[float]) -> dict[str, float]:
    fifth = max(1, len(mb) // 5)
    second, last = statistics.median(mb[fifth : 2 * fifth]), statistics.median(mb[-fifth:])
    return {
        "second_fifth": round(second, 1),
        "last_fifth": round(last, 1),
        "growth": round(last / second - 1, 4),
    }


def main() -> int:
    """Command line; returns the exit status: 1 if anything grew, was lost or stayed behind."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--rooms", type=int, default=4)
    parser.add_argument("--out", type=Path, default=None)
    given = parser.parse_args()
    result = asyncio.run(measure(given.minutes, given.rooms))
    if given.out is not None:
        given.out.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    print(json.dumps(result))
    flat = all(abs(each["growth"]) <= _FLAT or each["growth"] < 0 for each in result["memory_mb"].values())
    whole = result["emotions"] == result["lines"] and not result["dropped"]
    return 0 if flat and whole and not result["keys_without_end"] and result["waiting_at_end"] == 0 else 1


if __name__ == "__main__":
    raise SystemExit(main())
