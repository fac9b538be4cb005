"""One audio track of a publisher: RTP packets → chunks of sound in its seat, each decoded as it comes.

aiortc would hold every packet for four later ones, decode in a thread for each track, and hand the frames
back one by one: 80 ms and most of a core for some twenty participants. Its receiver still does the rest:
decryption, routing, statistics, reports.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

import av
from aiortc import RTCRtpReceiver
from aiortc.rtp import RtpPacket

from realtime import telemetry
from realtime.alignment import Alignment
from realtime.clock import TrackClock
from realtime.decoding import AudioDecoder
from realtime.jitter import AudioPacket, JitterBuffer
from realtime.media import AudioNormaliser
from realtime.receiver import divert, on_sender_report
from realtime.seats import Seat

_BEGIN_S = 0.4  # the first packets wait so long: the least late of them places the track, and none is cut
_SILENCE_S = 1.0  # a sender may leave out silence (RFC 7587 §3.1.3): a hole up to this is taken for it
_LATE = telemetry.FRAMES_DROPPED_TOTAL.labels(kind="audio", reason="late")
_TRIMMED = telemetry.FRAMES_DROPPED_TOTAL.labels(kind="audio", reason="trimmed")
_BROKEN = telemetry.FRAMES_DROPPED_TOTAL.labels(kind="audio", reason="error")
_RECEIVED = telemetry.FRAMES_RECEIVED_TOTAL.labels(kind="audio")
_LOST = telemetry.RTP_PACKETS_LOST_TOTAL.labels(kind="audio")


class IncomingAudio:
    """Stands where aiortc's jitter buffer stood. Lives on the event loop; `close` when the track is over."""

    def __init__(
        self,
        receiver: RTCRtpReceiver,
        seat: Seat,
        clock: TrackClock,
        alignment: Alignment,
        moved: Callable[[], None],
        failed: Callable[[BaseException], None],
    ) -> None:
        """`moved` is told when the clock may have; `failed`, an error that ends the track."""
        self._seat, self._clock, self._alignment = seat, clock, alignment
        self._moved, self._failed = moved, failed
        self._codecs = divert(receiver, self)
        on_sender_report(receiver, self._reported)
        self._loop = asyncio.get_running_loop()
        self._buffer: JitterBuffer | None = None
        self._decoder: AudioDecoder | None = None
        self._payload_type = -1
        self._tick = Fraction(1)
        # Holes are left open: who cuts utterances fills and counts them, to say what was lost.
        self._normaliser = AudioNormaliser(fill_s=0.0)
        self._timer: asyncio.TimerHandle | None = None
        self._begins_s: float | None = None  # when the first packets' wait is over

    def add(self, packet: RtpPacket) -> tuple[bool, None]:
        """What aiortc's receiver calls for each packet; nothing comes back for it to decode."""
        try:
            self._take(packet)
        except Exception as error:
            self._failed(error)
        return False, None

    def close(self) -> None:
        """The track is over: what waits goes on, and the resampler's last samples with it."""
        self._forget_timer()
        if self._buffer is not None:
            self._pass_on(self._buffer.flush(self._loop.time()))
        for chunk in self._normaliser.flush():
            self._seat.push_audio(chunk)

    def _take(self, packet: RtpPacket) -> None:
        if self._buffer is None or packet.payload_type != self._payload_type:
            self._begin(packet.payload_type)
        buffer = self._buffer
        assert buffer is not None
        late = buffer.late
        now_s = self._loop.time()
        buffer.add(packet.sequence_number, packet.timestamp, packet.payload, now_s, ssrc=packet.ssrc)
        if buffer.late > late:
            _LATE.inc()
        self._turn(now_s)

    def _begin(self, payload_type: int) -> None:
        """The sender's first packet, or its first of another codec."""
        if self._buffer is not None:
            self._pass_on(self._buffer.flush(self._loop.time()))
        codec = self._codecs[payload_type]
        self._payload_type = payload_type
        self._decoder = AudioDecoder(codec.name)
        self._tick = Fraction(1, codec.clockRate)
        self._buffer = JitterBuffer(codec.clockRate)

    def _turn(self, now_s: float) -> None:
        """What can go on goes on; if a missing packet is waited for, look again when that is over."""
        assert self._buffer is not None
        self._forget_timer()
        if self._begins_s is None:
            self._begins_s = now_s + _BEGIN_S
        if now_s < self._begins_s:
            deadline_s: float | None = self._begins_s
        else:
            self._pass_on(self._buffer.take(now_s))
            deadline_s = self._buffer.deadline_s
        if deadline_s is not None:
            self._timer = self._loop.call_at(deadline_s, self._wait_is_over)

    def _reported(self, ntp: int, rtp_time: int) -> None:
        if self._buffer is not None:
            self._alignment.report("audio", ntp, rtp_time, self._tick.denominator)

    def _wait_is_over(self) -> None:
        try:
            self._turn(self._loop.time())
        except Exception as error:
            self._failed(error)

    def _forget_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _pass_on(self, packets: list[AudioPacket]) -> None:
        if packets and self._clock.offset_s is None:
            first = packets[0]
            least_s = min(-p.waited_s - (p.time - first.time) * float(self._tick) for p in packets)
            packets[0] = replace(first, waited_s=-least_s)
        for packet in packets:
            telemetry.JITTER_BUFFER_DELAY_SECONDS.observe(packet.waited_s)
            if packet.lost:
                _LOST.inc(packet.lost)
            assert self._decoder is not None
            try:
                frames = self._decoder.decode(packet.payload)
            except av.FFmpegError:
                _BROKEN.inc()
                continue
            for frame in frames:
                self._hear(frame, packet)

    def _hear(self, frame: av.AudioFrame, packet: AudioPacket) -> None:
        _RECEIVED.inc()
        # It was sent when all of it had been spoken.
        waited_s = packet.waited_s + frame.samples / frame.sample_rate
        at_s = self._clock.at_s(packet.time, self._tick, self._seat.now_s() - waited_s)
        self._alignment.heard(packet.time, at_s)
        normaliser = self._normaliser
        dropped_ms, lost_ms = normaliser.dropped_ms, normaliser.lost_ms
        chunks = normaliser.push(frame, at_s, fill_s=0.0 if packet.lost else _SILENCE_S)
        for chunk in chunks:
            self._seat.push_audio(chunk)
        if normaliser.dropped_ms > dropped_ms:  # all of it, or its head while the clock settles
            (_TRIMMED if chunks else _LATE).inc()
        if normaliser.lost_ms > lost_ms:
            telemetry.AUDIO_MISSING_SECONDS_TOTAL.inc((normaliser.lost_ms - lost_ms) / 1000)
        self._moved()
