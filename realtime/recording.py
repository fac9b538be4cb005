"""A media file as its listener hears and sees it: 16 kHz mono sound and sampled pictures on the file's clock.

Knows FFmpeg (through PyAV) and nothing of utterances. Zero of the clock is where the file begins, be it with
its sound or its picture. Both iterators stream, so memory does not grow with the length of the file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import tee
from pathlib import Path
from typing import Any

import av
import av.container
import av.stream
import numpy as np

from realtime.errors import MediaError
from realtime.long_frames import LongFrames, Timed
from realtime.media import AudioNormaliser, VideoSampler
from realtime.messages import SAMPLE_RATE_HZ, AudioChunk, Pcm, Picture

BLOCK_SAMPLES = 8_000  # 0.5 s
SHORTFALL_S = 0.25  # a file that ends this long before its header says was cut

_FileFrame = av.AudioFrame | av.VideoFrame


@dataclass(slots=True)
class Recording:
    """An existing file with sound; build it with `open`."""

    path: Path
    duration_s: float | None  # as the header says; None where it does not (a browser's own recordings)
    channels: int
    has_video: bool
    truncated: str | None = None  # why something is missing: one sentence, set while the file is read
    _zero_s: float = 0.0  # the file's first time stamp
    _sound_end_s: float | None = None  # where the sound should end, if the header says

    @classmethod
    def open(cls, path: Path) -> Recording:
        """Look at the head of the file. Raises MediaError, one line, for anything without sound to read."""
        with _container(path) as container:
            if not container.streams.audio:
                raise MediaError(f"{path} has no audio")
            sound = container.streams.audio[0]
            if not _can_decode(sound):
                raise MediaError(f"{path}: FFmpeg has no decoder for its sound")
            zero_s = (container.start_time or 0) / av.time_base
            duration_s = None if container.duration is None else container.duration / av.time_base
            sound_end_s = None if _video(container) else duration_s
            if sound.duration is not None and sound.time_base is not None:
                sound_end_s = float(((sound.start_time or 0) + sound.duration) * sound.time_base) - zero_s
            return cls(
                path=path,
                duration_s=duration_s,
                channels=sound.channels,
                has_video=_video(container) is not None,
                _zero_s=zero_s,
                _sound_end_s=sound_end_s,
            )

    def audio(self, channel: int | None = None) -> Iterator[AudioChunk]:
        """The sound in blocks of half a second: the mix of all channels, or the one with this number.

        A long hole in the recording is a hole between chunks (see AudioNormaliser). A file that was cut
        yields what there is, then `truncated` says so. Raises MediaError for a channel that is not there.
        """
        return self.tracks([channel])[0]

    def tracks(self, channels: Sequence[int | None]) -> list[Iterator[AudioChunk]]:
        """`audio` of each of these channels, decoded once. They are to be read forward side by side: what
        one is ahead of another is kept."""
        for channel in channels:
            if channel is not None and not 0 <= channel < self.channels:
                raise MediaError(f"{self.path} has {self.channels} audio channel(s), no channel {channel}")
        sounds = tee(self._sound(), len(channels))
        return [self._track(*each) for each in zip(sounds, channels, strict=True)]

    def _track(self, sound: Iterator[Timed], channel: int | None) -> Iterator[AudioChunk]:
        blocks = _Blocks()
        end_s = 0.0
        for piece in _pieces(sound, channel):
            end_s = piece.end_s
            yield from blocks.push(piece)
        yield from blocks.flush()
        due_s = self._sound_end_s
        if self.truncated is None and due_s is not None and end_s < due_s - SHORTFALL_S:
            self.truncated = f"{self.path} ends at {end_s:.1f} s of {due_s:.1f} s: the file was cut"
        elif self.truncated is None and _riff_is_short(self.path):
            self.truncated = (
                f"{self.path} ends at {end_s:.1f} s, sooner than its header says: the file was cut"
            )

    def pictures(self, fps: float = 5.0) -> Iterator[Picture]:
        """At most `fps` pictures a second of the first video track; none where there is none."""
        sampler = VideoSampler(fps)
        with _container(self.path) as container:
            track = _video(container)
            for frame in self._frames(container, track) if track else ():
                at_s = self._time_s(frame)
                if isinstance(frame, av.VideoFrame) and at_s is not None:
                    picture = sampler.push(frame, at_s)
                    if picture is not None:
                        yield picture

    def _sound(self) -> Iterator[Timed]:
        """Decoded sound as it is in the file, in long frames."""
        joining = LongFrames()
        end_s = 0.0
        with _container(self.path) as container:
            for frame in self._frames(container, container.streams.audio[0]):
                if isinstance(frame, av.AudioFrame):
                    at_s = self._time_s(frame)
                    at_s = end_s if at_s is None else max(at_s, 0.0)
                    end_s = at_s + frame.samples / frame.sample_rate
                    yield from joining.push(frame, at_s)
            yield from joining.flush()

    def _frames(
        self, container: av.container.InputContainer, stream: av.AudioStream | av.VideoStream
    ) -> Iterator[_FileFrame]:
        """Every frame that decodes; a damaged packet is stepped over, a damaged container ends the file."""
        packets = container.demux(stream)
        while True:
            try:
                packet = next(packets)
                frames = packet.decode()
            except StopIteration:
                return
            except av.error.InvalidDataError as error:
                self.truncated = f"{self.path} is damaged: {error.strerror}"
                continue
            except av.error.FFmpegError as error:
                self.truncated = f"{self.path} is readable only in part: {error.strerror}"
                return
            for frame in frames:
                if isinstance(frame, _FileFrame):
                    yield frame

    def _time_s(self, frame: _FileFrame) -> float | None:
        return None if frame.time is None else frame.time - self._zero_s


def _pieces(sound: Iterator[Timed], channel: int | None) -> Iterator[AudioChunk]:
    """The sound at 16 kHz, in portions of any length."""
    normaliser = AudioNormaliser()
    for frame, at_s in sound:
        yield from normaliser.push(frame if channel is None else _only(frame, channel), at_s)
    yield from normaliser.flush()


class _Blocks:
    """Gathers portions into blocks; never joins across a hole."""

    def __init__(self) -> None:
        self._parts: list[Pcm] = []
        self._samples = 0
        self._start_s = 0.0

    def push(self, piece: AudioChunk) -> Iterator[AudioChunk]:
        if self._samples and abs(piece.start_s - self._start_s - self._samples / SAMPLE_RATE_HZ) > 1e-6:
            yield from self.flush()
        if not self._samples:
            self._start_s = piece.start_s
        self._parts.append(piece.pcm)
        self._samples += len(piece.pcm)
        while self._samples >= BLOCK_SAMPLES:
            pcm = np.concatenate(self._parts)
            yield AudioChunk(pcm[:BLOCK_SAMPLES], self._start_s)
            self._parts = [pcm[BLOCK_SAMPLES:]]
            self._samples -= BLOCK_SAMPLES
            self._start_s += BLOCK_SAMPLES / SAMPLE_RATE_HZ

    def flush(self) -> Iterator[AudioChunk]:
        if self._samples:
            yield AudioChunk(np.concatenate(self._parts), self._start_s)
        self._parts, self._samples = [], 0


def _riff_is_short(path: Path) -> bool:
    """Whether a WAV file is smaller than it says: FFmpeg then takes the shorter length for the true one."""
    with path.open("rb") as file:
        magic, size = file.read(4), int.from_bytes(file.read(4), "little")
    unknown = (0, 0xFFFFFFFF)  # written by those who cannot go back to fill it in
    return magic == b"RIFF" and size not in unknown and path.stat().st_size < size + 8


def _video(container: av.container.InputContainer) -> av.VideoStream | None:
    """The first moving picture; a cover in a sound file is none."""
    cover = av.stream.Disposition.attached_pic
    tracks = (track for track in container.streams.video if not track.disposition & cover)
    return next(filter(_can_decode, tracks), None)


def _can_decode(track: av.AudioStream | av.VideoStream) -> bool:
    context: Any = track.codec_context  # None where the codec is not known, whatever its type says
    return context is not None


def _only(frame: av.AudioFrame, channel: int) -> av.AudioFrame:
    samples: Any = frame.to_ndarray()  # [C, T], or [1, T * C] where the format is interleaved
    if not frame.format.is_planar:
        samples = samples.reshape(-1, frame.layout.nb_channels).T
    alone = np.ascontiguousarray(samples[channel : channel + 1])
    single = av.AudioFrame.from_ndarray(alone, format=frame.format.name, layout="mono")
    single.sample_rate = frame.sample_rate
    return single


def _container(path: Path) -> av.container.InputContainer:
    try:
        if not path.is_file():
            raise MediaError(f"{path} is not a file" if path.exists() else f"{path} does not exist")
        if path.stat().st_size == 0:
            raise MediaError(f"{path} is empty")
        # only plain files: a playlist must not make us read from the network
        # and names in it are bytes of anybody's choosing
        return av.open(str(path), options={"protocol_whitelist": "file"}, metadata_errors="replace")
    except av.error.FFmpegError as error:
        with path.open("rb") as file:
            cut = (
                "; an MP4 file whose end is missing has lost its index" if file.read(8)[4:] == b"ftyp" else ""
            )
        raise MediaError(f"{path} is not a media file that FFmpeg reads: {error.strerror}{cut}") from None
    except OSError as error:
        raise MediaError(f"cannot read {path}: {error.strerror}") from None
