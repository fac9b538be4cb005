"""One track per speaker out of a mix."""

from __future__ import annotations

import json
from pathlib import Path

import av
import numpy as np
import pytest

from bench.split_by_rttm import SpeakerTrack, main, split
from cmath_stream.sources.turns import match_names
from realtime import rttm
from realtime.errors import MediaError
from realtime.messages import Caption, Pcm
from realtime.recording import Recording
from realtime.rttm import Turn

TURNS = [Turn("s1", 0.5, 1.0), Turn("s2", 0.9, 1.5), Turn("s1", 2.0, 2.5)]
STM = "mix A Anna 0.4 1.1 Hello there\nmix A Ben 1.0 1.4 Hi\nmix A Anna 2.0 2.4 Bye\n"


@pytest.fixture
def mix(tmp_path: Path) -> Path:
    """Three seconds of constant 0.5, with its turns and words beside it."""
    path = tmp_path / "mix.wav"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=16_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(
            np.full((1, 48_000), 16_384, np.int16), format="s16", layout="mono"
        )
        frame.sample_rate = 16_000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    path.with_suffix(".rttm").write_text(rttm.render("mix", TURNS), "utf-8")
    path.with_suffix(".stm").write_text(STM, "utf-8")
    return path


def cut(mix: Path, words: bool = True) -> list[SpeakerTrack]:
    stm_path = mix.with_suffix(".stm") if words else None
    return split(mix, mix.with_suffix(".rttm"), mix.parent / "out", stm_path)


def sound(path: Path) -> Pcm:
    return np.concatenate([chunk.pcm for chunk in Recording.open(path).audio()])


def test_the_mix_is_kept_inside_the_turns_and_nothing_outside(mix: Path) -> None:
    anna, ben = cut(mix)
    heard = sound(anna.path)
    assert len(heard) == 48_000
    loud = np.abs(heard) > 0
    expected = np.zeros(48_000, bool)
    expected[8_000:16_000] = expected[32_000:40_000] = True
    np.testing.assert_array_equal(loud, expected)
    np.testing.assert_allclose(heard[8_320:15_680], 0.5, atol=1e-3)
    assert np.abs(np.diff(heard)).max() < 0.005  # no clicks at the edges
    assert np.flatnonzero(sound(ben.path))[0] == round(0.9 * 16_000)


def test_tracks_take_the_names_of_the_words(mix: Path) -> None:
    anna, ben = cut(mix)
    assert (anna.name, anna.path.name) == ("Anna", "Anna.flac")
    assert anna.turns == (Turn("Anna", 0.5, 1.0), Turn("Anna", 2.0, 2.5))
    assert ben.captions_path is not None
    assert json.loads(ben.captions_path.read_text("utf-8")) == [
        {"start_ms": 1000, "end_ms": 1400, "text": "Hi", "speaker": "Ben"}
    ]


def test_without_words_the_turns_name_the_tracks(mix: Path) -> None:
    assert [(track.name, track.captions_path) for track in cut(mix, words=False)] == [
        ("s1", None),
        ("s2", None),
    ]


def test_names_go_to_the_longest_overlap_and_to_nobody_else() -> None:
    words = {
        "Anna": [Caption(0.0, 3.0, "most of s1, some of s2")],
        "Ben": [Caption(0.9, 1.0, "a little of both")],
        "Nobody": [Caption(9.0, 9.5, "elsewhere")],
    }
    assert match_names(TURNS, words) == {"s1": "Anna", "s2": "Ben"}


def test_names_that_are_no_file_names(mix: Path) -> None:
    mix.with_suffix(".rttm").write_text(rttm.render("mix", [Turn("../é/x", 0, 1)]), "utf-8")
    assert [track.path for track in cut(mix, words=False)] == [mix.parent / "out" / "_é_x.flac"]


def test_command_line(mix: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = mix.parent / "tracks"
    assert main([str(mix), str(mix.with_suffix(".rttm")), str(out)]) == 0
    assert "s1.flac: 2 turns, 1.0 s" in capsys.readouterr().out
    assert main([str(mix), str(mix.with_suffix(".none")), str(out)]) == 1
    assert capsys.readouterr().err.startswith("split_by_rttm: cannot read")


def test_unknown_recording_is_refused(mix: Path) -> None:
    text = rttm.render("a", TURNS) + rttm.render("b", TURNS)
    mix.with_suffix(".rttm").write_text(text, "utf-8")
    with pytest.raises(MediaError, match="no turns of recording 'mix'"):
        cut(mix)


def test_real_call_gets_the_names_of_its_transcript(data_dir: Path, tmp_path: Path) -> None:
    call = data_dir / "clips/two_person_call"
    tracks = split(call / "sample.flac", call / "sample.rttm", tmp_path, call / "sample.stm")
    assert [(track.name, track.turns[0].start_s) for track in tracks] == [("Diane", 6.69), ("Sheila", 7.55)]


def test_real_meeting_is_found_by_name_among_many(data_dir: Path, tmp_path: Path) -> None:
    meeting = data_dir / "clips/meeting"
    tracks = split(meeting / "trn04.flac", meeting / "train.rttm", tmp_path)
    assert [(track.name, len(track.turns)) for track in tracks] == [
        ("MEE075", 3),
        ("MEE076", 2),
        ("MEO074", 2),
    ]
