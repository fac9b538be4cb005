"""What we take from inside aiortc is there, and does what we take it for."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiortc.rtp import RtcpSenderInfo, RtcpSrPacket, RtpPacket

from realtime.ice import new_connection
from realtime.receiver import ask_for_picture, divert, first_rtp_time, on_sender_report


class Sink(list[RtpPacket]):
    def add(self, packet: RtpPacket) -> tuple[bool, None]:
        self.append(packet)
        return False, None


@pytest.mark.parametrize("kind", ["audio", "video"])
async def test_the_names_inside_aiortc(kind: str) -> None:
    pc = new_connection(())
    receiver: Any = pc.addTransceiver(kind).receiver
    before = dict(vars(receiver))
    for name in ("jitter_buffer", "codecs", "timestamp_mapper", "remote_streams"):
        assert f"_RTCRtpReceiver__{name}" in before
    assert first_rtp_time(receiver) is None
    assert not await ask_for_picture(receiver)
    divert(receiver, Sink())
    assert set(vars(receiver)) == set(before)  # a name that aiortc does not have would be a new one
    told = []
    on_sender_report(receiver, lambda ntp, time: told.append((ntp, time)))
    info = RtcpSenderInfo(ntp_timestamp=5 << 32, rtp_timestamp=77, packet_count=1, octet_count=1)
    await receiver._handle_rtcp_packet(RtcpSrPacket(ssrc=1, sender_info=info))
    assert told == [(5 << 32, 77)]
    await pc.close()
    await asyncio.sleep(0)
