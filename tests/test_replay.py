"""Offline replay: the same bytes twice, every utterance one final event, words to the right speaker."""

from __future__ import annotations

import json
import wave
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import av
import jsonschema
import numpy as np
import pytest

from cmath_stream import events
from cmath_stream.events import Event, to_json
from cmath_stream.inputs import channels, sources
from cmath_stream.replay import Replay, _answers
from realtime.errors import MediaError
from realtime.messages import Answer, FeaturesMissing, Job, Modality, Transcript
from realtime.recording import Recording
from tests.conftest import make_segment
from tests.machines import tiny_replay

DEMO = Path("cmath_stream/demo")
VALID = jsonschema.Draft202012Validator(events.schema(), format_checker=jsonschema.FormatChecker())


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Replay:
    return tiny_replay(tmp_path_factory.mktemp("tiny"))


def play(machine: Replay, names: Sequence[str] = ("anna", "ben")) -> list[Event]:
    people = sources([DEMO / f"{n}.opus" for n in names], [DEMO / f"{n}.captions.json" for n in names], None)
    told = list(machine.run(people, lambda _: None))
    for event in told:
        VALID.validate(event)
    return told


def test_the_demo_gives_every_line_its_words_and_one_final_event(machine: Replay) -> None:
    told = play(machine)
    script = json.loads((DEMO / "script.json").read_text("utf-8"))
    emotions = [e for e in told if e["type"] == "emotion.utterance"]
    said = sorted((e["participant_id"], e["text"]) for e in emotions)
    assert said == sorted((line["speaker"], line["text"]) for line in script)
    assert all(e["is_final"] and e["revision"] == 0 for e in emotions)
    order = [(e["end_ms"], e["participant_id"]) for e in emotions]
    assert order == sorted(order) and [e["index"] for e in emotions] == list(range(len(script)))
    assert told[-1]["totals"] == {"started": 16, "emotions": 16, "dropped": 0}
    assert [e["seq"] for e in told] == list(range(1, len(told) + 1))


def test_utterances_begin_and_end_where_the_script_says(machine: Replay) -> None:
    script = json.loads((DEMO / "script.json").read_text("utf-8"))
    by_text = {e["text"]: e for e in play(machine) if e["type"] == "emotion.utterance"}
    for line in script:
        event = by_text[line["text"]]
        assert event["start_ms"] == pytest.approx(line["start_ms"], abs=300)
        assert event["end_ms"] == pytest.approx(line["end_ms"], abs=300)


def test_twice_the_same_bytes_and_nothing_of_the_clock(machine: Replay) -> None:
    first, second = ([to_json(e) for e in play(machine)] for _ in range(2))
    assert first == second
    assert not any("latency_ms" in line or "started_at" in line for line in first)


def test_other_input_is_another_session(machine: Replay) -> None:
    assert play(machine)[0]["session_id"] != play(machine, ["anna"])[0]["session_id"]


def test_a_hole_in_one_recording_cuts_nobody_else(machine: Replay, tmp_path: Path) -> None:
    spoken = np.concatenate([chunk.pcm for chunk in Recording.open(DEMO / "ben.opus").audio()])[: 8 * 16_000]
    whole, holed = tmp_path / "ben.mkv", tmp_path / "anna.mkv"
    for path, skip_s in ((whole, 0), (holed, 4)):
        with av.open(str(path), "w") as container:
            stream = container.add_stream("pcm_s16le", rate=16_000, layout="mono")
            for start in range(0, len(spoken), 1600):
                samples = (spoken[start : start + 1600] * 32767).astype(np.int16)[None]
                frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
                frame.sample_rate = 16_000
                frame.pts = start + (skip_s * 16_000 if start >= 16_000 else 0)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    alone = [*machine.run(sources([whole], None, None), lambda _: None)]
    beside = [*machine.run(sources([whole, holed], None, None), lambda _: None)]

    def spans(told: Sequence[Event]) -> list[tuple[int, int]]:
        mine = [e for e in told if e["type"] == "emotion.utterance" and e["participant_id"] == "ben"]
        return [(e["start_ms"], e["end_ms"]) for e in mine]

    assert spans(alone) == spans(beside) != []


