"""A WHIP client that plays a recording as one participant of a call, in real time.

Truth about time: a frame of sound is handed to the RTP sender when its *last* sample would have been
spoken, as from a microphone, so file time `f` was "said" at `media_start_unix_s + f` on the wall clock, and
is session time `session_offset_ms + 1000 f` to the server. Nothing is sent before the data channel is open:
what a server is not ready for is lost, and would shift its idea of the media start.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import aiohttp
from aiortc import MediaStreamTrack, RTCPeerConnection, RTCSessionDescription
from yarl import URL

from realtime import caption_channel
from realtime.auth import is_loopback
from realtime.errors import CmathStreamError, SettingsError, SignalingError
from realtime.ice import IceWatch, new_connection
from realtime.messages import Caption
from realtime.playing import PlayedPicture, PlayedSound, SendClock
from realtime.recording import Recording
from realtime.sdp import with_rtcp_mux_only

log = logging.getLogger(__name__)

Progress = Callable[[float, float | None], None]  # seconds sent, seconds in all (None = not known)

_CONNECT_S = 10.0
_REQUEST_S = 10.0
_PROGRESS_S = 0.5
_FLUSH_S = 2.0  # for captions still in the channel at the end


@dataclass(frozen=True, slots=True)
class PublishReport:
    """What was sent, and how file time maps to the wall and to the session."""

    participant: str
    duration_s: float  # of the sound sent, without the silence after it
    media_start_unix_s: float  # wall-clock time of file time zero
    session_offset_ms: int  # session time of file time zero, as the server says
    captions_sent: int
    captions_refused: int
    pictures_late: int  # video frames left out because this machine could not follow
    truncated: str | None  # why something of the file is missing, in one sentence


async def publish(
    source: Path,
    whip_url: str,
    *,
    participant: str,
    captions: Sequence[Caption] = (),  # in file seconds
    audio_only: bool = False,
    speed: float = 1.0,
    token: str | None = None,
    on_progress: Progress | None = None,
) -> PublishReport:
    """Play `source` to the WHIP endpoint until its end.

    Raises SettingsError (a speed other than 1, a bad URL), MediaError (no sound to read), SignalingError
    (refused, with the server's sentence), CmathStreamError (not reachable, connection lost).
    """
    if speed != 1.0:
        raise SettingsError("a call is published at its own pace (speed 1); use replay for faster")
    url = endpoint(whip_url, participant)
    recording = Recording.open(source)
    clock = SendClock()
    with ThreadPoolExecutor(2, thread_name_prefix="publish") as decoding:
        sound = PlayedSound(source, clock, decoding)
        picture = PlayedPicture(source, clock, decoding) if recording.has_video and not audio_only else None
        tracks = [sound] if picture is None else [sound, picture]
        async with calling(url, tracks, token) as line:
            clock.start()
            await play(sound, line, captions, clock, recording.duration_s, on_progress)
    assert line.offset_ms is not None
    return PublishReport(
        participant=participant,
        duration_s=sound.duration_s,
        media_start_unix_s=clock.unix_s,
        session_offset_ms=line.offset_ms,
        captions_sent=line.sent,
        captions_refused=line.refused,
        pictures_late=picture.late if picture is not None else 0,
        truncated=sound.truncated,
    )


@asynccontextmanager
async def calling(
    url: URL, tracks: Sequence[MediaStreamTrack], token: str | None
) -> AsyncIterator[CaptionLine]:
    """A call of these tracks to an `endpoint`; inside, the server is ready for them. Hangs up at the end.

    Raises SignalingError and CmathStreamError as `publish` does.
    """
    pc = new_connection(())
    try:
        for track in tracks:
            pc.addTransceiver(track, "sendonly")
        line = CaptionLine(pc)  # after the tracks: aiortc closes the transport of a channel made first
        IceWatch(pc, "also" if is_loopback(url.host or "") else "never")
        async with _whip_session(pc, url, token):
            await line.wait_open()
            yield line
    finally:
        await pc.close()
        for track in tracks:
            track.stop()


class Sound(Protocol):
    """A track of sound that plays to its end."""

    ended: asyncio.Event
    sent_s: float


async def play(
    sound: Sound,
    line: CaptionLine,
    captions: Sequence[Caption],
    clock: SendClock,
    duration_s: float | None = None,
    on_progress: Progress | None = None,
) -> None:
    """Until the sound has ended, each caption said when its last word was. Raises CmathStreamError."""
    unsaid = deque(sorted(captions, key=lambda caption: caption.end_s))

    async def speak() -> None:
        while unsaid:
            await clock.wait_until(unsaid[0].end_s)  # nobody knows the words before they were said
            line.send(unsaid.popleft())

    async def report() -> None:
        while on_progress is not None:
            on_progress(sound.sent_s, duration_s)
            await asyncio.sleep(_PROGRESS_S)

    speaking = asyncio.create_task(speak(), name="captions")
    reporting = asyncio.create_task(report(), name="progress")
    ended = asyncio.create_task(sound.ended.wait(), name="sound ended")
    lost = asyncio.create_task(line.lost.wait(), name="connection lost")
    tasks = (speaking, reporting, ended, lost)
    try:
        await asyncio.wait((ended, lost), return_when=asyncio.FIRST_COMPLETED)
        if lost.done():
            raise CmathStreamError(f"the server ended the connection after {sound.sent_s:.1f} s")
        speaking.cancel()
        for caption in unsaid:  # captions that end after the sound does
            line.send(caption)
        await line.flushed()
        if on_progress is not None:
            on_progress(sound.sent_s, duration_s)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class CaptionLine:
    """The client's end of the captions channel, which also says when the server is ready and gone."""

    def __init__(self, pc: RTCPeerConnection) -> None:
        self.offset_ms: int | None = None
        self.sent = 0
        self.refused = 0
        self.lost = asyncio.Event()
        self._open = asyncio.Event()
        self._pc = pc
        self._channel = pc.createDataChannel(caption_channel.LABEL)
        self._channel.on("message", self._on_message)
        self._channel.on("close", self.lost.set)
        pc.on("connectionstatechange", self._on_state)

    async def wait_open(self) -> None:
        """Until the server has told its clock. Raises CmathStreamError."""
        waits = [asyncio.create_task(event.wait()) for event in (self._open, self.lost)]
        await asyncio.wait(waits, timeout=_CONNECT_S, return_when=asyncio.FIRST_COMPLETED)
        for task in waits:
            task.cancel()
        if not self._open.is_set():
            raise CmathStreamError(
                "no media connection to the server: UDP between the two machines seems to be blocked"
            )

    def send(self, caption: Caption) -> None:
        """Say the words of a caption (file seconds)."""
        if self._channel.readyState == "open":
            self._channel.send(caption_channel.caption_message(caption))
            self.sent += 1

    async def flushed(self) -> None:
        """Until all captions have left, or the time for it is over."""
        empty = asyncio.Event()
        self._channel.on("bufferedamountlow", empty.set)
        if self._channel.bufferedAmount:
            with suppress(TimeoutError):
                await asyncio.wait_for(empty.wait(), _FLUSH_S)

    def _on_message(self, message: str | bytes) -> None:
        try:
            fields = json.loads(message)
            kind = fields.get("type")
            if kind == "clock":
                self.offset_ms = int(fields["session_offset_ms"])
                self._open.set()
        except (ValueError, TypeError, KeyError, AttributeError):
            log.warning("the server sent a message on the captions channel that is not understood")
            return
        if kind == "error":
            self.refused += 1
            log.warning("the server refused a caption: %s", fields.get("detail"))

    def _on_state(self) -> None:
        if self._pc.connectionState in ("failed", "closed"):
            self.lost.set()


@asynccontextmanager
async def _whip_session(pc: RTCPeerConnection, url: URL, token: str | None) -> AsyncIterator[None]:
    """POST the offer and apply the answer; DELETE at the end, whatever happened."""
    await pc.setLocalDescription(await pc.createOffer())
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    timeout = aiohttp.ClientTimeout(total=_REQUEST_S)
    async with aiohttp.ClientSession(headers=headers, timeout=timeout) as http:
        try:
            offer = with_rtcp_mux_only(pc.localDescription.sdp)
            async with http.post(url, data=offer, headers={"Content-Type": "application/sdp"}) as response:
                body = await response.text()
                if response.status != 201:
                    raise SignalingError(
                        response.status, f"{url.origin()} refused: {_detail(response, body)}"
                    )
                resource = response.url.join(URL(response.headers["Location"]))
        except KeyError:
            raise SignalingError(
                502, f"{url.origin()} is no WHIP server: its answer has no Location"
            ) from None
        except (aiohttp.ClientError, TimeoutError) as error:
            raise CmathStreamError(
                f"no WHIP server answers at {url.origin()}: {str(error) or 'timeout'}"
            ) from None
        try:
            try:
                await pc.setRemoteDescription(RTCSessionDescription(body, "answer"))
            except ValueError as error:
                raise SignalingError(502, f"the answer of {url.origin()} cannot be used: {error}") from None
            yield
        finally:
            with suppress(aiohttp.ClientError, TimeoutError):
                async with http.delete(resource):
                    pass


def _detail(response: aiohttp.ClientResponse, body: str) -> str:
    try:
        return str(json.loads(body)["detail"])
    except (ValueError, KeyError, TypeError):
        return f"{response.status} {response.reason}"


def endpoint(whip_url: str, participant: str) -> URL:
    """Where a participant joins. Raises SettingsError."""
    try:
        url = URL(whip_url)
    except ValueError:
        url = URL()
    if url.scheme not in ("http", "https") or not url.host:
        raise SettingsError(f"{whip_url!r} is not an http(s) URL of a WHIP endpoint")
    return url.update_query(participant=participant)
