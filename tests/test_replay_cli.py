"""`cmath-stream replay` as a user meets it: what is one conversation, what is many, and what goes wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from typer.testing import CliRunner

from cmath_stream import offline
from cmath_stream.cli import app
from cmath_stream.events import Event
from realtime.recording import Recording
from tests.machines import tiny_replay
from tests.replay_files import write_wav
from tests.test_cli import one_line, run

DEMO = Path("cmath_stream/demo")
Quickly = Callable[..., Any]  # the command's words → what click says of it
WORDS = {"CMATH_STREAM__TEXT__WHISPER": "none"}


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    """The first sentence of the demo, 4 s."""
    return np.concatenate([chunk.pcm for chunk in Recording.open(DEMO / "anna.opus").audio()])[: 4 * 16_000]


@pytest.fixture
def quickly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Quickly:
    """The command in this process, with the tiny model: seconds less, and no meaning."""
    machine = tiny_replay(tmp_path)
    monkeypatch.setattr(offline, "build", lambda settings: machine)
    return lambda *arguments, **more: CliRunner().invoke(app, list(map(str, arguments)), **more)


def events(path: Path) -> list[Event]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def emotions(path: Path) -> list[Event]:
    return [event for event in events(path) if event["type"] == "emotion.utterance"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, speech: np.ndarray) -> Iterator[Path]:
    """Recordings as a folder of an analyst may hold them: two that are well, and all that goes wrong."""
    made = tmp_path_factory.mktemp("recordings")
    (made / "below").mkdir()
    write_wav(made / "good.wav", speech)
    write_wav(made / "below" / "good.wav", speech)
    os.replace(write_wav(made / "really-a.wav", speech), made / "really-a.mp3")
    whole = write_wav(made / "cut.wav", np.tile(speech, 2)).read_bytes()
    (made / "cut.wav").write_bytes(whole[: len(whole) * 2 // 3])
    (made / "empty.wav").write_bytes(b"")
    (made / "text.mp4").write_bytes(b"no film at all\n" * 99)
    (made / "notes.txt").write_text("not looked at")
    write_wav(made / "evil\x1b[31m\x9b2J.wav", speech[:800])
    with av.open(str(made / "mute.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=5)
        stream.width = stream.height = 64
        for _ in range(5):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8))))
        container.mux(stream.encode(None))
    yield made


@pytest.mark.slow
def test_each_recording_of_a_folder_has_a_file_and_a_line(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    labels = tmp_path / "labels.csv"
    labels.write_text("file,start_ms,end_ms,emotion\ngood.wav,500,3000,joy\nbelow/good.wav,0,4000,fear\n")
    result = run(
        "replay", "--each", str(folder), "--out", str(out), "--gold", str(labels), environ=WORDS
    )  # fmt: skip
    assert result.returncode == 1, result.stderr
    score = json.loads(result.stdout.splitlines()[-1])
    assert (score["n"], score["missed"]) == (2, 0) and (out / "confusion.png").is_file()
    lines = result.stdout.splitlines()
    title = next(place for place, line in enumerate(lines) if line.startswith("replay: live-small"))
    rows = dict(line.split("  ", 1) for line in lines[:title])
    rows = {name: " ".join(rest.split()) for name, rest in rows.items()}
    assert rows["good.wav"] == rows["below/good.wav"] == rows["really-a.mp3"] == "1 utterances"
    assert rows["cut.wav"].startswith("1 utterances") or rows["cut.wav"].startswith("2 utterances")
    assert "the file was cut" in rows["cut.wav"]
    assert rows["empty.wav"].startswith("FAILED") and "is empty" in rows["empty.wav"]
    assert "is not a media file that FFmpeg reads" in rows["text.mp4"]
    assert "has no audio" in rows["mute.mp4"]
    assert len(rows) == 8
    assert "5 replayed, 3 failed" in result.stderr
    failures = [line for line in result.stderr.splitlines() if line.startswith("failed: ")]
    assert [line.split(": ")[1] for line in failures] == ["empty.wav", "mute.mp4", "text.mp4"]
    for text in (result.stdout, result.stderr):
        assert "\x1b" not in text and "\x9b" not in text
    written = sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())
    written.remove("confusion.png")
    assert len(written) == 5 and not any(name.endswith(".partial") for name in written)
    assert "below/good.wav.jsonl" in written
    told = events(out / "good.wav.jsonl")
    assert told[0]["room"] == "good.wav" and told[-1]["type"] == "session.closed"
    assert told[0]["session_id"] != events(out / "below/good.wav.jsonl")[0]["session_id"]


@pytest.mark.slow
def test_what_is_finished_is_not_done_again(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "good.wav.jsonl").write_text("finished earlier\n")
    (out / "really-a.mp3.jsonl.partial").write_text("killed on the way\n")
    files = [str(folder / name) for name in ("good.wav", "really-a.mp3")]
    result = run("replay", "--each", *files, "--out", str(out), environ=WORDS)
    assert result.returncode == 0, result.stderr
    assert "1 replayed, 1 there already (--again redoes them), 0 failed" in result.stderr
    assert (out / "good.wav.jsonl").read_text() == "finished earlier\n"
    assert len(emotions(out / "really-a.mp3.jsonl")) == 1
    assert not list(out.glob("*.partial"))
    result = run("replay", "--each", *files, "--out", str(out), "--again", environ=WORDS)
    assert result.returncode == 0 and "2 replayed, 0 failed" in result.stderr
    assert len(emotions(out / "good.wav.jsonl")) == 1


@pytest.mark.slow
def test_a_batch_that_was_killed_goes_on_with_the_same_bytes(speech: np.ndarray, tmp_path: Path) -> None:
    inputs = tmp_path / "inputs"
    inputs.mkdir()
    for number in range(6):
        write_wav(inputs / f"{number}.wav", np.tile(speech, 12) * (0.5 + number / 10))
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert run("replay", "--each", str(inputs), "--out", str(whole), environ=WORDS).returncode == 0
    command = [sys.executable, "-m", "cmath_stream", "replay", "--each", str(inputs), "--out", str(killed)]
    process = subprocess.Popen(command, env={**os.environ, **WORDS}, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 60
    while not list(killed.glob("*.jsonl")) and time.monotonic() < until:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    finished = {path.name: path.stat().st_mtime_ns for path in killed.glob("*.jsonl")}
    assert 1 <= len(finished) < 6
    result = run("replay", "--each", str(inputs), "--out", str(killed), environ=WORDS)
    assert result.returncode == 0 and f"{len(finished)} there already" in result.stderr
    for path in whole.iterdir():
        assert (killed / path.name).read_bytes() == path.read_bytes()
    assert all((killed / name).stat().st_mtime_ns == at for name, at in finished.items())
    assert sorted(p.name for p in killed.iterdir()) == sorted(p.name for p in whole.iterdir())


def test_dialogues_are_conversations_in_one_file(quickly: Quickly, tmp_path: Path) -> None:
    lines = [
        {
            "dialogue": f"d{number}",
            "utterances": [
                {"speaker": "Dr. Long", "text": "I am so happy!", "start_s": 10.0, "end_s": 11.0},
                {"speaker": "Jo", "text": "Leave me alone!"},
            ],
        }
        for number in range(2)
    ]
    path, out = tmp_path / "talk.jsonl", tmp_path / "events.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    result = quickly("replay", path, "--out", out)
    assert result.exit_code == 0, result.output
    assert "note: 2 of 4 utterances have no times" in result.stderr
    assert "4 utterances of 2 conversations" in result.stderr
    assert [e["room"] for e in events(out) if e["type"] == "session.started"] == ["d0", "d1"]
    said = [(e["participant_id"], e["start_ms"], e["text"]) for e in emotions(out)]
    assert said[:2] == said[2:] and said[0] == ("Dr.-Long", 10_000, "I am so happy!")


def test_dialogues_take_sound_from_their_clips_where_they_have_them(
    quickly: Quickly, speech: np.ndarray, tmp_path: Path
) -> None:
    clips, talk, out = tmp_path / "clips", tmp_path / "talk.jsonl", tmp_path / "events.jsonl"
    clips.mkdir()
    write_wav(clips / "dia3_utt0.wav", speech)
    (clips / "dia3_utt2.mp4").write_bytes(b"no film")
    said = [
        {"speaker": "a", "text": f"line {n}", "start_s": 10.0 * n, "end_s": 10.0 * n + 2} for n in range(3)
    ]
    talk.write_text(json.dumps({"dialogue": "meld_3", "utterances": said}))
    result = quickly("replay", talk, "--media-dir", clips, "--out", out)
    assert result.exit_code == 0, result.output
    heard = [(e["start_ms"], e["end_ms"], e["modalities"]["audio"]["used"]) for e in emotions(out)]
    assert heard == [(0, 2000, True), (10_000, 12_000, False), (20_000, 22_000, False)]
    assert "note: 1 of 3 utterances have no clip: words alone" in result.stderr
    assert "note: words alone: " in result.stderr and "dia3_utt2.mp4 is not a media file" in result.stderr
    before = events(out)[0]["session_id"]
    write_wav(clips / "dia3_utt0.wav", speech[8_000:])
    quickly("replay", talk, "--media-dir", clips, "--out", out)
    assert events(out)[0]["session_id"] != before  # another clip is another input


@pytest.mark.parametrize(
    ("arguments", "option", "said"),
    [
        (("--each", "a.wav"), "--out", "name a folder"),
        (("--each", "none-*.wav", "--out", "o"), "INPUTS", "nothing is called none-*.wav"),
        (("--each", "nothing.wav", "--out", "o"), "INPUTS", "nothing is called nothing.wav"),
        (("--each", "a.wav", "--out", "o", "--participant", "x"), "--participant", "not with --each"),
        (("--each", "a.wav", "--out", "o", "--captions", "a.wav"), "--captions", "folders of captions"),
        (("--each", "a.wav", "--out", "o", "--jobs", "0"), "--jobs", "greater than or equal to 1"),
        (("--each", "empty", "--out", "o"), "INPUTS", "no recordings there"),
        (("a.wav", "--jobs", "2"), "--jobs", "add --each"),
        (("a.wav", "--again"), "--again", "add --each"),
        (("--each", "-", "--out", "o"), "INPUTS", "nothing is called -"),
        (("a.wav", "a.wav"), "INPUTS", "the same file twice"),
        (("--each", "a.wav", "--out", "o", "--speed", "1"), "--speed", "not with --each"),
        (("--each", "a.wav", "--out", "o", "--to", "redis"), "--to", "not with --each"),
        (("a.wav", "--speakers", "9"), "--speakers", "neither a number from 1 to 8 nor auto"),
        (("a.wav", "--speakers", "2", "--turns", "x.rttm"), "--speakers", "would guess what --turns knows"),
        (("a.wav", "b.wav", "--speakers", "auto"), "--speakers", "people of one recording"),
        (("d.jsonl", "--speakers", "auto"), "--speakers", "its own words and speakers"),
        (("empty",), "INPUTS", "--each replays every recording in it"),
        (("a.wav", "d.jsonl"), "INPUTS", "an input by itself"),
        (("d.jsonl", "--captions", "x.vtt"), "--captions", "its own words"),
        (("a.wav", "--media-dir", "empty"), "--media-dir", "clips of written dialogues"),
        (("a.wav", "b.wav", "--turns", "x.rttm"), "--turns", "people of one recording"),
    ],
)
def test_wrong_usage_says_which_option_and_ends_with_two(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], option: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.wav").write_bytes(b"x")
    (tmp_path / "d.jsonl").write_bytes(b"x")
    (tmp_path / "empty").mkdir()
    result = CliRunner().invoke(app, ["replay", *arguments])
    assert result.exit_code == 2
    shown = " ".join(result.output.replace("│", " ").split())
    assert option in shown and said in shown


def test_turns_and_words_of_a_mix_through_the_command(
    quickly: Quickly, data_dir: Path, tmp_path: Path
) -> None:
    call, out = data_dir / "clips/two_person_call", tmp_path / "events.jsonl"
    result = quickly("replay", call / "sample.flac", "--turns", call / "sample.stm", "--out", out)
    assert result.exit_code == 0, result.output
    assert {e["participant_id"] for e in emotions(out)} == {"Diane", "Sheila"}
    assert all(e["modalities"]["text"]["used"] and e["modalities"]["audio"]["used"] for e in emotions(out))


def test_turns_that_do_not_know_the_recording_are_said(tmp_path: Path) -> None:
    turns = tmp_path / "x.rttm"
    turns.write_text("SPEAKER one 1 0 1 <NA> <NA> a\nSPEAKER two 1 0 1 <NA> <NA> a\n")
    assert "it knows: one, two" in one_line(run("replay", str(DEMO / "anna.opus"), "--turns", str(turns)))


@pytest.mark.slow
def test_events_reach_a_pipe_though_errors_go_to_a_terminal(speech: np.ndarray, tmp_path: Path) -> None:
    """With a bar on the terminal, standard output is still what the shell made it."""
    import pty

    sound = write_wav(tmp_path / "good.wav", speech)
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "cmath_stream", "replay", str(sound)]
    process = subprocess.Popen(
        command, env={**os.environ, **WORDS, "TERM": "xterm"}, stdout=subprocess.PIPE, stderr=theirs
    )
    os.close(theirs)
    shown = b""
    try:
        while part := os.read(ours, 65536):
            shown += part
    except OSError:  # the end of a terminal
        pass
    assert process.stdout is not None
    told = [json.loads(line) for line in process.stdout.read().splitlines()]
    process.stdout.close()
    assert process.wait() == 0 and told[-1]["type"] == "session.closed"
    os.close(ours)
    assert b"1 utterances" in shown and b"emotion.utterance" not in shown


def test_standard_input_is_replayed_as_a_file_of_its_bytes_would_be(
    quickly: Quickly, speech: np.ndarray, tmp_path: Path
) -> None:
    sound = write_wav(tmp_path / "stdin.wav", speech).read_bytes()
    talk = b'\xef\xbb\xbf\n {"dialogue": "d", "utterances": [{"speaker": "a", "text": "Hello"}]}\n'
    (tmp_path / "talk.jsonl").write_bytes(talk)
    for content, name in ((sound, "stdin.wav"), (talk, "talk.jsonl")):
        piped, named = tmp_path / "piped.jsonl", tmp_path / "named.jsonl"
        assert quickly("replay", tmp_path / name, "--out", named).exit_code == 0
        result = quickly("replay", "-", "--out", piped, input=content)
        assert result.exit_code == 0, result.output
        assert len(emotions(piped)) == 1 and piped.read_bytes() == named.read_bytes()
    assert not list(Path(tempfile.gettempdir()).glob("cmath-stream-*/stdin*"))


def test_what_comes_in_and_is_nothing_is_said_without_a_path(quickly: Quickly) -> None:
    for content, said in (
        (b"", "standard input is empty"),
        (b"no sound" * 99, "standard input is not a media"),
    ):
        assert said in str(quickly("replay", "-", input=content).exception)


def test_at_a_pace_the_bytes_are_the_same(quickly: Quickly, tmp_path: Path) -> None:
    talk = tmp_path / "talk.jsonl"
    said = [
        {"speaker": "a", "text": "one two three", "start_s": 99.0 + n, "end_s": 99.5 + n} for n in range(5)
    ]
    talk.write_text(json.dumps({"dialogue": "d", "utterances": said}))
    plain, slow = tmp_path / "plain.jsonl", tmp_path / "slow.jsonl"
    assert quickly("replay", talk, "--out", plain).exit_code == 0
    began_s = time.monotonic()
    assert quickly("replay", talk, "--out", slow, "--speed", "10").exit_code == 0
    assert time.monotonic() - began_s >= 0.45  # 4.5 s from the first join to the last word
    assert slow.read_bytes() == plain.read_bytes()
