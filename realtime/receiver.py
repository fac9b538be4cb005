"""What we need of aiortc's RTP receiver and cannot ask it for; all of it in this file.

The receiver decrypts, routes, keeps statistics and sends reports. tests/test_receiver.py holds every name
used here to the installed version.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from aiortc import RTCRtpCodecParameters, RTCRtpReceiver
from aiortc.rtp import AnyRtcpPacket, RtcpSrPacket, RtpPacket


class PacketSink(Protocol):
    """Where packets go instead of aiortc's jitter buffer, and so not to its decoder either."""

    def add(self, packet: RtpPacket) -> tuple[bool, None]:
        """One packet of a codec that was agreed on; returns (False, None): nothing to ask for or decode."""
        ...


def divert(receiver: RTCRtpReceiver, sink: PacketSink) -> Mapping[int, RTCRtpCodecParameters]:
    """Give a receiver's packets to `sink`; returns the codecs by payload type, known once media may flow."""
    inside: Any = receiver
    inside._RTCRtpReceiver__jitter_buffer = sink
    codecs: Mapping[int, RTCRtpCodecParameters] = inside._RTCRtpReceiver__codecs
    return codecs


def on_sender_report(receiver: RTCRtpReceiver, tell: Callable[[int, int], None]) -> None:
    """`tell` the NTP time (64 bits) and the RTP time of each sender report (RFC 3550 §6.4.1)."""
    inside: Any = receiver
    handle = inside._handle_rtcp_packet

    async def handled(packet: AnyRtcpPacket) -> None:
        if isinstance(packet, RtcpSrPacket):
            tell(packet.sender_info.ntp_timestamp, packet.sender_info.rtp_timestamp)
        await handle(packet)

    inside._handle_rtcp_packet = handled


def first_rtp_time(receiver: RTCRtpReceiver) -> int | None:
    """RTP time of the track's first frame, from which aiortc counts `pts`; None before it."""
    inside: Any = receiver
    origin: int | None = inside._RTCRtpReceiver__timestamp_mapper._origin
    return origin


async def ask_for_picture(receiver: RTCRtpReceiver) -> bool:
    """Ask the sender for a whole picture (PLI, RFC 4585 §6.3.1); False while nothing is known of it."""
    inside: Any = receiver
    ssrc = next(iter(inside._RTCRtpReceiver__remote_streams), None)
    if ssrc is None:
        return False
    await inside._send_rtcp_pli(ssrc)
    return True
