"""Packets of the audio codecs that WebRTC knows → frames of sound. One decoder a stream."""

from __future__ import annotations

from dataclasses import dataclass

import av
from av.audio.codeccontext import AudioCodecContext


@dataclass(frozen=True, slots=True)
class _Codec:
    name: str  # FFmpeg's
    rate_hz: int


# Opus decodes to one channel by itself, for less than two cost (a receiver may choose: RFC 7587 §3.4).
_CODECS = {
    "opus": _Codec("libopus", 48_000),
    "g722": _Codec("g722", 16_000),
    "pcmu": _Codec("pcm_mulaw", 8_000),
    "pcma": _Codec("pcm_alaw", 8_000),
}


class AudioDecoder:
    """Mono sound of one stream of packets."""

    def __init__(self, encoding: str) -> None:
        """`encoding` as in SDP's rtpmap, in any case. Raises KeyError for one that is not known."""
        codec = _CODECS[encoding.lower()]
        context = av.CodecContext.create(codec.name, "r")
        assert isinstance(context, AudioCodecContext)
        context.format, context.layout, context.sample_rate = "s16", "mono", codec.rate_hz
        self._context = context

    def decode(self, payload: bytes) -> list[av.AudioFrame]:
        """The frames of a packet. Raises av.FFmpegError for what is none."""
        return self._context.decode(av.Packet(payload))
