"""A stall of the event loop is seen, and counts for every beat that it swallowed."""

from __future__ import annotations

import asyncio
import time

from realtime import telemetry
from realtime.loop_lag import PERIOD_S, watch_loop_lag


def late_beats() -> float:
    """Beats observed later than 16 ms."""
    samples = {
        sample.labels["le"]: sample.value
        for metric in telemetry.EVENT_LOOP_LAG_SECONDS.collect()
        for sample in metric.samples
        if sample.name.endswith("_bucket")
    }
    return float(samples["+Inf"] - samples["0.016"])


async def test_a_stall_counts_for_every_beat_it_swallowed() -> None:
    before = late_beats()
    watch = asyncio.create_task(watch_loop_lag(), name="loop lag")
    await asyncio.sleep(2 * PERIOD_S)
    time.sleep(10 * PERIOD_S)  # noqa: ASYNC251 - the stall that is to be seen
    await asyncio.sleep(PERIOD_S)
    watch.cancel()
    await asyncio.gather(watch, return_exceptions=True)
    assert late_beats() - before >= 8
