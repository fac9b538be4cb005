"""One track of several people: whose turns, whose words, under which names; and replayed as if apart."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from bench.split_by_rttm import split
from cmath_stream.events import Event
from cmath_stream.inputs import Source, sources
from cmath_stream.replay import Replay
from cmath_stream.scoring import score
from cmath_stream.sources import turns
from cmath_stream.sources.names import distinct, participant_name
from cmath_stream.sources.turns import Marked
from realtime import rttm
from realtime.captions import Captions
from realtime.errors import MediaError
from realtime.messages import Caption
from realtime.rttm import Turn
from tests.machines import tiny_replay
from tests.test_eaf import TEXT as EAF

TRACK = Path("talk.flac")
TURNS = [Turn("s1", 0.5, 1.0), Turn("s2", 0.9, 1.5), Turn("s1", 2.0, 2.5)]


def of(people: Sequence[Source]) -> dict[str, tuple[list[tuple[float, float]], list[str]]]:
    return {
        each.participant_id: (
            [(turn.start_s, turn.end_s) for turn in each.turns or ()],
            [caption.text for caption in each.captions],
        )
        for each in people
    }


def test_the_four_formats_give_turns_and_what_they_have_of_words(tmp_path: Path) -> None:
    files = {
        "talk.rttm": rttm.render("talk", TURNS),
        "talk.vtt": "WEBVTT\n\n00:00.500 --> 00:01.000\n<v s1>Hello\n\n00:00.900 --> 00:01.500\n<v s2>Hi\n"
        "\n00:02.000 --> 00:02.500\n<v s1>Bye\n",
        "talk.stm": "talk 1 s1 0.5 1.0 Hello\ntalk 1 s2 0.9 1.5 Hi\ntalk 1 s1 2.0 2.5 Bye\n",
    }
    words = {"s1": ["Hello", "Bye"], "s2": ["Hi"]}
    for name, text in files.items():
        path = tmp_path / name
        path.write_text(text, "utf-8")
        found = turns.read(path, "talk")
        assert [*found.turns] == TURNS, name
        said = {speaker: [c.text for c in captions] for speaker, captions in found.words.items()}
        assert said == ({} if name.endswith("rttm") else words)
    (tmp_path / "talk.eaf").write_text(EAF, "utf-8")
    found = turns.read(tmp_path / "talk.eaf", "talk")
    assert [(t.speaker, t.start_s, t.end_s) for t in found.turns] == [
        ("Ben", 0.5, 0.9), ("Anna Müller", 1.0, 2.5), ("Anna Müller", 2.5, 4.0),
    ]  # fmt: skip
    assert {name: [c.text for c in said] for name, said in found.words.items()} == {
        "Ben": ["Hi & bye"], "Anna Müller": ["Well, hello."],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("talk.txt", "", "turns must be one of .rttm, .vtt, .eaf, .stm"),
        ("talk.vtt", "WEBVTT\n\n00:01.000 --> 00:02.000\nHello\n", "1 captions name no speaker"),
        ("talk.vtt", "WEBVTT\n", "no turns in it"),
        ("talk.eaf", "<a/>", "not an ELAN file"),
        ("talk.rttm", "SPEAKER one 1 0 1 <NA> <NA> a\nSPEAKER two 1 0 1 <NA> <NA> a\n", "it knows: one, two"),
        ("talk.stm", "one 1 a 0 1 Hi\ntwo 1 a 0 1 Hi\n", "it knows: one, two"),
    ],
)
def test_what_gives_no_turns_is_said(tmp_path: Path, name: str, text: str, said: str) -> None:
    path = tmp_path / name
    path.write_text(text, "utf-8")
    with pytest.raises(MediaError) as raised:
        turns.read(path, "talk")
    assert said in str(raised.value) and name in str(raised.value)


def test_an_stm_of_several_recordings_gives_that_one(tmp_path: Path) -> None:
    path = tmp_path / "all.stm"
    path.write_text("one 1 a 0 1 Hi\ntalk 1 b 2 3 Bye\n", "utf-8")
    assert [*turns.read(path, "talk").turns] == [Turn("b", 2.0, 3.0)]


def test_people_keep_their_names_as_far_as_they_may() -> None:
    assert participant_name("MÉO069") == "MÉO069" and participant_name("李雷") == "李雷"
    assert (
        participant_name("Dr. Long") == "Dr.-Long"
        and participant_name("['Monica Geller']") == "Monica-Geller"
    )
    assert (
        participant_name("\x1b[31mroot\x07\u202e") == "31mroot" and participant_name(" !? ") == "participant"
    )
    assert distinct(["a b", "a-b", "c", "a b", "a/b"]) == {
        "a b": "a-b",
        "a-b": "a-b-2",
        "c": "c",
        "a/b": "a-b-3",
    }
    long = distinct(["x" * 99, "x" * 98])
    assert [len(name) for name in long.values()] == [64, 62]


def test_words_go_to_whose_turn_it_is_and_names_win_over_numbers() -> None:
    words: Captions = {
        "Anna": [Caption(0.4, 1.1, "Hello"), Caption(2.0, 2.4, "Bye")],
        "Ben": [Caption(1.0, 1.4, "Hi")],
    }
    found = turns.shared(TRACK, Marked(TURNS), words)
    assert of(found.sources) == {
        "Anna": ([(0.5, 1.0), (2.0, 2.5)], ["Hello", "Bye"]),
        "Ben": ([(0.9, 1.5)], ["Hi"]),
    }
    assert sorted(found.notes) == [
        "0.1 s where turns overlap: each of them hears the others there too",
        "s1 is Anna, by whose turns the words are",
        "s2 is Ben, by whose turns the words are",
    ]
    nameless = turns.shared(TRACK, Marked(TURNS), {None: [*words["Anna"], *words["Ben"]]})
    assert of(nameless.sources) == {
        "s1": ([(0.5, 1.0), (2.0, 2.5)], ["Hello", "Bye"]),
        "s2": ([(0.9, 1.5)], ["Hi"]),
    }
    own = turns.shared(TRACK, Marked(TURNS, {"S2": [Caption(0.9, 1.5, "Hi")]}))
    assert of(own.sources)["s2"][1] == ["Hi"]  # the case of a name is no other name
    with pytest.raises(MediaError, match="words of 'Carl' fit none of the speakers of the turns: s1, s2"):
        turns.shared(TRACK, Marked(TURNS), words | {"Carl": [Caption(1.0, 1.2, "Who?")]})


def test_overlap_is_counted_between_people_and_not_within_one() -> None:
    twice = [Turn("a", 0.0, 2.0), Turn("a", 1.0, 3.0), Turn("b", 4.0, 5.0)]
    assert turns.shared(TRACK, Marked(twice)).notes == []
    three = [Turn("a", 0.0, 4.0), Turn("b", 1.0, 3.0), Turn("c", 2.0, 5.0)]
    (note,) = turns.shared(TRACK, Marked(three)).notes
    assert note.startswith("3.0 s where turns overlap")


def test_a_mix_with_turns_is_heard_as_its_tracks_would_be(data_dir: Path, tmp_path: Path) -> None:
    """The words and bounds of every utterance are those of a replay of one file a speaker."""
    call = data_dir / "clips/two_person_call"
    machine: Replay = tiny_replay(tmp_path)
    marked = turns.read(call / "sample.rttm", "sample")
    mixed = turns.shared(call / "sample.flac", marked, turns.read(call / "sample.stm", "sample").words)
    tracks = split(call / "sample.flac", call / "sample.rttm", tmp_path / "tracks", call / "sample.stm")
    apart = sources([t.path for t in tracks], [t.captions_path for t in tracks if t.captions_path], None)

    def said(people: Sequence[Source]) -> list[tuple[str, int, int, str | None]]:
        told: list[Event] = list(machine.run(people, lambda _: None))
        found = [event for event in told if event["type"] == "emotion.utterance"]
        return [(e["participant_id"], e["start_ms"], e["end_ms"], e.get("text")) for e in found]

    together = said(mixed.sources)
    assert together == said(apart) and len(together) == 9
    heard = [Turn(pid, start_ms / 1000, end_ms / 1000) for pid, start_ms, end_ms, _ in together]
    names = {"speaker90": "Diane", "speaker91": "Sheila"}
    found = score(heard, [Turn(names[t.speaker], t.start_s, t.end_s) for t in marked.turns])
    assert found.coverage > 0.9 and found.non_speech < 0.15
