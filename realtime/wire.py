"""Messages to flat Redis fields and back: a JSON head, raw little-endian payload, a version number.

An entry is `v` (wire version), `type` (message name in snake case), `head` (compact JSON of the scalar
fields) and, for Features, `vector` (float32 LE). The media of a Segment travels outside the entry, in two
blobs whose sizes stand in its head: `pcm` (int16 LE) and `pictures` (u32 at_ms, u32 length, JPEG; repeated).
Whatever does not fit raises WireError with one sentence and nothing else: an entry may come from anywhere.
"""

from __future__ import annotations

import json
import math
import re
import struct
import types
import typing
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import MISSING
from dataclasses import fields as fields_of
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from realtime import messages
from realtime.errors import WireError
from realtime.messages import Features, Message, Pcm, Picture, Segment

VERSION = "1"
MAX_INT = 2**53  # what JSON readers in any language keep exactly

Fields = dict[str, bytes]
Entry = Mapping[Any, Any]  # keys and values as the Redis client gives them: bytes or str

_PICTURE_HEAD = struct.Struct("<II")
_PAYLOAD = {"vector", "pcm", "pictures"}  # fields that are not scalars and stay out of the head


def encode(message: Message) -> Fields:
    """Fields of one entry. A Segment goes without its media: use `encode_segment` to send it whole."""
    return encode_segment(message)[0] if isinstance(message, Segment) else _encode(message, {})


def encode_segment(segment: Segment) -> tuple[Fields, dict[str, bytes]]:
    """Fields of the entry, and its media blobs `{"pcm": …, "pictures": …}` (empty where there is none)."""
    blobs = {"pcm": _pack_pcm(segment.pcm), "pictures": _pack_pictures(segment.pictures)}
    return _encode(segment, {f"{kind}_bytes": len(blob) for kind, blob in blobs.items()}), blobs


def decode(fields: Entry) -> Message:
    """The message of an entry; a Segment comes without its media. Raises WireError."""
    kind, head, payload = _open(fields)
    if kind.cls is Segment:
        return _segment(head, None, None)
    values = _scalars(kind, head)
    if kind.cls is Features:
        values["vector"] = _unpack_vector(payload)
        if not 0.0 <= values["quality"] <= 1.0:
            raise WireError("features: quality lies outside 0..1")
        if values.get("faces") is not None and values["faces"] < 1:
            raise WireError("features: faces is less than 1")
    return typing.cast(Message, kind.cls(**values))


def identity(fields: Entry) -> tuple[str, str, str]:
    """Type, session and utterance of an entry that need not be a message; "" for what it does not say."""
    kind, head = "", {}
    with suppress(WireError, ValueError, RecursionError):
        known = {_text(key): value for key, value in fields.items()}
        kind = _text(known.get("type", b""))
        parsed = json.loads(_text(known.get("head", b"")))
        head = parsed if isinstance(parsed, dict) else {}
    ids = (head.get(name) for name in ("session_id", "utterance_id"))
    session, utterance = (each if isinstance(each, str) else "" for each in ids)
    return kind, session, utterance


def decode_segment(fields: Entry, pcm: bytes | None, pictures: bytes | None) -> Segment:
    """A Segment with the given blobs attached; None leaves that medium empty. Raises WireError."""
    kind, head, _ = _open(fields)
    if kind.cls is not Segment:
        raise WireError(f"expected a segment, got {kind.name}")
    return _segment(head, pcm, pictures)


def media_sizes(fields: Entry) -> dict[str, int]:
    """Bytes of each blob that a Segment's entry promises. Raises WireError."""
    head = _open(fields)[1]
    return {kind: _size(head, kind) for kind in ("pcm", "pictures")}


def decode_pcm(blob: bytes) -> Pcm:
    """int16 LE bytes to float32 [T] in -1..1. Raises WireError on an odd length."""
    if len(blob) % 2:
        raise WireError("pcm blob has an odd number of bytes")
    return np.frombuffer(blob, "<i2").astype(np.float32) / np.float32(32768.0)


# ---- the head ------------------------------------------------------------------------------------


