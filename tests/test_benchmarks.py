"""Figures by hand-made data, packets that arrive as they were encoded, and one tiny run of each benchmark."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import wave
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from yarl import URL

from cmath_stream.annotation import Line
from cmath_stream.benchmarks import latency, load
from cmath_stream.benchmarks.crowd import Member, Plan, Played, read_plan, words_from, write_plan
from cmath_stream.benchmarks.figures import bucket_quantile, histogram, machine, summary
from cmath_stream.benchmarks.packets import PlayedPackets, read_pictures, read_sound, write_pictures
from cmath_stream.benchmarks.watching import Snapshot, parse, quantile_between
from cmath_stream.call import Heard
from realtime import telemetry
from realtime.errors import MediaError, SettingsError
from realtime.messages import SAMPLE_RATE_HZ, Caption
from realtime.playing import SendClock
from realtime.publish import calling, endpoint, play
from realtime.recording import Recording
from tests.calls import serving
from tests.fake_rooms import FakeRooms
from tests.test_annotation import REPORTS, heard

DEMO = Path("cmath_stream/demo")

# ---- figures -----------------------------------------------------------------------------------------


def test_summary() -> None:
    assert summary([]) == {"n": 0, "p50": None, "p95": None, "max": None}
    assert summary([float(n) for n in range(1, 102)]) == {"n": 101, "p50": 51.0, "p95": 96.0, "max": 101.0}


def test_histogram_keeps_what_lies_beyond() -> None:
    assert histogram([-5, 0, 99, 100, 199, 5000], [0, 100, 200]) == {
        "edges": [0, 100, 200],
        "counts": [3, 3],
    }
    assert histogram([], [0, 100])["counts"] == [0]


@pytest.mark.parametrize(("q", "expected"), [(0.25, 0.5), (0.5, 1.0), (0.75, 3.0), (0.99, 8.0)])
def test_bucket_quantile_is_linear_inside_a_bucket(q: float, expected: float) -> None:
    assert bucket_quantile([1.0, 5.0, 8.0, math.inf], [50, 100, 100, 100], q) == pytest.approx(
        expected if q < 0.8 else 4.92
    )
    assert bucket_quantile([1.0, 8.0, math.inf], [0, 0, 10], q) == 8.0


def test_bucket_quantile_of_nothing() -> None:
    assert bucket_quantile([1.0, math.inf], [0, 0], 0.5) is None
    assert bucket_quantile([], [], 0.5) is None


def test_machine_says_how_busy_it_is() -> None:
    assert len(machine()["load_average"]) == 3 and machine()["cores"] >= 1


# ---- latency -----------------------------------------------------------------------------------------


def test_latency_figures() -> None:
    lines = [Line("ann", 0, 1000), Line("ann", 2000, 3000)]
    entries = [heard("ann.0", 0, 1150, 1500), heard("ann.1", 2000, 2850, 3400)]
    for (_, event), total in zip(entries, (480, 390), strict=True):
        event |= {"is_final": True, "latency_ms": {"endpoint": 320, "queue": 10, "text": 50, "total": total}}
    result = latency.figures([Heard(tuple(entries), tuple(REPORTS))], lines)
    assert result["end_to_event_ms"] == {"n": 2, "p50": 450.0, "p95": 495.0, "max": 500.0}
    assert result["after_endpoint_ms"]["max"] == 160.0
    assert result["endpoint_delay_ms"]["max"] == 340.0
    assert result["endpoint_delay_ms"]["histogram"]["counts"][3] == 2
    assert list(result["stages_ms"]) == ["endpoint", "queue", "text", "total"]
    assert result["stages_ms"]["text"]["p50"] == 50.0
    assert (result["utterances"], result["cut_early"], result["cut_early_pct"]) == (2, 1, 50.0)


def test_latency_of_nothing_has_no_figures() -> None:
    result = latency.figures([Heard((), tuple(REPORTS))], [Line("ann", 0, 1)])
    assert result["end_to_event_ms"]["p50"] is None and result["cut_early_pct"] is None


def test_speech_without_truth_is_refused() -> None:
    with pytest.raises(SettingsError, match="--truth"):
        latency.speech([DEMO / "anna.opus"], None, None)
    with pytest.raises(SettingsError, match="Name the files"):
        latency.speech([], [DEMO / "anna.captions.json"], None)
    assert len(latency.speech([], None, None).lines) == 16
    said = latency.speech([DEMO / "anna.opus"], [DEMO / "anna.captions.json"], None)
    assert said.truth == "times of the captions" and {line.speaker for line in said.lines} == {"anna"}


# ---- load --------------------------------------------------------------------------------------------


def test_words_of_a_loop_that_begins_in_its_middle() -> None:
    captions = (Caption(1, 2, "one"), Caption(4, 6, "two"), Caption(8, 9, "three"))
    assert words_from(captions, 5, 10, 8) == [Caption(3, 4, "three"), Caption(6, 7, "one")]
    assert words_from(captions, 0, 10, 30)[3:5] == [Caption(11, 12, "one"), Caption(14, 16, "two")]
    assert [caption.text for caption in words_from(captions, 25, 10, 10)] == ["three", "one"]


def test_a_plan_is_read_as_it_was_written(tmp_path: Path) -> None:
    member = Member("p0", "load-0", "a.opus", (Caption(0, 1, "hi", "en"),), True, 7.3, 0.01)
    plan = Plan("http://127.0.0.1:1/whip", 100, 60, "v.ivf", 30, (member,))
    write_plan(plan, tmp_path / "plan.json")
    assert read_plan(tmp_path / "plan.json") == plan


def test_the_load_is_shared_out_whole(tmp_path: Path) -> None:
    asked = load.Asked(audio=43, video=2, seconds=3, fps=10)
    plans = [read_plan(path) for path in load.plan(asked, "http://127.0.0.1:1/whip", tmp_path)]
    members = [member for plan in plans for member in plan.members]
    assert len(plans) == 3 and len({member.name for member in members}) == 45
    assert sum(member.pictures for member in members) == 2
    rooms = [member.room for member in members]
    assert max(rooms.count(room) for room in rooms) == 2
    assert plans[0].video and len(read_pictures(Path(plans[0].video), 10).packets) == 40
    assert {(plan.audio_frames, plan.video_frames) for plan in plans} == {(150, 31)}


GOOD: dict[str, Any] = {
    "frames_expected": 100, "frames_dropped": 0, "video_expected": 30, "video_received": 30,
    "pictures_dropped": 0, "players_late_p99_ms": 9.0, "participants_lost": 0, "others_share": 0.3,
}  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, "met"),
        ({"frames_dropped": 1, "others_share": 0.0}, "missed: 1 of 100 audio frames and 0 of 30 video"),
        (
            {"video_received": 28, "pictures_dropped": 1, "others_share": 0.0},
            "missed: 0 of 100 audio frames and 3",
        ),
        ({"participants_lost": 1, "others_share": 0.0}, "missed"),
        ({"frames_dropped": 1}, "void: 1 of 100 audio frames"),
        ({"frames_dropped": 1, "players_late_p99_ms": 250.0}, "void"),
    ],
)
def test_verdict(changed: dict[str, Any], expected: str) -> None:
    assert load.verdict(GOOD | changed).startswith(expected)


METRICS = """\
# TYPE cmath_stream_frames_received_total counter
cmath_stream_frames_received_total{kind="audio"} 199.0
# TYPE cmath_stream_frames_dropped_total counter
cmath_stream_frames_dropped_total{kind="audio",reason="queue_full"} 2.0
cmath_stream_frames_dropped_total{kind="audio",reason="trimmed"} 5.0
# TYPE cmath_stream_utterances_total counter
cmath_stream_utterances_total{outcome="segmented"} 8.0
# TYPE cmath_stream_event_loop_lag_seconds histogram
cmath_stream_event_loop_lag_seconds_bucket{le="0.001"} 90.0
cmath_stream_event_loop_lag_seconds_bucket{le="0.01"} 100.0
cmath_stream_event_loop_lag_seconds_bucket{le="+Inf"} 100.0
cmath_stream_event_loop_lag_seconds_count 100.0
cmath_stream_event_loop_lag_seconds_sum 0.1
# TYPE foreign gauge
foreign 1.0
"""


def test_load_figures_come_from_the_counters_of_the_ingest() -> None:
    start = Snapshot(10.0, 1.0, 5.0, 100.0, {})
    end = Snapshot(12.0, 1.5, 5.6, 120.0, parse(METRICS))
    asked = load.Asked(audio=2, seconds=2)
    result = load.figures(asked, load.Seen(1.0, start, end, end, (Played(208, 0, 0, 3.0),), ()))
    assert (result["frames_expected"], result["frames_received"], result["frames_dropped"]) == (200, 199, 3)
    assert (result["frames_trimmed"], result["cpu_share"], result["rss_mb"]) == (5, 0.25, 120.0)
    assert (result["others_share"], result["participants_lost"]) == (0.05, 0)
    assert (result["utterances_per_s"], result["emotions_per_s"]) == (4.0, None)
    assert (result["loop_lag_p50_ms"], result["loop_lag_p99_ms"]) == (0.6, 9.1)
    assert result["verdict"].startswith("missed: 3 of 200")
    late = replace(end, samples={})
    assert quantile_between(late, late, "event_loop_lag_seconds", 0.5) is None
    emotion = {"type": "emotion.utterance", "revision": 0, "latency_ms": {"total": 500}}
    events = ({"type": "utterance.started"}, emotion, {**emotion, "revision": 1})
    result = load.figures(asked, load.Seen(1.0, start, end, end, (Played(208, 0, 0, 3.0),), events))
    assert (result["utterances_begun"], result["emotions"], result["emotions_per_s"]) == (1, 1, 0.5)
    assert result["latency_ms"]["p50"] == 500.0


# ---- packets -----------------------------------------------------------------------------------------


def test_only_opus_of_20_ms_is_played_as_it_is(tmp_path: Path) -> None:
    sound = read_sound(DEMO / "anna.opus")
    duration_s = Recording.open(DEMO / "anna.opus").duration_s
    assert duration_s is not None and sound.duration_s == pytest.approx(duration_s, abs=0.05)
    _write_wav(tmp_path / "a.wav", np.zeros(16_000, np.int16))
    with pytest.raises(MediaError, match="not Opus"):
        read_sound(tmp_path / "a.wav")


async def test_packets_are_heard_and_seen_and_counted(tmp_path: Path) -> None:
    write_pictures(tmp_path / "v.ivf", 15)
    clock = SendClock()
    sound = PlayedPackets(read_sound(DEMO / "anna.opus"), 50, clock, first=40)  # she speaks from 0.6 s on
    pictures = PlayedPackets(read_pictures(tmp_path / "v.ivf", 15), 15 + 1, clock)
    before = parse(telemetry.render().decode())
    rooms = FakeRooms()
    async with serving(rooms) as url:
        async with calling(endpoint(f"{url}/whip/room", "ann"), [sound, pictures], None) as line:
            clock.start()
            await play(sound, line, [Caption(0.1, 0.4, "hi")], clock)
            await rooms.until(lambda: len(rooms.seats[0].pictures) >= 4)
    (seat,) = rooms.seats
    assert seat.left == "hangup" and [caption.text for caption in seat.captions] == ["hi"]
    start_s, pcm = seat.sound()
    assert len(pcm) / SAMPLE_RATE_HZ == pytest.approx(1.0, abs=0.1) and np.abs(pcm).max() > 0.05
    after = parse(telemetry.render().decode())
    gained = {key: value - before.get(key, 0.0) for key, value in after.items()}
    assert gained["frames_received_total", frozenset({("kind", "audio")})] == 50
    assert gained["frames_received_total", frozenset({("kind", "video")})] == 15
    assert gained["pictures_kept_total", frozenset()] == len(seat.pictures)
    assert gained["audio_missing_seconds_total", frozenset()] == pytest.approx(0, abs=0.001)


def test_where_a_call_goes_is_checked() -> None:
    assert endpoint("http://h/whip/r", "ann") == URL("http://h/whip/r?participant=ann")


# ---- the commands ------------------------------------------------------------------------------------


def run(*arguments: str) -> list[str]:
    finished = subprocess.run(
        [sys.executable, "-m", "cmath_stream", "bench", *arguments],
        capture_output=True, text=True, timeout=110,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr
    return finished.stdout.splitlines()


@pytest.mark.alone
@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the load is measured by /proc")
def test_a_tiny_load(tmp_path: Path) -> None:
    (line,) = run("load", "--audio", "1", "--video", "1", "--fps", "10", "--seconds", "3", "--json",
                  "--out", str(tmp_path / "new" / "load.json"))  # fmt: skip
    result = json.loads(line)
    assert result == json.loads((tmp_path / "new" / "load.json").read_text())
    assert (result["participants"], result["frames_expected"], result["video_expected"]) == (2, 300, 30)
    assert 270 <= result["frames_received"] <= 300 and 27 <= result["video_received"] <= 30
    missing = result["frames_expected"] - result["frames_received"]
    assert result["frames_dropped"] == missing + sum(result["dropped_for"].values())
    assert result["participants_lost"] == 0 and result["pictures_kept"] >= 10
    assert 0 < result["cpu_share"] <= 1.5 and result["rss_mb"] > 20 and result["loop_lag_p99_ms"] > 0


@pytest.mark.alone
@pytest.mark.slow
def test_a_tiny_call_is_timed(tmp_path: Path) -> None:
    spoken = np.concatenate([chunk.pcm for chunk in Recording.open(DEMO / "anna.opus").audio()])
    _write_wav(tmp_path / "anna.wav", (spoken[: 3 * SAMPLE_RATE_HZ] * 32767).astype(np.int16))
    words = tmp_path / "anna.stm"
    words.write_text("demo 1 anna 0.600 2.665 Hi Ben. The mail came this morning.\n")
    *table, last = run("latency", str(tmp_path / "anna.wav"), "--captions", str(words), "--truth", str(words))
    result = json.loads(last)
    assert (result["utterances"], result["lines"], result["cut_early"]) == (1, 1, 0)
    assert result["truth"] == "anna.stm" and result["end_to_event_ms"]["n"] == 1
    assert 200 < result["end_to_event_ms"]["p50"] < 20_000
    assert any("end of speech to event" in row for row in table)


def test_a_load_of_nobody_is_wrong_usage() -> None:
    finished = subprocess.run(
        [sys.executable, "-m", "cmath_stream", "bench", "load", "--audio", "0"],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert finished.returncode == 2 and "nobody" in finished.stderr


def _write_wav(path: Path, pcm: np.ndarray[Any, np.dtype[np.int16]]) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE_HZ)
        file.writeframes(pcm.tobytes())
