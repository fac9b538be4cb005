"""One video track of a publisher: decoded frames → a few pictures a second in its seat.

Compression runs in a thread of the process; while it cannot follow, the newest frame is dropped.
"""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import Executor

import av
from aiortc import MediaStreamTrack, RTCRtpReceiver
from aiortc.mediastreams import MediaStreamError

from realtime import telemetry
from realtime.alignment import Alignment
from realtime.clock import TrackClock
from realtime.media import VideoSampler
from realtime.messages import Picture
from realtime.receiver import ask_for_picture, first_rtp_time, on_sender_report
from realtime.seats import Seat

log = logging.getLogger(__name__)

RATE_HZ = 90_000  # of every video codec's RTP clock
_HELD_MAX_S = 0.1  # a frame is given out when the next one begins
_MISSED_S = 1.0  # without a frame for so long, ask for a whole picture, and again
_RECEIVED = telemetry.FRAMES_RECEIVED_TOTAL.labels(kind="video")
_BUSY = telemetry.FRAMES_DROPPED_TOTAL.labels(kind="video", reason="busy")
_BROKEN = telemetry.FRAMES_DROPPED_TOTAL.labels(kind="video", reason="error")


class IncomingVideo:
    """Reads its track in `run`, until that ends."""

    def __init__(
        self,
        track: MediaStreamTrack,
        receiver: RTCRtpReceiver,
        seat: Seat,
        alignment: Alignment,
        sampler: VideoSampler,
        pictures: Executor,
    ) -> None:
        self._track, self._receiver, self._seat = track, receiver, seat
        self._alignment, self._sampler, self._pictures = alignment, sampler, pictures
        self._clock = TrackClock()
        self._job: asyncio.Future[Picture] | None = None
        on_sender_report(receiver, lambda ntp, time: alignment.report("video", ntp, time, RATE_HZ))

    async def run(self) -> None:
        """Until the track ends or is removed."""
        last_pts: int | None = None
        try:
            while True:
                frame = await self._next()
                _RECEIVED.inc()
                assert frame.pts is not None
                if last_pts is not None:  # how long the first one was held is not known: it cannot be placed
                    self._see(frame, (frame.pts - last_pts) / RATE_HZ)
                last_pts = frame.pts
        except MediaStreamError:
            pass
        if self._job is not None:
            await asyncio.wait([self._job])

    async def _next(self) -> av.VideoFrame:
        while True:
            try:
                frame = await asyncio.wait_for(self._track.recv(), _MISSED_S)
            except TimeoutError:
                await ask_for_picture(self._receiver)
            else:
                assert isinstance(frame, av.VideoFrame) and frame.time_base is not None
                return frame

    def _see(self, frame: av.VideoFrame, step_s: float) -> None:
        assert frame.pts is not None and frame.time_base is not None
        held_s = min(max(step_s, 0.0), _HELD_MAX_S)
        at_s = self._clock.at_s(frame.pts, frame.time_base, self._seat.now_s() - held_s)
        if (first := first_rtp_time(self._receiver)) is not None:
            beside_sound_s = self._alignment.picture_at_s(first + frame.pts, at_s)
            if beside_sound_s != at_s:  # else nothing is known of it
                telemetry.AV_SKEW_SECONDS.observe(abs(beside_sound_s - at_s))
            at_s = beside_sound_s
        if not self._sampler.due(at_s):
            return
        if self._job is not None:
            _BUSY.inc()
            return
        loop = asyncio.get_running_loop()
        self._job = loop.run_in_executor(self._pictures, self._sampler.encode, frame, at_s)
        self._job.add_done_callback(self._compressed)

    def _compressed(self, job: asyncio.Future[Picture]) -> None:
        self._job = None
        if job.cancelled():
            return
        if error := job.exception():
            log.warning("a video frame could not be compressed: %s", error)
            _BROKEN.inc()
        else:
            telemetry.PICTURES_KEPT_TOTAL.inc()
            self._seat.push_picture(job.result())
