"""FFmpeg's `-f whip` publishes to the server, whichever side starts DTLS."""

from __future__ import annotations

import asyncio
import sys

import av
import pytest

from realtime.server import IngestConfig
from tests.calls import serving
from tests.fake_rooms import FakeRooms

TOKEN = "a-token-of-sixteen-or-more"

pytestmark = pytest.mark.skipif(
    "whip" not in av.formats_available, reason="the FFmpeg that PyAV carries has no whip muxer"
)


@pytest.mark.parametrize("options", [(), ("whip_flags=dtls_active",)], ids=["passive", "active"])
async def test_ffmpeg_is_heard_and_seen_and_hangs_up(options: tuple[str, ...]) -> None:
    rooms = FakeRooms()
    async with serving(rooms, IngestConfig(loopback_only=True, token=TOKEN)) as url:
        target = f"{url}/whip/room?participant=ffmpeg"
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.ffmpeg", target, "2", f"authorization={TOKEN}", *options
        )
        try:
            async with asyncio.timeout(30):
                assert await process.wait() == 0
        finally:
            if process.returncode is None:
                process.kill()
    (seat,) = rooms.seats
    assert seat.participant_id == "ffmpeg"
    assert len(seat.audio) > 20 and seat.pictures
    assert seat.left == "hangup"  # its DELETE, with no body and no entity tag
