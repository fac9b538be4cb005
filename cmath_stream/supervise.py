"""Every role of an installation in one command: Redis, ingest, three workers, fusion, each its own process.

Own processes, because the roles' native libraries do not always share one (CTranslate2 and TensorRT bring
their own cuDNN), and because a crash of one must not take the others along.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

from realtime.errors import CmathStreamError
from realtime.redis_server import redis_server

T = TypeVar("T")

log = logging.getLogger(__name__)

ROLES = (
    ("serve",),
    ("worker", "text"),
    ("worker", "audio"),
    ("worker", "visual"),
    ("worker", "fuse"),
)
READY = b"ready\n"  # what a role prints when it serves
START_S = 120.0  # a first start may read weights from a slow disk
STOP_S = 15.0


class RoleFailed(CmathStreamError):
    """A role ended though nobody asked it to."""


@dataclass(slots=True)
class _Role:
    name: str
    process: asyncio.subprocess.Process
    ready: bool = False


@dataclass(frozen=True, slots=True)
class Running:
    """All roles are up."""

    redis_url: str
    failed: asyncio.Event  # a role has ended by itself
    pids: Mapping[str, int]  # of the roles, by name

    async def until_done(self, work: asyncio.Task[T]) -> T:
        """What `work` returns, with its errors. Raises RoleFailed when a role ends first."""
        failure = asyncio.create_task(_set(self.failed), name="failure")
        await asyncio.wait({work, failure}, return_when=asyncio.FIRST_COMPLETED)
        failure.cancel()
        await asyncio.gather(failure, return_exceptions=True)
        if not work.done():
            raise RoleFailed("a role ended by itself; its own message is above")
        return work.result()


async def _set(event: asyncio.Event) -> None:
    await event.wait()


@asynccontextmanager
async def everything(
    arguments: Sequence[str],
    redis_url: str | None,
    environ: Mapping[str, str] | None = None,
    chosen: Sequence[tuple[str, ...]] = ROLES,
) -> AsyncIterator[Running]:
    """Start all roles with these global CLI arguments; inside, all are ready. Drains them at the end.

    `environ` adds to this process's environment; `chosen` may leave roles out. Raises RoleFailed if a role
    does not come up.
    """
    async with redis_server(redis_url, None) as url:
        environ = {**os.environ, **(environ or {}), "REDIS_URL": url}
        roles = [_Role(" ".join(role), await _spawn([*arguments, *role], environ)) for role in chosen]
        failed = asyncio.Event()
        watchers: list[asyncio.Task[None]] = []
        try:
            async with asyncio.TaskGroup() as starting:
                for role in roles:
                    starting.create_task(_until_ready(role), name=f"start-{role.name}")
            watchers = [
                asyncio.create_task(_watch(role, failed), name=f"watch-{role.name}") for role in roles
            ]
            yield Running(url, failed, {role.name: role.process.pid for role in roles})
        finally:
            for watcher in watchers:
                watcher.cancel()
            await asyncio.gather(*watchers, return_exceptions=True)
            await _drain(roles)


async def _spawn(arguments: list[str], environ: Mapping[str, str]) -> asyncio.subprocess.Process:
    # A process group of its own: Ctrl-C reaches us alone, and we stop the roles in order.
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "cmath_stream", "--die-with", str(os.getpid()), *arguments,
        env=environ, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, process_group=0,
    )  # fmt: skip


async def _until_ready(role: _Role) -> None:
    assert role.process.stdout is not None
    try:
        line = await asyncio.wait_for(role.process.stdout.readline(), START_S)
    except TimeoutError:
        raise RoleFailed(f"{role.name} was not ready after {START_S:.0f} s") from None
    if line != READY:
        raise RoleFailed(f"{role.name} did not start; its own message is above")
    role.ready = True


async def _watch(role: _Role, failed: asyncio.Event) -> None:
    code = await role.process.wait()
    log.error("%s ended with code %s", role.name, code)
    failed.set()


async def _drain(roles: list[_Role]) -> None:
    """Ingest first, so that nothing new comes; the workers last, because the fusion waits for them."""
    order = sorted(roles, key=lambda role: {"serve": 0, "worker fuse": 1}.get(role.name, 2))
    for stage in (order[:1], order[1:2], order[2:]):
        for role in stage:
            if role.process.returncode is None:  # one that never served has nothing to drain
                role.process.send_signal(signal.SIGTERM if role.ready else signal.SIGKILL)
        for role in stage:
            try:
                await asyncio.wait_for(role.process.wait(), STOP_S)
            except TimeoutError:
                log.error("%s did not stop in %s s and is killed", role.name, STOP_S)
                role.process.kill()
                await role.process.wait()
