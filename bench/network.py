"""Bad networks: our jitter buffer beside aiortc's, on the same packets of the same speech.

    python -m bench.network [--out FILE]

The package's demo dialogue is encoded once; each network loses, delays and reorders its packets as its name
says, with a fixed seed; nothing sleeps, arrival times are simulated. Delay: from when the network would have
brought a packet, had it not been late, until it was given out. Segmentation: utterances of at least .3 s that
the undisturbed speech has and the disturbed one has too (same start and end within .25 s).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from aiortc.jitterbuffer import JitterBuffer as AiortcBuffer
from aiortc.rtp import RtpPacket
from rich.console import Console
from rich.table import Table

from cmath_stream.demo.dialogue import people
from realtime.decoding import AudioDecoder
from realtime.jitter import JitterBuffer
from realtime.listener import Listener, hear
from realtime.media import AudioNormaliser
from realtime.playing import PACKET_SAMPLES, RATE_HZ
from realtime.segmenter import Cut, Segmenter, SegmenterConfig
from realtime.vad import VadModel

STEP_S = PACKET_SAMPLES / RATE_HZ
_SILENCE_S = 1.0  # holes without loss up to this are silence, as in realtime.incoming_audio
_LEAST_S = 0.3  # utterances that count
_SAME_S = 0.25

Rng = np.random.Generator
Arrivals = list[tuple[int, float]]  # number of a packet and when it comes, in order of arrival


@dataclass(frozen=True, slots=True)
class Given:
    """A packet that a buffer gave out."""

    number: int
    at_s: float
    lost: int

    @property
    def delay_s(self) -> float:
        """Beyond when an undisturbed network would have brought it."""
        return self.at_s - self.number * STEP_S


def clean(count: int, rng: Rng) -> Arrivals:
    """Everything, at once."""
    return [(n, n * STEP_S) for n in range(count)]


def losing(share: float) -> Callable[[int, Rng], Arrivals]:
    """Each packet by chance."""
    return lambda count, rng: [(n, at_s) for n, at_s in clean(count, rng) if rng.random() >= share]


def bursts(count: int, rng: Rng) -> Arrivals:
    """60 to 400 ms of nothing, every three seconds or so."""
    gone: set[int] = set()
    at = 0
    while (at := at + int(rng.integers(100, 200))) < count:
        gone |= set(range(at, at + int(rng.integers(3, 20))))
    return [(n, at_s) for n, at_s in clean(count, rng) if n not in gone]


def reordered(count: int, rng: Rng) -> Arrivals:
    """One in ten overtaken by up to three others."""
    late = [(n, at_s + rng.uniform(0.02, 0.06) * (rng.random() < 0.1)) for n, at_s in clean(count, rng)]
    return sorted(late, key=lambda arrival: arrival[1])


def jittery(count: int, rng: Rng) -> Arrivals:
    """Each up to 200 ms late for ten seconds in every twenty, and 1 % lost."""
    return sorted(
        (
            (n, at_s + (n // 500 % 2) * float(rng.uniform(0, 0.2)))
            for n, at_s in clean(count, rng)
            if rng.random() >= 0.01
        ),
        key=lambda arrival: arrival[1],
    )


NETWORKS: dict[str, Callable[[int, Rng], Arrivals]] = {
    "undisturbed": clean,
    "1 % lost": losing(0.01),
    "5 % lost": losing(0.05),
    "10 % lost": losing(0.1),
    "bursts lost": bursts,
    "reordered": reordered,
    "200 ms jitter, at times": jittery,
}


def ours(arrivals: Arrivals) -> list[Given]:
    """What `realtime.jitter` makes of it."""
    buffer = JitterBuffer(RATE_HZ)
    given: list[Given] = []

    def take(at_s: float) -> None:
        for packet in buffer.take(at_s):
            given.append(Given(int.from_bytes(packet.payload), at_s, packet.lost))

    for number, at_s in arrivals:
        while (deadline_s := buffer.deadline_s) is not None and deadline_s <= at_s:
            take(deadline_s)
        buffer.add(number % 65536, number * PACKET_SAMPLES, number.to_bytes(4), at_s)
        take(at_s)
    return given


def aiortcs(arrivals: Arrivals) -> list[Given]:
    """What aiortc's receiver makes of it, with its own settings for audio."""
    buffer = AiortcBuffer(capacity=16, prefetch=4)
    given: list[Given] = []
    for number, at_s in arrivals:
        packet: Any = RtpPacket(
            payload_type=96, sequence_number=number % 65536, timestamp=number * PACKET_SAMPLES
        )
        packet._data = number.to_bytes(4)
        _, frame = buffer.add(packet)
        if frame is not None:
            first = given[-1].number if given else -1
            number = int.from_bytes(frame.data[:4])
            given.append(Given(number, at_s, number - first - 1))
    return given