def test_captions_find_their_speaker_or_say_that_they_do_not(tmp_path: Path) -> None:
    files = [DEMO / "anna.opus", DEMO / "ben.opus"]
    words = tmp_path / "talk.vtt"
    words.write_text(
        "WEBVTT\n\n00:00.600 --> 00:02.600\n<v Anna>Hi\n\n00:03.200 --> 00:05.200\n<v Ben>Okay\n"
    )
    anna, ben = sources(files, [words], None)
    assert [c.text for c in anna.captions] == ["Hi"] and [c.text for c in ben.captions] == ["Okay"]
    words.write_text("WEBVTT\n\n00:00.600 --> 00:02.600\n<v Carl>Hi\n")
    with pytest.raises(MediaError, match="Carl"):
        sources(files, [words], None)
    with pytest.raises(MediaError, match="two participants"):
        sources([files[0], files[0]], None, None)
    with pytest.raises(MediaError, match="may hold"):
        sources(files[:1], None, ["a b"])


def test_the_channels_of_one_file_are_its_participants(machine: Replay, tmp_path: Path) -> None:
    tracks = [
        np.concatenate([chunk.pcm for chunk in Recording.open(DEMO / f"{name}.opus").audio()])
        for name in ("anna", "ben")
    ]
    call, words = tmp_path / "call.wav", tmp_path / "call.json"
    with wave.open(str(call), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes((np.stack(tracks, 1) * 32767).astype("<i2").tobytes())
    said = [json.loads((DEMO / f"{name}.captions.json").read_text("utf-8")) for name in ("anna", "ben")]
    words.write_text(json.dumps(sum(said, [])), "utf-8")
    told = list(machine.run(channels(call, [words], ["anna", "ben"]), lambda _: None))

    def heard(events: Sequence[Event]) -> list[tuple[str, str]]:
        return [(e["participant_id"], e["text"]) for e in events if e["type"] == "emotion.utterance"]

    assert heard(told) == heard(play(machine))
    with pytest.raises(MediaError, match=r"3 participant names for 1 file of 2 channel\(s\)"):
        channels(call, None, ["anna", "ben", "carl"])


def test_whoever_goes_on_after_a_pause_is_answered_once_for_all_of_it(
    machine: Replay, tmp_path: Path
) -> None:
    spoken = np.concatenate([chunk.pcm for chunk in Recording.open(DEMO / "anna.opus").audio()])
    first = json.loads((DEMO / "script.json").read_text("utf-8"))[0]
    piece = spoken[first["start_ms"] * 16 : first["end_ms"] * 16]
    pause, quiet = np.zeros(round(0.5 * 16_000)), np.zeros(16_000)
    track = np.concatenate([quiet, piece, pause, piece, quiet])
    with wave.open(str(tmp_path / "anna.wav"), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes((track.clip(-1, 1) * 32767).astype("<i2").tobytes())
    told = list(machine.run(sources([tmp_path / "anna.wav"], None, None), lambda _: None))
    (emotion,) = [event for event in told if event["type"] == "emotion.utterance"]
    ends = [event["end_ms"] for event in told if event["type"] == "utterance.ended"]
    assert len(ends) == 2 and emotion["is_final"] and emotion["end_ms"] == ends[1]
    assert told[-1]["totals"] == {"started": 1, "emotions": 1, "dropped": 0}


def test_a_job_that_becomes_one_for_the_recogniser_reaches_no_other_extractor() -> None:
    """An utterance without its caption: live sends its transcript to the text worker alone."""

    class Noting:
        def __init__(self, modality: Modality) -> None:
            self.modality = modality
            self.asked: list[Job] = []

        def extract(self, jobs: Sequence[Job]) -> list[Answer | None]:
            self.asked += jobs
            return [FeaturesMissing(job.session_id, job.utterance_id, self.modality, "x", 0) for job in jobs]

    segment = replace(make_segment("u0"), captions_pending=True)
    transcript = Transcript("s0", "p0", "u0", None, None, 0)
    reaches: dict[Modality, list[bool]] = {
        "text": [False, True],
        "audio": [True, False],
        "visual": [True, False],
    }
    for modality, expected in reaches.items():
        extractor = Noting(modality)
        answers = _answers(extractor, [segment, transcript], [segment, segment])  # type: ignore[arg-type]
        assert [answer is not None for answer in answers] == expected
        assert len(extractor.asked) == 1
