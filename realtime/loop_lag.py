"""How late the event loop gives a task its turn: what tells a busy ingest from a drowning one."""

from __future__ import annotations

import asyncio

from realtime import telemetry

PERIOD_S = 0.02  # a packet of audio


async def watch_loop_lag() -> None:
    """Observe until cancelled, on a fixed beat: a long stall counts for every beat that it swallowed."""
    loop = asyncio.get_running_loop()
    due_s = loop.time()
    while True:
        due_s += PERIOD_S
        await asyncio.sleep(max(due_s - loop.time(), 0.0))
        telemetry.EVENT_LOOP_LAG_SECONDS.observe(max(loop.time() - due_s, 0.0))
