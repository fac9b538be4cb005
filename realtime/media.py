"""Frames as they come, made into what the rest works with. Sans-I/O, for one track each.

Audio of any layout and rate becomes mono float32 at one rate, at sample-exact times; video becomes a few
JPEG pictures a second. Neither knows where the frames came from: a WebRTC track or a file.
"""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
from av.audio.resampler import AudioResampler
from av.video.codeccontext import VideoCodecContext
from av.video.frame import PictureType

from realtime.messages import SAMPLE_RATE_HZ, AudioChunk, Pcm, Picture

SLACK_S = 0.008  # times that differ by less are the same: less than the shortest usual packet (10 ms)
MAX_SIDE_PX = 640
_JPEG_Q = 3  # mjpeg quantiser 2..31; 3 is about quality 85-90
_MIN_SIDE_PX = 16
_TICK = Fraction(1, 1000)


class AudioNormaliser:
    """Any audio frames → mono float32 at `rate_hz`.

    A hole of up to `fill_s` is filled with silence of exactly its length; after a longer one a new chunk
    starts at its true time. Audio that lies before what was already given is dropped.
    """

    def __init__(self, *, rate_hz: int = SAMPLE_RATE_HZ, fill_s: float = 1.0) -> None:
        self._rate_hz = rate_hz
        self._fill_s = fill_s
        self._resampler: AudioResampler | None = None
        self._kind: tuple[str, str, int] | None = None  # format, layout, rate of the frames
        self._run_s = 0.0  # time of the first sample of the unbroken run
        self._in_samples = 0  # of the run, at the frames' rate
        self._out_samples = 0  # of the run, at `rate_hz`
        self.filled_ms = 0.0  # silence put in place of missing audio
        self.lost_ms = 0.0  # holes too long to fill
        self.dropped_ms = 0.0  # audio that came too late or twice

    def push(self, frame: av.AudioFrame, start_s: float, *, fill_s: float | None = None) -> list[AudioChunk]:
        """Audio completed by `frame`, whose first sample was captured at `start_s`.

        `fill_s`: what is filled of a hole right before it, if that differs from the usual.
        """
        kind = (frame.format.name, frame.layout.name, frame.sample_rate)
        parts: list[Pcm] = []
        chunks: list[AudioChunk] = []
        if self._kind is None:
            self._begin(kind, start_s)
        hole_s = start_s - self._end_s()
        if hole_s <= -SLACK_S and hole_s + frame.samples / frame.sample_rate <= SLACK_S:
            self.dropped_ms += frame.samples / frame.sample_rate * 1000
            return []
        if hole_s > SLACK_S or kind != self._kind:
            parts.append(self._drain())
            end_s = self._run_s + (self._out_samples + len(parts[0])) / self._rate_hz
            silence = max(round((start_s - end_s) * self._rate_hz), 0) if hole_s > SLACK_S else 0
            if silence <= (self._fill_s if fill_s is None else fill_s) * self._rate_hz:
                parts.append(np.zeros(silence, np.float32))
                self.filled_ms += silence / self._rate_hz * 1000
                start_s = end_s + silence / self._rate_hz
            else:
                self.lost_ms += silence / self._rate_hz * 1000
            chunks += self._emit(parts)
            parts = []
            self._begin(kind, start_s)
            hole_s = 0.0
        assert self._resampler is not None
        self._in_samples += frame.samples
        frame.pts = None  # the resampler would fill or squeeze by it
        pcm = _samples(self._resampler.resample(frame))
        if hole_s <= -SLACK_S:  # its head was given before: cut it, and stay on the run's time line
            cut = min(round(-hole_s * self._rate_hz), len(pcm))
            self._in_samples -= round(cut * frame.sample_rate / self._rate_hz)
            self.dropped_ms += cut / self._rate_hz * 1000
            pcm = pcm[cut:]
        return chunks + self._emit([pcm])

    def flush(self) -> list[AudioChunk]:
        """The last samples, held back by the resampler. The next `push` starts anew."""
        if self._kind is None:
            return []
        chunks = self._emit([self._drain()])
        self._kind = self._resampler = None
        return chunks

    def _begin(self, kind: tuple[str, str, int], start_s: float) -> None:
        self._kind = kind
        self._resampler = AudioResampler(format="flt", layout="mono", rate=self._rate_hz)
        self._run_s, self._in_samples, self._out_samples = start_s, 0, 0

    def _end_s(self) -> float:
        assert self._kind is not None
        return self._run_s + self._in_samples / self._kind[2]

    def _drain(self) -> Pcm:
        assert self._resampler is not None
        return _samples(self._resampler.resample(None)) if self._in_samples else np.zeros(0, np.float32)

    def _emit(self, parts: list[Pcm]) -> list[AudioChunk]:
        pcm = parts[0] if len(parts) == 1 else np.concatenate(parts)
        start_s = self._run_s + self._out_samples / self._rate_hz
        self._out_samples += len(pcm)
        return [AudioChunk(pcm, start_s)] if len(pcm) else []


def _samples(frames: list[av.AudioFrame]) -> Pcm:
    """Of frames in "flt", mono, as the resampler gives them; `to_ndarray` would take three times as long."""
    parts = [np.frombuffer(memoryview(frame.planes[0]), np.float32, frame.samples) for frame in frames]
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)  # a copy: the frames' memory is reused


class VideoSampler:
    """Frames at any rate → at most `fps` JPEG pictures a second, long side ≤ `MAX_SIDE_PX`."""

    def __init__(self, fps: float = 5.0) -> None:
        self._period_s = 1.0 / fps
        self._due_s: float | None = None
        self._encoder: VideoCodecContext | None = None
        self._encoded = 0

    def due(self, at_s: float) -> bool:
        """Whether a frame at this time is to be kept; taking it is then expected.

        The next one is due a period after this one *was* due, so that a frame rate which is no multiple
        of `fps` keeps the average, but never sooner than half a period after it came.
        """
        due_s = self._due_s
        if due_s is None or at_s < due_s - 2 * self._period_s:  # the first, or the clock was set back
            due_s = at_s
        if at_s < due_s - 1e-6:
            return False
        self._due_s = max(due_s, at_s - self._period_s / 2) + self._period_s
        return True

    def push(self, frame: av.VideoFrame, at_s: float) -> Picture | None:
        """The frame as a picture if one is due."""
        return self.encode(frame, at_s) if self.due(at_s) else None

    def encode(self, frame: av.VideoFrame, at_s: float) -> Picture:
        """Scale and compress one frame. Slow (a few ms): not for the event loop."""
        scale = min(1.0, MAX_SIDE_PX / max(frame.width, frame.height))
        width, height = (
            max(_MIN_SIDE_PX, round(side * scale / 2) * 2) for side in (frame.width, frame.height)
        )
        small = frame.reformat(width=width, height=height, format="yuvj420p")
        self._encoded += 1
        small.pts, small.time_base = self._encoded, _TICK  # the encoder wants them to grow
        small.pict_type = PictureType.I  # a decoded P frame would be refused by an encoder of pictures only
        if self._encoder is None or (self._encoder.width, self._encoder.height) != (width, height):
            self._encoder = _jpeg_encoder(width, height)
        return Picture(b"".join(bytes(packet) for packet in self._encoder.encode(small)), round(at_s * 1000))


def _jpeg_encoder(width: int, height: int) -> VideoCodecContext:
    encoder = VideoCodecContext.create("mjpeg", "w")
    encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuvj420p"
    encoder.time_base = _TICK
    encoder.thread_count = 1  # frame threads would hold each picture back until the next
    encoder.qmin = encoder.qmax = _JPEG_Q
    return encoder
