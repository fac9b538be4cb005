"""What a recorded session is made of: everything that went into its `Conversation`, in order, with its time.

Played again into another `Conversation` it gives the same messages, so the same utterances. What the models
made of them is not on the tape, but for the modalities that an utterance went without.

An entry is its JSON on a line, and behind it the sound or picture that the JSON gives the length of.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from realtime.errors import MediaError
from realtime.messages import AudioChunk, Caption, Pcm, Picture
from realtime.segmenter import HeardFrame

Samples = NDArray[np.int16]
_FULL_SCALE = 32768.0


@dataclass(frozen=True, slots=True)
class Opened:
    """The first entry."""

    room: str
    purpose: str | None
    clock: str
    start_unix_ms: int
    conversation: Mapping[str, Any]  # its ConversationConfig as plain data


@dataclass(frozen=True, slots=True)
class Joined:
    participant: str
    now_s: float
    audio: bool
    video: bool
    captions: bool
    consent: str | None


@dataclass(frozen=True, slots=True)
class Heard:
    participant: str
    now_s: float
    frames: tuple[HeardFrame, ...]


@dataclass(frozen=True, slots=True)
class Seen:
    participant: str
    picture: Picture


@dataclass(frozen=True, slots=True)
class Said:
    participant: str
    now_s: float
    caption: Caption


@dataclass(frozen=True, slots=True)
class Ticked:
    now_s: float


@dataclass(frozen=True, slots=True)
class Left:
    participant: str
    now_s: float
    reason: str


@dataclass(frozen=True, slots=True)
class Closed:
    now_s: float
    reason: str


@dataclass(frozen=True, slots=True)
class Answered:
    """What the final emotion of an utterance went without, and why; comes some time after it."""

    utterance_id: str
    missing: Mapping[str, str]  # reason by modality


Entry = Opened | Joined | Heard | Seen | Said | Ticked | Left | Closed | Answered
_PLAIN = {each.__name__: each for each in (Opened, Joined, Ticked, Left, Closed, Answered)}


def in_16_bits(frames: Iterable[HeardFrame]) -> list[HeardFrame]:
    """The frames as a tape gives them back."""
    return [
        HeardFrame(AudioChunk(_pcm(_samples(each.chunk.pcm)), each.chunk.start_s), each.p, each.lost_s)
        for each in frames
    ]


def to_bytes(entry: Entry) -> bytes:
    """One entry."""
    body = b""
    head: dict[str, Any]
    match entry:
        case Heard():
            frames = entry.frames
            body = b"".join(_samples(each.chunk.pcm).tobytes() for each in frames)
            head = {"participant": entry.participant, "now_s": entry.now_s}
            head["frames"] = [
                (len(each.chunk.pcm), each.chunk.start_s, float(each.p), float(each.lost_s))
                for each in frames
            ]
        case Seen():
            body = entry.picture.jpeg
            head = {"participant": entry.participant, "at_ms": entry.picture.at_ms}
        case _:
            head = asdict(entry)
    head = {"is": type(entry).__name__, "bytes": len(body), **head}
    return json.dumps(head, ensure_ascii=False, separators=(",", ":")).encode() + b"\n" + body


def from_bytes(pieces: Iterable[bytes]) -> Iterator[Entry]:
    """The entries of some pieces, each of whole entries.

    Raises MediaError for what this version does not know.
    """
    for piece in pieces:
        at = 0
        while at < len(piece):
            end = piece.index(b"\n", at)
            head = json.loads(piece[at:end])
            kind, size = head.pop("is"), head.pop("bytes")
            at = end + 1 + size
            yield _entry(kind, head, piece[end + 1 : at])


def _entry(kind: str, head: dict[str, Any], body: bytes) -> Entry:
    match kind:
        case "Heard":
            return Heard(head["participant"], head["now_s"], tuple(_frames(head["frames"], body)))
        case "Seen":
            return Seen(head["participant"], Picture(body, head["at_ms"]))
        case "Said":
            return Said(head["participant"], head["now_s"], Caption(**head["caption"]))
        case _ if kind in _PLAIN:
            return _PLAIN[kind](**head)
        case _:
            raise MediaError(f"the recording has entries unknown here ({kind}): a newer version made it")


def _frames(heads: list[tuple[int, float, float, float]], body: bytes) -> Iterator[HeardFrame]:
    samples = np.frombuffer(body, "<i2")
    at = 0
    for count, start_s, p, lost_s in heads:
        yield HeardFrame(AudioChunk(_pcm(samples[at : at + count]), start_s), p, lost_s)
        at += count


def _samples(pcm: Pcm) -> Samples:
    samples: Samples = np.clip(np.rint(pcm * _FULL_SCALE), -_FULL_SCALE, _FULL_SCALE - 1).astype("<i2")
    return samples


def _pcm(samples: Samples) -> Pcm:
    pcm: Pcm = (samples / _FULL_SCALE).astype(np.float32)
    return pcm
