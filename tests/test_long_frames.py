"""Long frames hold the samples of short ones, and join nothing across a hole or a change of kind."""

from __future__ import annotations

import av
import numpy as np
import pytest

from realtime.long_frames import LongFrames, Timed

RATE_HZ = 48_000
PACKET_S = 0.02


def packet(number: int, layout: str = "stereo", form: str = "s16") -> av.AudioFrame:
    """20 ms that count upwards, each packet from its own number on."""
    size = round(RATE_HZ * PACKET_S)
    samples = number + np.arange(2 * size if layout == "stereo" else size)
    made = (
        av.AudioFrame.from_ndarray(samples[None].astype(np.int16), form, layout)
        if form == "s16"
        else av.AudioFrame.from_ndarray(samples.reshape(2, -1).astype(np.float32), form, layout)
    )
    made.sample_rate, made.pts = RATE_HZ, 7  # a time stamp that says nothing
    return made


def joined(packets: list[tuple[av.AudioFrame, float]]) -> list[Timed]:
    joining = LongFrames()
    out = [long for frame, at_s in packets for long in joining.push(frame, at_s)]
    return [*out, *joining.flush()]


@pytest.mark.parametrize("form", ["s16", "fltp"])
def test_the_samples_are_the_same_in_fewer_frames(form: str) -> None:
    short = [(packet(n, form=form), 1.0 + n * PACKET_S) for n in range(60)]
    said = np.concatenate([frame.to_ndarray() for frame, _ in short], 1)
    long = joined(short)
    assert [at_s for _, at_s in long] == pytest.approx([1.0, 1.5, 2.0])
    np.testing.assert_array_equal(np.concatenate([frame.to_ndarray() for frame, _ in long], 1), said)


def test_rounded_time_stamps_are_no_holes() -> None:
    assert len(joined([(packet(n), round(n * PACKET_S + 0.0014 * (n % 2), 3)) for n in range(20)])) == 1


@pytest.mark.parametrize("off_s", [-0.01, 0.003, 3.0])
def test_a_hole_or_a_repeat_is_between_frames(off_s: float) -> None:
    times = [n * PACKET_S + (off_s if n >= 4 else 0.0) for n in range(8)]
    long = joined([(packet(n), at_s) for n, at_s in enumerate(times)])
    assert [frame.samples / RATE_HZ for frame, _ in long] == pytest.approx([0.08, 0.08])
    assert [at_s for _, at_s in long] == pytest.approx([0.0, 0.08 + off_s])


def test_another_kind_is_another_frame() -> None:
    long = joined([(packet(0), 0.0), (packet(1, layout="mono"), 0.02), (packet(2, layout="mono"), 0.04)])
    assert [frame.layout.name for frame, _ in long] == ["stereo", "mono"]
    assert joined([]) == []
