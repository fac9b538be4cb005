"""Several recordings as the participants of one call, with a progress bar each."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from cmath_stream.inputs import Source
from realtime.publish import publish


async def publish_all(
    sources: Sequence[Source], whip_url: str, *, speed: float, token: str | None
) -> list[dict[str, Any]]:
    """Play all sources at once; what was sent, and when, per participant."""
    columns = TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn()
    with Progress(*columns, transient=True) as bars:
        async with asyncio.TaskGroup() as tasks:
            playing = [
                tasks.create_task(_play(source, whip_url, speed, token, bars), name=f"publish-{n}")
                for n, source in enumerate(sources)
            ]
    return [task.result() for task in playing]


async def _play(
    source: Source, whip_url: str, speed: float, token: str | None, bars: Progress
) -> dict[str, Any]:
    bar = bars.add_task(source.participant_id, total=None)
    report = await publish(
        source.path, whip_url,
        participant=source.participant_id, captions=source.captions, speed=speed, token=token,
        on_progress=lambda sent_s, total_s: bars.update(bar, completed=sent_s, total=total_s),
    )  # fmt: skip
    return asdict(report)
