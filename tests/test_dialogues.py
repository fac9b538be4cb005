"""Written dialogues: two layouts, one meaning; and through the whole walk in their own order and time."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from cmath_stream.events import Event
from cmath_stream.replay import Replay
from cmath_stream.sources import dialogues, written
from cmath_stream.sources.clips import Clip, Clips, load_clip
from cmath_stream.sources.dialogues import DialogueError, Spoken, Written
from realtime.errors import MediaError
from realtime.messages import Segment
from tests.machines import tiny_replay

TABLE = """No,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,StartTime,EndTime
1,"Oh my God, he\x92s lost it.",Phoebe,sadness,negative,0,0,4,7,"00:20:57,256","00:21:00,049"
3,No.,Dr. Long,neutral,neutral,1,1,4,7,"00:00:03,5","00:00:04,000"
2,What?,Monica,surprise,negative,1,0,4,7,"00:00:01,927","00:00:03,261"
"""


def test_melds_table_is_read_as_its_json() -> None:
    first, second = dialogues.parse_csv(TABLE)
    assert first == Written(
        "0", (Spoken("Phoebe", "Oh my God, he’s lost it.", 0, "sadness", 1257.256, 1260.049),)
    )
    assert [(each.number, each.speaker, each.start_s) for each in second.utterances] == [
        (0, "Monica", 1.927), (1, "Dr. Long", 3.5),
    ]  # fmt: skip
    record = {
        "dialogue": "0",
        "utterances": [
            {
                "utterance": 0,
                "speaker": "Phoebe",
                "text": "Oh my God, he’s lost it.",
                "emotion": "sadness",
                "start_s": 1257.256,
                "end_s": 1260.049,
            }
        ],
    }
    assert dialogues.parse_jsonl(json.dumps(record)) == [first]
    assert dialogues.parse_csv(
        "\n".join(TABLE.splitlines()[:2]).replace('"00:20:57,256","00:21:00,049"', ",")
    ) == [Written("0", (Spoken("Phoebe", "Oh my God, he’s lost it.", 0, "sadness"),))]


def test_controls_in_names_and_words_are_gone() -> None:
    record = {"dialogue": "\x1b[2J d", "utterances": [{"speaker": "\x9bJo", "text": "a\x07\x1b[31m b\u202e"}]}
    (read,) = dialogues.parse_jsonl(json.dumps(record))
    assert (read.name, read.utterances[0].speaker, read.utterances[0].text) == ("[2J d", "Jo", "a [31m b")


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.jsonl", "", "no dialogues"),
        ("a.jsonl", "\n{", "a.jsonl:2: not a dialogue"),
        ("a.jsonl", "[" * 100_000, "a.jsonl:1: not a dialogue"),
        ("a.jsonl", '{"dialogue": 1, "utterances": [{"text": "x"}]}', "no 'speaker'"),
        ("a.jsonl", '{"dialogue": 1, "utterances": []}', "no utterances"),
        (
            "a.jsonl",
            '{"dialogue": 1, "utterances": [{"speaker": "a", "text": "x", "start_s": -1}]}',
            "-1.0 is no time in seconds",
        ),
        ("a.csv", "Utterance,Speaker\nx,y\n", "no column 'Dialogue_ID'"),
        ("a.csv", "Utterance,Speaker,Dialogue_ID,Utterance_ID\n", "no dialogues"),
        ("a.csv", "Utterance,Speaker,Dialogue_ID,Utterance_ID\nx,y,0,one\n", "a.csv:2: not an utterance"),
        ("a.csv", "Utterance,Speaker,Dialogue_ID,Utterance_ID\nx\n", "a.csv:2: not an utterance"),
        ("a.csv", TABLE.replace("00:20:57,256", "at noon"), "'at noon' is no time like 00:16:16,059"),
    ],
)
def test_what_is_no_dialogue_is_said_with_its_place(tmp_path: Path, name: str, text: str, said: str) -> None:
    path = tmp_path / name
    path.write_text(text, "utf-8")
    with pytest.raises(DialogueError) as raised:
        dialogues.read(path)
    assert said in str(raised.value) and name in str(raised.value) and "\n" not in str(raised.value)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Replay:
    return tiny_replay(tmp_path_factory.mktemp("tiny"))


def told(machine: Replay, dialogue: Written) -> list[Event]:
    session_id = machine.session_id(dialogue)
    return list(machine.tell(session_id, written.messages(session_id, dialogue, machine.config, None)))


def test_every_utterance_is_one_event_in_the_written_order_and_at_its_own_time(machine: Replay) -> None:
    """Even where the times of the source run backwards, as some of MELD's do."""
    dialogue = Written(
        "meld_7",
        (
            Spoken("Dr. Long", "Hello there", 0, None, 1257.0, 1258.5),
            Spoken("Jo", "Hi", 1, None, 1250.0, 1251.0),
            Spoken("Dr. Long", "", 2, None, 1260.0, 1261.0),
            Spoken("Jo", "Bye", 3, None, 1260.5, 1260.25),
        ),
    )
    events = told(machine, dialogue)
    found = [event for event in events if event["type"] == "emotion.utterance"]
    assert [(e["index"], e["participant_id"], e["start_ms"], e["end_ms"], e["text"]) for e in found] == [
        (0, "Dr.-Long", 1_257_000, 1_258_500, "Hello there"),
        (1, "Jo", 1_250_000, 1_251_000, "Hi"),
        (2, "Dr.-Long", 1_260_000, 1_261_000, ""),
        (3, "Jo", 1_260_500, 1_261_500, "Bye"),  # an end before the start is no end
    ]
    assert all(e["modalities"]["audio"] == {"used": False, "reason": "no_audio", "lost_ms": 0} for e in found)
    assert events[0]["room"] == "meld_7" and events[0]["session_id"] == events[-1]["session_id"]
    assert events[-1]["totals"] == {"started": 4, "emotions": 4, "dropped": 0}
    assert told(machine, dialogue) == events


