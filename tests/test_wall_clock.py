"""All count by Redis's clock, however wrong their own is."""

from __future__ import annotations

import logging
import time

import pytest
import redis.asyncio

from realtime.wall_clock import shared_clock


@pytest.mark.parametrize("off_s", [0.0, 3600.0, -90.0])
async def test_a_machine_whose_clock_is_wrong_counts_right(
    redis_client: redis.asyncio.Redis,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    off_s: float,
) -> None:
    right = time.time
    monkeypatch.setattr("realtime.wall_clock.time.time", lambda: right() + off_s)
    with caplog.at_level(logging.WARNING):
        async with shared_clock(redis_client) as now_ms:
            assert now_ms() / 1000 == pytest.approx(right(), abs=0.2)
    assert bool(caplog.records) == bool(off_s)
