"""Captions of every format, and what is said about broken ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from realtime import captions
from realtime.captions import Captions, parse_json, parse_srt, parse_stm, parse_vtt
from realtime.errors import MediaError
from realtime.messages import Caption

VTT = """\ufeffWEBVTT - a call
X-TIMESTAMP-MAP=LOCAL:00:00:00.000

NOTE
made by hand

STYLE
::cue { color: white }

1
00:01.500 --> 00:03.000 align:start
<v Anna>Hello &amp; <i>welcome</i>,
Ben!

01:00:00.000 --> 01:00:02.000
<v.loud Ben Smith>Thanks.</v> <v Anna>Sure.</v>

00:04.000 --> 00:05.000
Nobody says this.
"""


def test_vtt_gives_speakers_plain_words_and_times() -> None:
    assert parse_vtt(VTT) == {
        "Anna": [Caption(1.5, 3.0, "Hello & welcome, Ben!"), Caption(3600.0, 3602.0, "Sure.")],
        "Ben Smith": [Caption(3600.0, 3602.0, "Thanks.")],
        None: [Caption(4.0, 5.0, "Nobody says this.")],
    }


def test_srt_with_and_without_numbers_and_windows_line_ends() -> None:
    text = (
        "1\r\n00:00:01,000 --> 00:00:02,500\r\nFirst\r\nline\r\n\r\n00:00:03,5 --> 00:00:04,000\r\nSecond\r\n"
    )
    assert parse_srt(text) == {None: [Caption(1.0, 2.5, "First line"), Caption(3.5, 4.0, "Second")]}


def test_stm_skips_labels_comments_and_passages_that_nobody_wrote_down() -> None:
    text = (
        ";; a comment\n"
        "call A Sheila 2.0 3.5 <o,f0,female> Hi there\n"
        "call A Diane 0.5 1.0 Hello?\n"
        "call A Diane 4 5 IGNORE_TIME_SEGMENT_IN_SCORING\n"
        "call A Diane 6 7\n"
    )
    assert parse_stm(text) == {
        "Sheila": [Caption(2.0, 3.5, "Hi there")],
        "Diane": [Caption(0.5, 1.0, "Hello?")],
    }


def test_json_takes_milliseconds_or_seconds_and_ignores_other_keys() -> None:
    text = """[
        {"start_s": 2, "end_s": 2.5, "text": "later", "speaker": "ben", "feeling": "joy"},
        {"start_ms": 500, "end_ms": 1500, "text": " two  words ", "speaker": "ben", "language": "en"},
        {"start_ms": 0, "end_ms": 1, "text": "no name", "speaker": null}
    ]"""
    assert parse_json(text) == {
        "ben": [Caption(0.5, 1.5, "two words", "en"), Caption(2.0, 2.5, "later")],
        None: [Caption(0.0, 0.001, "no name")],
    }


@pytest.mark.parametrize(
    ("parse", "text", "where"),
    [
        (parse_vtt, "00:01.000 --> 00:02.000\nHi", "file, line 1: a WebVTT file begins with WEBVTT"),
        (
            parse_vtt,
            "WEBVTT\n\n00:01.000 -> 00:02.000\nHi",
            "file, line 3: a caption without a line of times",
        ),
        (parse_vtt, "WEBVTT\n\n1\n00:61.000 --> 00:02.000\nHi", "file, line 4: bad times"),
        (
            parse_vtt,
            "WEBVTT\n\n00:03.000 --> 00:02.000\nHi",
            "file, line 3: a caption must end after it starts",
        ),
        (parse_srt, "1\n00:00:01,000 -->\nHi", "file, line 2: bad times"),
        (parse_stm, "call A Diane 0.5\n", "file, line 1: a line is: recording"),
        (parse_stm, "\ncall A Diane x 1 Hi\n", "file, line 2: 'x' is not a time"),
        (parse_stm, "call A Diane nan 1 Hi\n", "file, line 1: a caption must end after it starts"),
        (parse_json, "[\n{,}]", "file, line 2: not JSON"),
        (parse_json, "{}", "file: captions are a JSON list"),
        (parse_json, "[3]", "file, item 0: not an object"),
        (parse_json, '[{"end_ms": 1, "text": "a"}]', "file, item 0: neither start_ms nor start_s"),
        (
            parse_json,
            '[{"start_ms": "0", "end_ms": 1, "text": "a"}]',
            "file, item 0: start_ms is not a number",
        ),
        (parse_json, '[{"start_ms": 0, "end_ms": 1}]', "file, item 0: no text"),
        (parse_json, '[{"start_ms": 0, "end_ms": 1, "text": 5}]', "file, item 0: text is not a string"),
    ],
)
def test_malformed_text_is_named_by_file_and_line(
    parse: Callable[[str, str], Captions], text: str, where: str
) -> None:
    with pytest.raises(MediaError) as caught:
        parse(text, "file")
    assert str(caught.value).startswith(where)
    assert "\n" not in str(caught.value)


def test_what_a_terminal_would_obey_is_in_no_caption() -> None:
    evil = "\x1b]0;title\x07 Hi\x9b2J \u202ethere\u2066!"
    plain = [Caption(0.0, 1.0, "]0;title Hi 2J there !")]
    assert parse_json(f'[{{"start_s": 0, "end_s": 1, "text": {json.dumps(evil)}}}]') == {None: plain}
    assert parse_srt(f"1\n00:00:00,000 --> 00:00:01,000\n{evil}\n") == {None: plain}
    joined = "\u0646\u200c\u0645"  # a Persian word is spelled with a joiner
    assert parse_stm(f"x 1 a 0 1 {joined}") == {"a": [Caption(0.0, 1.0, joined)]}


def test_an_stm_of_several_recordings_is_one_of_them_where_it_is_asked_for(tmp_path: Path) -> None:
    text = "one 1 a 0 1 Hi\ntwo 1 a 2 3 Bye\n"
    assert [c.text for c in parse_stm(text)["a"]] == ["Hi", "Bye"]
    assert parse_stm(text, recording="two") == {"a": [Caption(2.0, 3.0, "Bye")]}
    with pytest.raises(MediaError, match="no words of recording 'three'; it knows: one, two"):
        parse_stm(text, "STM", "three")


def test_read_chooses_by_suffix(tmp_path: Path) -> None:
    path = tmp_path / "words.SRT"
    path.write_text("1\n00:00:01,000 --> 00:00:02,000\nHi\n", "utf-8")
    assert captions.read(path) == {None: [Caption(1.0, 2.0, "Hi")]}


@pytest.mark.parametrize("name", ["words.txt", "missing.vtt"])
def test_read_refuses_unknown_and_missing_files(tmp_path: Path, name: str) -> None:
    with pytest.raises(MediaError, match=name):
        captions.read(tmp_path / name)


def test_read_refuses_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "words.vtt"
    path.write_bytes(b"WEBVTT\n\n\xff\xfe")
    with pytest.raises(MediaError, match="cannot read"):
        captions.read(path)


def test_real_transcript(data_dir: Path) -> None:
    said = captions.read(data_dir / "clips/two_person_call/sample.stm")
    assert {name: len(lines) for name, lines in said.items()} == {"Diane": 8, "Sheila": 5}
    assert said["Diane"][0] == Caption(6.68, 7.16, "Hello?")