def test_utterances_without_times_follow_each_other(machine: Replay) -> None:
    dialogue = Written("d", (Spoken("a", "one two three four", 0), Spoken("b", "five", 1)))
    found = [event for event in told(machine, dialogue) if event["type"] == "emotion.utterance"]
    assert [(e["start_ms"], e["end_ms"]) for e in found] == [(0, 1400), (1400, 2400)]


def test_a_clip_lies_where_its_utterance_does_and_no_longer(tmp_path: Path) -> None:
    dialogue = Written("d", (Spoken("a", "one", 0, None, 10.0, 11.0), Spoken("a", "two", 1)))
    asked: list[tuple[int, float, float]] = []

    def look(said: Spoken, start_s: float, longest_s: float) -> Clip:
        asked.append((said.number, start_s, longest_s))
        return Clip(np.ones(16_000 * 3 // 2, np.float32), ())

    from realtime.conversation import ConversationConfig

    heard = [m for m in written.messages("s", dialogue, ConversationConfig(), look) if isinstance(m, Segment)]
    assert asked == [(0, 10.0, 1.0), (1, 11.0, 60.0)]
    assert [(m.start_ms, m.end_ms, len(m.pcm), m.text) for m in heard] == [
        (10_000, 11_000, 24_000, "one"), (11_000, 12_500, 24_000, "two"),
    ]  # fmt: skip


def test_clips_are_found_by_melds_names(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "dia3_utt7.mp4").write_bytes(b"x")
    clips = Clips(tmp_path)
    assert clips.find("meld_3", 7) == clips.find("3", 7) == tmp_path / "below" / "dia3_utt7.mp4"
    assert clips.find("meld_33", 7) is clips.find("meld", 7) is None
    with pytest.raises(MediaError, match="is not a folder"):
        Clips(tmp_path / "none")


def test_sound_and_pictures_of_a_clip_end_with_its_utterance(data_dir: Path) -> None:
    clip = load_clip(data_dir / "clips/grid/bbaf2n.mpg", 100.0, 1.25)
    assert len(clip.pcm) == 20_000 and np.abs(clip.pcm).max() > 0.01
    assert 5 <= len(clip.pictures) <= 8
    assert all(100_000 <= picture.at_ms <= 101_250 for picture in clip.pictures)
    whole = load_clip(data_dir / "clips/grid/bbaf2n.mpg", 0.0, 60.0)
    assert 2.5 * 16_000 < len(whole.pcm) < 3.5 * 16_000
