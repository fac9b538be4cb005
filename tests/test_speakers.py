"""Voices in one track told apart, with a doubt that is told too."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from bench.attribution import confusion, demo
from cmath_stream import events
from cmath_stream.offline import Machines
from cmath_stream.replay import Replay
from cmath_stream.replaying.feeds import Asked, open_feed
from cmath_stream.sources.attribution import attribute
from realtime.errors import MediaError
from realtime.rttm import Turn
from realtime.taping import TapeConfig
from tests.machines import tiny_replay
from tests.replay_files import write_wav
from workers.speakers import Heard, hear, tell_apart

VALID = jsonschema.Draft202012Validator(events.schema(), format_checker=jsonschema.FormatChecker())


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Replay:
    return tiny_replay(tmp_path_factory.mktemp("tiny"))


def made(voice: int, seconds: float, start_s: float, seed: int = 0) -> Heard:
    """An utterance whose cepstra are drawn about a voice's own centre."""
    rng = np.random.default_rng([seed, voice, round(start_s * 10)])
    centre = np.random.default_rng([7, voice]).normal(0, 3, 13)
    frames = round(seconds * 62.5)
    return Heard(start_s, centre + rng.normal(0, 1, (frames, 13)), rng.normal(0, 0.5, frames))


def test_voices_that_are_apart_are_told_apart_and_counted() -> None:
    order = [2, 0, 2, 1, 0, 1, 2, 0]
    talk = [made(voice, 2.5, 3.0 * n) for n, voice in enumerate(order)]
    for speakers in (3, None):
        turns = tell_apart(talk, speakers)
        assert [turn.speaker for turn in turns] == [0, 1, 0, 2, 1, 2, 0, 1]  # numbered as they appear
        assert [turn.start_s for turn in turns] == [3.0 * n for n in range(8)]
        assert all(turn.end_s - turn.start_s == pytest.approx(2.5, abs=0.02) for turn in turns)
        assert all(turn.confidence == pytest.approx(0.8, abs=0.01) for turn in turns)


def test_a_border_inside_an_utterance_is_found() -> None:
    first, second = made(0, 3.2, 0.0), made(1, 2.9, 0.0)
    both = Heard(
        10.0, np.vstack([first.cepstra, second.cepstra]), np.concatenate([first.level, second.level])
    )
    turns = tell_apart([both, made(0, 2.0, 20.0), made(1, 2.0, 25.0)], 2)
    assert [turn.speaker for turn in turns] == [0, 1, 0, 1]
    assert turns[0].end_s == turns[1].start_s == pytest.approx(13.2, abs=0.05)


def test_one_voice_is_one_and_a_voice_heard_once_is_doubted() -> None:
    alone = tell_apart([made(0, 2.5, 3.0 * n) for n in range(5)], None)
    assert {turn.speaker for turn in alone} == {0}
    stranger = tell_apart([*(made(0, 2.5, 3.0 * n) for n in range(5)), made(1, 2.0, 20.0)], 2)
    assert [turn.speaker for turn in stranger] == [0] * 5 + [1] and stranger[-1].confidence == 0.5
    assert tell_apart([], 2) == []


def test_a_second_of_it_is_worth_little_memory() -> None:
    heard = hear(np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32), 0.0)
    assert heard.cepstra.nbytes + heard.level.nbytes < 8_000


def test_the_two_of_the_demo_are_told_apart_in_one_track(machine: Replay, tmp_path: Path) -> None:
    talk = demo(tmp_path)
    for speakers in (2, None):
        found = attribute(machine, talk.path, speakers, lambda _: None)
        heard_s, wrong_s = confusion(talk.turns, found.turns)
        assert heard_s > 30 and wrong_s / heard_s < 0.1
        assert "voices told apart by sound alone, which is a guess: mean confidence 0." in found.note


def test_confusion_by_hand() -> None:
    turns = [Turn("a", 0.0, 4.0), Turn("b", 5.0, 7.0)]
    assert confusion(turns, [Turn("x", 5.0, 7.0), Turn("y", 0.0, 4.0)]) == (6.0, 0.0)
    assert confusion(turns, [Turn("x", 0.0, 9.0)]) == (6.0, 2.0)
    assert confusion(turns, [Turn("x", 0.0, 1.0), Turn("y", 1.0, 4.0), Turn("x", 4.0, 7.0)]) == (6.0, 1.0)


def test_events_say_that_a_participant_was_guessed(
    machine: Replay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Machines, "full", machine)
    talk = demo(tmp_path)
    words = tmp_path / "words.json"
    lines = json.loads(Path("cmath_stream/demo/script.json").read_text("utf-8"))
    words.write_text(json.dumps([{k: line[k] for k in ("start_ms", "end_ms", "text")} for line in lines]))
    feed = open_feed(Asked((talk.path,), speakers=2, captions=(words,)), TapeConfig())
    told = list(feed.run(Machines.__new__(Machines), lambda _: None))
    for event in told:
        VALID.validate(event)
    emotions = [event for event in told if event["type"] == "emotion.utterance"]
    assert {event["participant_id"] for event in emotions} == {"voice-1", "voice-2"}
    assert all(event["attribution"]["by"] == "voice" for event in emotions)
    assert all(0.5 <= event["attribution"]["confidence"] <= 0.8 for event in emotions)
    who = {line["text"]: line["speaker"] for line in lines}
    pairs = {(who[e["text"]], e["participant_id"]) for e in emotions if e.get("text") in who}
    assert len(pairs) == 2  # words without a name went to the right voice
    assert "told apart by sound alone" in feed.notes[0]


def test_where_nobody_speaks_there_is_nobody_to_tell_apart(machine: Replay, tmp_path: Path) -> None:
    quiet = write_wav(tmp_path / "quiet.wav", np.zeros(32_000))
    with pytest.raises(MediaError, match="no speech in it"):
        attribute(machine, quiet, 2, lambda _: None)