def cuts(model: VadModel, packets: Sequence[bytes], given: Sequence[Given]) -> list[tuple[float, float]]:
    """Start and end of the utterances heard in what was given out, each packet at its RTP time."""
    decoder, normaliser = AudioDecoder("opus"), AudioNormaliser(fill_s=0.0)
    config = SegmenterConfig()
    listener, segmenter = Listener(config.stall_s), Segmenter(config)
    found: list[Cut] = []
    for each in given:
        for frame in decoder.decode(packets[each.number]):
            fill_s = 0.0 if each.lost else _SILENCE_S
            for chunk in normaliser.push(frame, each.number * STEP_S, fill_s=fill_s):
                for heard in hear(model, [(listener, chunk)])[0]:
                    found += [cut for cut in segmenter.push(heard) if isinstance(cut, Cut)]
    return [(cut.start_s, cut.speech_end_s) for cut in found if cut.speech_end_s - cut.start_s >= _LEAST_S]


def matched(truth: Sequence[tuple[float, float]], found: Sequence[tuple[float, float]]) -> list[float]:
    """Of each true utterance that was found, the larger error of start and end, seconds."""
    errors = [min((max(abs(a - c), abs(b - d)) for c, d in found), default=9.0) for a, b in truth]
    return [error for error in errors if error <= _SAME_S]


def speech() -> Iterator[bytes]:
    """The demo dialogue as Opus packets of 20 ms, one speaker after the other."""
    encoder: Any = av.CodecContext.create("libopus", "w")
    encoder.format, encoder.layout, encoder.sample_rate = "s16", "mono", RATE_HZ
    encoder.bit_rate, encoder.time_base = 32_000, Fraction(1, RATE_HZ)
    normaliser = AudioNormaliser(rate_hz=RATE_HZ)
    held = np.zeros(0, np.float32)
    for person in people():
        with av.open(str(person.path)) as container:
            for frame in container.decode(container.streams.audio[0]):
                parts = normaliser.push(frame, frame.time or 0.0)
                held = np.concatenate([held, *(chunk.pcm for chunk in parts)])
        normaliser.flush()
    for at in range(0, len(held) - PACKET_SAMPLES + 1, PACKET_SAMPLES):
        pcm = (held[at : at + PACKET_SAMPLES].clip(-1, 1) * 32767).astype(np.int16)
        sound = av.AudioFrame.from_ndarray(pcm[None], format="s16", layout="mono")
        sound.sample_rate, sound.pts, sound.time_base = RATE_HZ, at, Fraction(1, RATE_HZ)
        for packet in encoder.encode(sound):
            yield bytes(packet)


def row(model: VadModel, packets: list[bytes], truth: list[tuple[float, float]], arrivals: Arrivals,
        given: list[Given]) -> dict[str, Any]:  # fmt: skip
    """The figures of one buffer on one network."""
    delays_ms = np.array([each.delay_s for each in given]) * 1000
    came = {number for number, _ in arrivals}
    last = given[-1].number
    thrown = {number for number in came if number <= last} - {each.number for each in given}
    errors = matched(truth, cuts(model, packets, given))
    return {
        "delay_ms": {f"p{q}": round(float(np.percentile(delays_ms, q)), 1) for q in (50, 95, 100)},
        "thrown": len(thrown),
        "lost": last + 1 - len(given) - len(thrown),
        "recall": round(len(errors) / len(truth), 4),
        "timing_ms": {
            "p95": round(float(np.percentile(errors, 95)) * 1000, 1),
            "max": round(max(errors) * 1000, 1),
        },
    }


def main() -> None:
    """Print the table; write the figures where they are asked for."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--out", type=Path, help="write the figures as JSON here")
    out = parser.parse_args().out
    model, packets = VadModel(), list(speech())
    truth = cuts(model, packets, ours(clean(len(packets), np.random.default_rng(0))))
    result: dict[str, Any] = {"bench": "network", "packets": len(packets), "utterances": len(truth)}
    table = Table("network", "buffer", "delay p50", "p95", "max", "thrown", "recall", "timing off, max")
    result["networks"] = {}
    for name, network in NETWORKS.items():
        arrivals = network(len(packets), np.random.default_rng(0))
        figures = {
            "ours": row(model, packets, truth, arrivals, ours(arrivals)),
            "aiortc": row(model, packets, truth, arrivals, aiortcs(arrivals)),
        }
        result["networks"][name] = figures
        for whose, found in figures.items():
            delay = [f"{found['delay_ms'][q]:.0f} ms" for q in ("p50", "p95", "p100")]
            table.add_row(name, whose, *delay, str(found["thrown"]), f"{found['recall']:.1%}",
                          f"{found['timing_ms']['max']:.0f} ms")  # fmt: skip
    Console(width=110).print(table)
    print(json.dumps(result))
    if out is not None:
        out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
