"""One WHIP publisher: its peer connection, its tracks, its captions, until it is gone.

Media goes into a `Seat` on the session clock: sound from its packets (`realtime.incoming_audio`), pictures
from a task that reads their track from the moment it appears (`realtime.incoming_video`), since aiortc queues
decoded frames without bound for a track that nobody reads (aiortc#554). Knows nothing of HTTP, of rooms or of
what becomes of the media.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass

from aiortc import MediaStreamTrack, RTCDataChannel, RTCRtpReceiver, RTCSessionDescription
from aiortc.exceptions import InternalError, InvalidAccessError, InvalidStateError, OperationError
from aiortc.mediastreams import MediaStreamError
from aiortc.rtcicetransport import RTCIceCandidate

from realtime import caption_channel, telemetry
from realtime.alignment import Alignment
from realtime.clock import TrackClock
from realtime.errors import SignalingError
from realtime.ice import IceWatch, new_connection
from realtime.incoming_audio import IncomingAudio
from realtime.incoming_video import IncomingVideo
from realtime.media import VideoSampler
from realtime.sdp import ACCEPTED_CODECS, FOREIGN_SDP_ERRORS, with_rtcp_mux_only
from realtime.seats import Seat

log = logging.getLogger(__name__)

_ANNOUNCE_S = 0.01  # a change of the clock offset by less is not worth a message
_DRAIN_S = 1.0  # for frames already decoded, at the end
_CLOSE_S = 3.0  # for the DTLS and SCTP goodbyes
_AIORTC_ERRORS = (InternalError, InvalidAccessError, InvalidStateError, OperationError)
_REPLY_BUFFER_BYTES = 64 * 1024  # a client that does not read its errors gets no more of them


@dataclass(frozen=True, slots=True)
class PeerConfig:
    """Limits of one peer."""

    ice_servers: tuple[str, ...] = ()  # stun: URLs; none by default
    loopback_only: bool = False  # candidates on 127.0.0.1 only (tests, demo)
    video_fps: float = 5.0  # pictures kept, per second
    connect_timeout_s: float = 15.0  # from the offer to a connected peer
    dead_peer_s: float = 8.0  # nothing heard for this long: gone


class Peer:
    """A publisher's end of one peer connection.

    It lives in one task, from construction to the last resource freed; `close` asks that task to end and
    waits for it. `pictures` runs scaling and JPEG compression: 2 ms a picture, too long for a loop that all
    peers share. Audio is decoded and resampled in place: 90 µs a packet, less than a thread would cost.
    """

    def __init__(
        self, seat: Seat, config: PeerConfig, pictures: Executor, forget: Callable[[Peer], None]
    ) -> None:
        self.seat = seat
        self._config = config
        self._pictures = pictures
        self._forget = forget
        self._born_s = time.monotonic()
        self._name = f"{seat.session_id[:8]}-{secrets.token_hex(2)}"  # for logs: no name of a person
        self._pc = new_connection(config.ice_servers)
        self._ice: IceWatch | None = None
        self._connected = False
        self._over = asyncio.Event()
        self._reason = "closed"
        self._readers: set[asyncio.Task[None]] = set()
        self._audio_clock = TrackClock()
        self._heard = False
        self._alignment = Alignment()
        self._channel: RTCDataChannel | None = None
        self._opened_s = 0.0  # session time at which the captions channel opened
        self._announced_s: float | None = None
        self._pc.on("track", self._on_track)
        self._pc.on("datachannel", self._on_channel)
        self._pc.on("connectionstatechange", self._on_state)
        self._life = asyncio.create_task(self._live(), name=f"peer {self._name}")

    async def answer(self, offer: str) -> str:
        """The SDP answer with all our candidates.

        Raises SignalingError 422 for what aiortc will not take, 409 when the peer was closed meanwhile.
        """
        try:
            await self._pc.setRemoteDescription(RTCSessionDescription(offer, "offer"))
            self._ice = IceWatch(self._pc, "only" if self._config.loopback_only else "never")
            await self._pc.setLocalDescription(await self._pc.createAnswer())
        except (*FOREIGN_SDP_ERRORS, *_AIORTC_ERRORS) as error:
            if self._over.is_set():
                raise SignalingError(
                    409, f"the connection was ended while it was set up: {self._reason}"
                ) from None
            log.info("peer %s: offer refused: %r", self._name, error)
            raise SignalingError(422, "the offer cannot be answered", ACCEPTED_CODECS) from None
        return with_rtcp_mux_only(self._pc.localDescription.sdp)

    async def add_candidates(self, candidates: tuple[RTCIceCandidate, ...]) -> None:
        """Trickled candidates of the client. Raises SignalingError 400 for one that makes no sense."""
        try:
            for candidate in candidates:
                await self._pc.addIceCandidate(candidate)
        except ValueError:
            raise SignalingError(400, "a candidate of the fragment cannot be used") from None

    async def close(self, reason: str) -> None:
        """End the peer, flush its audio, leave the seat. Idempotent; the first reason counts."""
        self._end(reason)
        await asyncio.shield(self._life)

    # ---- life ------------------------------------------------------------------------------------

    def _end(self, reason: str) -> None:
        if not self._over.is_set():
            self._reason = reason
            self._over.set()

    async def _live(self) -> None:
        watch_s = min(1.0, self._config.dead_peer_s / 4)
        while not self._over.is_set():
            try:
                await asyncio.wait_for(self._over.wait(), watch_s)
            except TimeoutError:
                self._watch()
        try:
            await self._tear_down()
        finally:
            self._forget(self)
        log.info("peer %s left: %s", self._name, self._reason)

    def _watch(self) -> None:
        if self.seat.over:
            self._end("session_closed")
        elif not self._connected:
            if time.monotonic() - self._born_s > self._config.connect_timeout_s:
                self._end("connect_timeout")
        elif self._ice is not None and self._ice.silent_s > self._config.dead_peer_s:
            self._end("lost")

    async def _tear_down(self) -> None:
        try:
            async with asyncio.timeout(_CLOSE_S):
                await self._pc.close()  # ends the tracks once what is decoded has been given out
        except Exception as error:  # aiortc's own; the seat must be left whatever happens here
            log.warning("peer %s: the connection did not close well: %s", self._name, type(error).__name__)
        if self._readers:
            _, late = await asyncio.wait(self._readers, timeout=_DRAIN_S if self._connected else 0)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        await self.seat.leave(self._reason)

    def _on_state(self) -> None:
        state = self._pc.connectionState
        if state == "connected" and not self._connected:
            self._connected = True
            telemetry.SESSION_CONNECT_SECONDS.observe(time.monotonic() - self._born_s)
            log.info("peer %s connected", self._name)
        elif state in ("failed", "closed"):
            self._end(state)

    # ---- media -----------------------------------------------------------------------------------

    def _on_track(self, track: MediaStreamTrack) -> None:
        read = self._hear(track) if track.kind == "audio" else self._watch_video(track)
        task = asyncio.create_task(read, name=f"{track.kind} of {self._name}")
        self._readers.add(task)
        task.add_done_callback(self._on_reader_done)

    def _on_reader_done(self, task: asyncio.Task[None]) -> None:
        self._readers.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("%s: reading failed", task.get_name(), exc_info=error)
            self._end("error")

    async def _hear(self, track: MediaStreamTrack) -> None:
        audio = IncomingAudio(
            self._receiver_of(track),
            self.seat,
            self._audio_clock,
            self._alignment,
            self._clock_moved,
            self._audio_failed,
        )
        with suppress(MediaStreamError):  # the track ended or was removed
            await track.recv()  # no frame comes this way
        audio.close()

    async def _watch_video(self, track: MediaStreamTrack) -> None:
        sampler = VideoSampler(self._config.video_fps)
        receiver = self._receiver_of(track)
        await IncomingVideo(track, receiver, self.seat, self._alignment, sampler, self._pictures).run()

    def _receiver_of(self, track: MediaStreamTrack) -> RTCRtpReceiver:
        return next(each.receiver for each in self._pc.getTransceivers() if each.receiver.track is track)

    def _clock_moved(self) -> None:
        if not self._heard:  # what was told at the opening of the channel was provisional
            self._heard, self._announced_s = True, None
        self._announce()

    def _audio_failed(self, error: BaseException) -> None:
        log.error("audio of %s: reading failed", self._name, exc_info=error)
        self._end("error")

    # ---- captions --------------------------------------------------------------------------------

    def _on_channel(self, channel: RTCDataChannel) -> None:
        if channel.label != caption_channel.LABEL:
            log.info("peer %s: a data channel that is not %s is ignored", self._name, caption_channel.LABEL)
            channel.close()
            return
        self._channel = channel
        self._opened_s = self.seat.now_s()
        self._announced_s = None
        channel.on("message", self._on_message)
        self._announce()

    def _offset_s(self) -> float:
        """Session time of the participant's media start; without audio that is the opening of the channel."""
        offset_s = self._audio_clock.offset_s
        return self._opened_s if offset_s is None else offset_s

    def _announce(self) -> None:
        offset_s = self._offset_s()
        stale = self._announced_s is None or abs(offset_s - self._announced_s) >= _ANNOUNCE_S
        if stale and self._reply(caption_channel.clock_message(offset_s)):
            self._announced_s = offset_s

    def _on_message(self, message: str | bytes) -> None:
        try:
            caption = caption_channel.parse_caption(message, self._offset_s())
        except ValueError as error:
            telemetry.CAPTIONS_TOTAL.labels(outcome="malformed").inc()
            self._reply(caption_channel.error_message(str(error)))
            return
        telemetry.CAPTIONS_TOTAL.labels(outcome="accepted").inc()
        self.seat.push_caption(caption)

    def _reply(self, message: str) -> bool:
        channel = self._channel
        if channel is None or channel.readyState != "open" or channel.bufferedAmount > _REPLY_BUFFER_BYTES:
            return False
        channel.send(message)
        return True
