"""Whatever bytes a reader is given, it reads them or says in one line why not; soon, and running nothing.

Each case is a right input with a few bytes changed, cut, doubled or put in. Few in every run; as many as
CMATH_STREAM_FUZZ says, altogether, where it is set: CMATH_STREAM_FUZZ=100000 pytest tests/test_fuzz_bytes.py
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cmath_stream import checkpoint, traces
from cmath_stream.checkpoint_files import pair, shipped
from cmath_stream.config import Settings
from cmath_stream.traces import Average, Mean, Trace
from cmath_stream.training.safe_pickle import read_pickle
from realtime import captions, rttm, sdp, settings, wire
from realtime.caption_channel import parse_caption
from realtime.errors import CmathStreamError
from realtime.messages import Picture
from realtime.recording import Recording
from realtime.tokens import JwtConfig, Verifier
from tests.conftest import make_features, make_segment, make_transcript
from tests.offers.record import OFFERS
from tests.signing import SECRET, signed
from tests.test_recording import burst, write
from workers import voice_file

ALTOGETHER = int(os.environ.get("CMATH_STREAM_FUZZ", "0"))
FEW = 150
BITS = [
    b"\x00",
    b"\xff" * 4,
    b"-1",
    b"1e999",
    b"NaN",
    b"null",
    b"[]",
    b"{}",
    b'"',
    b"\n",
    b"\r\n\r\n",
    b" --> ",
]
BITS += [
    b"\xef\xbb\xbf",
    "\u2028\u0663".encode(),
    b"9" * 30,
    b"%s",
    b"../",
    b"a=",
    b"c__builtin__\neval\n",
    b".",
]

Feed = Callable[[bytes], object]


@dataclass(frozen=True)
class Reader:
    """Something that is given bytes by strangers."""

    name: str
    rights: tuple[bytes, ...]  # inputs that are read
    feed: Feed
    share: float = 1.0  # of the cases; less for those that are slow
    refuses: tuple[type[Exception], ...] = (CmathStreamError,)


def mutated(right: bytes, rng: np.random.Generator) -> bytes:
    data = bytearray(right)
    for _ in range(int(rng.integers(1, 5))):
        at = int(rng.integers(0, len(data) + 1))
        match int(rng.integers(0, 6)):
            case 0 if data:
                data[at % len(data)] = int(rng.integers(0, 256))
            case 1:
                del data[at:]
            case 2:
                del data[at : at + int(rng.integers(1, 40))]
            case 3:
                data[at:at] = BITS[int(rng.integers(len(BITS)))]
            case 4:
                data[at:at] = data[at : at + int(rng.integers(1, 200))]
            case _:
                data[at : at + 4] = rng.bytes(4)
    return bytes(data)


def readers(folder: Path) -> list[Reader]:
    def file(suffix: str, read: Callable[[Path], object]) -> Feed:
        path = folder / f"fuzzed{suffix}"

        def feed(data: bytes) -> object:
            path.write_bytes(data)
            return read(path)

        return feed

    def every(path: Path) -> None:
        recording = Recording.open(path)
        for _ in recording.audio():
            pass
        if recording.has_video:
            for _ in recording.pictures():
                pass

    def weights(source: Path, load: Callable[[Path], Any]) -> list[Reader]:
        """Both files of a checkpoint, the other one as it is."""
        found = []
        for place, each in enumerate(pair(source)):
            other = folder / each.stem / str(place)
            other.mkdir(parents=True)
            for one in pair(source):
                shutil.copy(one, other)

            def feed(data: bytes, path: Path = other / each.name) -> object:
                path.write_bytes(data)
                return load(path.with_suffix(".safetensors"))

            found.append(Reader(f"{each.parent.parent.name} {each.name}", (each.read_bytes(),), feed, 0.02))
        return found

    entry = {
        name: {key: bytes(value) for key, value in wire.encode(each).items()}
        for name, each in (("features", make_features(dim=3)), ("transcript", make_transcript()))
    }
    segment, blobs = wire.encode_segment(make_segment(pictures=(Picture(b"jpeg", 1),)))

    def field(name: str, key: str) -> Reader:
        fields = entry[name]
        return Reader(f"{name}.{key}", (fields[key],), lambda data: wire.decode({**fields, key: data}), 0.5)

    def media_blob(kind: str) -> Reader:
        def feed(data: bytes) -> object:
            given = {**blobs, kind: data}
            return wire.decode_segment(segment, given["pcm"], given["pictures"])

        return Reader(f"blob {kind}", (blobs[kind],), feed, 0.5)

    means, average = {"audio": Mean(7, np.ones(2, np.float32))}, Average(3, 900, 1, 0.25, (0.1, 0.2))
    vectors = {"text": np.ones(3, np.float32)}
    trace = traces.encode(Trace("a.0", "a", 0, False, vectors, means, average, {"a": 0}, {}, 0, 0, 0, None))
    verifier = Verifier(JwtConfig(secret=SECRET))
    vtt = b"WEBVTT\n\n00:00.000 --> 00:01.000\n<v Anna>Hello <b>you</b>\n\n2\n00:01.500 --> 00:02.000\nyes\n"
    srt = b"1\n00:00:00,000 --> 00:00:01,000\nHello\n\n2\n00:00:01,500 --> 00:00:02,000\nyes\n"
    stm = b";; note\ncall 1 anna 0.00 1.50 <o,f0,female> hello there\ncall 1 ben 1.60 2.00 yes\n"
    spoken = json.dumps([{"start_ms": 0, "end_ms": 900, "text": "hello", "speaker": "anna"}]).encode()
    turns = (
        b"SPEAKER call 1 0.00 1.50 <NA> <NA> anna <NA> <NA>\nSPEAKER call 1 1.6 0.4 <NA> <NA> ben <NA> <NA>\n"
    )
    offers = tuple(path.read_bytes() for path in sorted(OFFERS.glob("*.sdp")))
    ice = b"a=ice-ufrag:abcd\r\na=ice-pwd:0123456789012345678901\r\n"
    ice += b"m=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:0\r\n"
    ice += b"a=candidate:1 1 udp 2122260223 127.0.0.1 9 typ host\r\na=end-of-candidates\r\n"
    arrays = {"train": {"a": [np.arange(6, dtype=np.float32).reshape(2, 3), ["x", 1, None]]}}
    picklings = tuple(pickle.dumps(arrays, protocol) for protocol in (0, 2, 4))
    sound = burst(16_000, 0.5, 0.1)[None]
    wav, mp4 = (
        write(folder / "a.wav", sound, 16_000),
        write(folder / "b.mp4", sound, 16_000, "aac", pictures=5),
    )
    live = Path("configs/live.toml").read_bytes()
    return [
        *[field(name, key) for name, fields in entry.items() for key in fields],
        *[media_blob(kind) for kind in ("pcm", "pictures")],
        Reader("trace head", (trace[0],), lambda data: traces.decode(data, trace[1])),
        Reader("trace numbers", (trace[1],), lambda data: traces.decode(trace[0], data)),
        Reader("offer", offers, sdp.check_offer),
        Reader("fragment", (ice,), sdp.parse_fragment),
        Reader("captions .vtt", (vtt,), file(".vtt", captions.read)),
        Reader("captions .srt", (srt,), file(".srt", captions.read)),
        Reader("captions .stm", (stm,), file(".stm", captions.read)),
        Reader("captions .json", (spoken,), file(".json", captions.read)),
        Reader("turns .rttm", (turns,), file(".rttm", lambda path: rttm.read(path, "call"))),
        Reader("caption message", (b'{"start_ms":0,"end_ms":900,"text":"hi","language":"en"}',),
               lambda data: parse_caption(data.decode("utf-8", "replace"), 0.0), 1.0, (ValueError,)),
        Reader("token", (signed().encode(),), lambda data: verifier.verify(data.decode("latin-1"))),
        Reader("configuration", (live,), file(".toml", lambda path: settings.load(Settings, path, {})), 0.3),
        Reader("pickle", picklings, file(".pkl", read_pickle)),
        Reader("media .wav", (wav.read_bytes(),), file(".wav", every), 0.3),
        Reader("media .mp4", (mp4.read_bytes(),), file(".mp4", every), 0.05),
        *weights(shipped("words"), checkpoint.load),
        *weights(voice_file.shipped(), voice_file.load),
    ]  # fmt: skip


@pytest.mark.timeout(3600 if ALTOGETHER else 120)
def test_every_reader_reads_or_refuses(tmp_path: Path) -> None:
    everybody = readers(tmp_path)
    each = ALTOGETHER / sum(reader.share for reader in everybody)
    total = read = 0
    for reader in everybody:
        for right in reader.rights:
            reader.feed(right)
        rng = np.random.default_rng([len(reader.name), ALTOGETHER])
        for n in range(round(reader.share * (each or FEW)) + 1):
            data = mutated(reader.rights[n % len(reader.rights)], rng)
            total += 1
            try:
                reader.feed(data)
                read += 1
            except reader.refuses as error:
                said = str(error)
                assert said and "\n" not in said, (reader.name, data, said)
            except Exception as error:
                pytest.fail(f"{reader.name}: {type(error).__name__}: {error} on {data[:300]!r}")
    print(f"{total} cases of {len(everybody)} readers: {read} read, {total - read} refused")
    assert total >= ALTOGETHER
