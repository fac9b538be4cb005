"""Recorded people in a call of an installation of their own: everything up, everybody in, everything down.

Each person is a process that publishes over real WebRTC; what the feed says of their room is gathered until
its session has closed.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cmath_stream.events import Event
from cmath_stream.inputs import Source
from cmath_stream.supervise import ROLES, Running, everything
from cmath_stream.watch import Entry, room_entries
from realtime.errors import CmathStreamError
from realtime.redis_bus import RedisConfig

_AFTER_S = 30.0  # for the last events, once the publishers are done


@dataclass(frozen=True, slots=True)
class Installation:
    """All roles on this machine, on a port that was free."""

    running: Running
    http: str  # root of the ingest's URLs


@dataclass(frozen=True, slots=True)
class Heard:
    """What came of a call."""

    entries: tuple[Entry, ...]
    reports: tuple[dict[str, Any], ...]  # what each publisher sent, and when


@asynccontextmanager
async def installation(
    arguments: Sequence[str],
    environ: Mapping[str, str] | None = None,
    chosen: Sequence[tuple[str, ...]] = ROLES,
) -> AsyncIterator[Installation]:
    """The `chosen` roles, media on loopback, rooms that close soon. Raises RoleFailed."""
    port = _free_port()
    settings = {
        "CMATH_STREAM__INGEST__PORT": str(port),
        "CMATH_STREAM__INGEST__LOOPBACK_ONLY": "true",
        "CMATH_STREAM__SESSION__LINGER_S": "1",
        **(environ or {}),
    }
    async with everything(arguments, None, settings, chosen) as running:
        yield Installation(running, f"http://127.0.0.1:{port}")


async def call(
    up: Installation, people: Sequence[Source], room: str, on_event: Callable[[Event], object]
) -> Heard:
    """Publish everybody into one room; `on_event` sees each event as it comes.

    Raises RoleFailed, and CmathStreamError when a publisher fails or the session does not close.
    """
    entries: list[Entry] = []
    whip = f"{up.http}/whip/{room}"

    async def listen() -> None:
        config = RedisConfig(url=up.running.redis_url)
        async with aclosing(room_entries(config, room, "$")) as told:
            async for entry in told:
                entries.append(entry)
                on_event(entry[1])

    async def publish(folder: Path) -> None:
        codes = await asyncio.gather(*(_publisher(person, whip, folder) for person in people))
        if any(codes):
            raise CmathStreamError("a publisher failed; its own message is above")
        async with asyncio.timeout(_AFTER_S):
            await listener

    with tempfile.TemporaryDirectory(prefix="cmath-stream-call-") as name:
        folder = Path(name)
        listener = asyncio.create_task(listen(), name="listen")
        publishing = asyncio.create_task(publish(folder), name="publish")
        try:
            await up.running.until_done(publishing)
        except TimeoutError:
            raise CmathStreamError(f"the session did not close {_AFTER_S:.0f} s after the call") from None
        finally:
            for task in (publishing, listener):
                task.cancel()
            await asyncio.gather(publishing, listener, return_exceptions=True)
        paths = [folder / f"{person.participant_id}.report.json" for person in people]
        return Heard(tuple(entries), tuple(json.loads(path.read_text("utf-8"))[0] for path in paths))


async def _publisher(person: Source, whip: str, folder: Path) -> int:
    """One participant in a process of its own."""
    words = folder / f"{person.participant_id}.json"
    words.write_text(json.dumps([asdict(caption) for caption in person.captions]), "utf-8")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "cmath_stream", "--die-with", str(os.getpid()), "publish", str(person.path),
        "--whip", whip, "--participant", person.participant_id, "--captions", str(words),
        "--report", str(folder / f"{person.participant_id}.report.json"),
        stdout=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    return await process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