def _encode(message: Message, extra: dict[str, int]) -> Fields:
    kind = _kinds()[_wire_name(type(message))]
    head = {name: getattr(message, name) for name in kind.scalars} | extra
    try:
        text = json.dumps(head, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except (ValueError, TypeError) as error:  # NaN, a lone surrogate, a value that is no scalar
        raise WireError(f"{kind.name} does not fit the wire: {error}") from None
    fields = {"v": VERSION.encode(), "type": kind.name.encode(), "head": text}
    if isinstance(message, Features):
        fields["vector"] = np.ascontiguousarray(message.vector, "<f4").tobytes()
    return fields


def _open(fields: Entry) -> tuple[_Kind, dict[str, Any], bytes | None]:
    """Kind, parsed head and raw vector of an entry."""
    known = {_text(key): value for key, value in fields.items()}
    version = _text(known.get("v", b""))
    if version != VERSION:
        raise WireError(f"wire version {version[:20]!r} is not {VERSION!r}, the one spoken here")
    name = _text(known.get("type", b""))
    kind = _kinds().get(name)
    if kind is None:
        raise WireError(f"unknown message type {name[:40]!r}")
    try:
        head = json.loads(_text(known.get("head", b"")), parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise WireError(f"{name}: head is not JSON") from None
    if not isinstance(head, dict):
        raise WireError(f"{name}: head is not a JSON object")
    vector = known.get("vector")
    return kind, head, vector.encode() if isinstance(vector, str) else vector


def _scalars(kind: _Kind, head: dict[str, Any]) -> dict[str, Any]:
    """The checked scalar fields; a field with a default may be absent, an unknown one is ignored."""
    values = {}
    for name, (hint, required) in kind.scalars.items():
        if name in head:
            values[name] = _check(hint, head[name], f"{kind.name}: {name}")
        elif required:
            raise WireError(f"{kind.name}: {name} is missing")
    return values


def _check(hint: Any, value: Any, where: str) -> Any:
    if typing.get_origin(hint) is types.UnionType:  # only `X | None` is used
        return None if value is None else _check(typing.get_args(hint)[0], value, where)
    if typing.get_origin(hint) is typing.Literal:
        if isinstance(value, str) and value in typing.get_args(hint):
            return value
    elif hint is str:
        if isinstance(value, str) and not any("\ud800" <= char <= "\udfff" for char in value):
            return value
    elif hint is float:
        if type(value) in (int, float) and abs(value) <= MAX_INT and math.isfinite(value):
            return float(value)
    elif type(value) is hint and (hint is bool or abs(value) <= MAX_INT):
        return value
    raise WireError(f"{where} is not a valid {getattr(hint, '__name__', 'choice')}")


class _Kind(NamedTuple):
    """A message class as the wire sees it."""

    cls: type[Any]
    name: str  # snake case
    scalars: dict[str, tuple[Any, bool]]  # field → (type, required)


@cache
def _kinds() -> dict[str, _Kind]:
    """Every message, by its name on the wire."""
    kinds = {}
    for cls in typing.get_args(messages.Message):
        hints = typing.get_type_hints(cls)
        scalars = {
            field.name: (hints[field.name], field.default is MISSING)
            for field in fields_of(cls)
            if field.name not in _PAYLOAD
        }
        name = _wire_name(cls)
        kinds[name] = _Kind(cls, name, scalars)
    return kinds


def _wire_name(cls: type[Any]) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__).lower()


def _text(value: Any) -> str:
    try:
        return value.decode() if isinstance(value, bytes) else str(value)
    except UnicodeDecodeError:
        raise WireError("a field is not UTF-8") from None


def _refuse_constant(name: str) -> float:
    raise ValueError(name)  # NaN and Infinity are not JSON


# ---- payload -------------------------------------------------------------------------------------


def _unpack_vector(payload: bytes | None) -> messages.Vector:
    if not payload or len(payload) % 4:
        raise WireError("features: vector is missing or no whole number of float32")
    vector = np.frombuffer(payload, "<f4").astype(np.float32)
    if not np.isfinite(vector).all():
        raise WireError("features: vector holds a value that is not finite")
    return vector


def _segment(head: dict[str, Any], pcm: bytes | None, pictures: bytes | None) -> Segment:
    for kind, blob in (("pcm", pcm), ("pictures", pictures)):
        size = _size(head, kind)
        if blob is not None and len(blob) != size:
            raise WireError(f"segment: {kind} blob has {len(blob)} bytes, its head says {size}")
    return Segment(
        **_scalars(_kinds()["segment"], head),
        pcm=decode_pcm(pcm or b""),
        pictures=_unpack_pictures(pictures or b""),
    )


def _size(head: dict[str, Any], kind: str) -> int:
    size = _check(int, head.get(f"{kind}_bytes"), f"segment: {kind}_bytes")
    if size < 0:
        raise WireError(f"segment: {kind}_bytes is negative")
    return int(size)


def _pack_pcm(pcm: Pcm) -> bytes:
    # 32768 both ways: samples that came from 16-bit audio return unchanged.
    samples = np.clip(np.rint(pcm * np.float32(32768.0)), -32768, 32767)
    return bytes(samples.astype("<i2").tobytes())


def _pack_pictures(pictures: tuple[Picture, ...]) -> bytes:
    try:
        return b"".join(_PICTURE_HEAD.pack(p.at_ms, len(p.jpeg)) + p.jpeg for p in pictures)
    except struct.error:
        raise WireError("segment: a picture's at_ms does not fit 32 unsigned bits") from None


def _unpack_pictures(blob: bytes) -> tuple[Picture, ...]:
    pictures, at = [], 0
    while at < len(blob):
        if at + _PICTURE_HEAD.size > len(blob):
            raise WireError("pictures blob ends inside a header")
        at_ms, size = _PICTURE_HEAD.unpack_from(blob, at)
        at += _PICTURE_HEAD.size
        if at + size > len(blob):
            raise WireError("pictures blob ends inside a picture")
        pictures.append(Picture(blob[at : at + size], at_ms))
        at += size
    return tuple(pictures)
