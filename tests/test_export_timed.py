"""WebVTT, EAF, EmotionML and RTTM: as other readers see them, corrected by hand, foreign and damaged."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pympi.Elan
import pytest
from hypothesis import HealthCheck, given, settings

from cmath_stream.events import event_id
from cmath_stream.exports import rttm
from cmath_stream.exports.about import About
from cmath_stream.exports.formats import FORMATS
from realtime import captions
from realtime.errors import MediaError
from tests.emotionml_rules import NS, broken
from tests.event_strategies import conversations
from tests.sessions import Event, copied, short_call, utterance

quickly = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
Change = Callable[[str], str]


def rendered(name: str, events: list[Event], media: tuple[str, ...] = ()) -> str:
    file = io.BytesIO()
    FORMATS[name].write(events, file, About("call", media))
    return file.getvalue().decode()


def reading(name: str, text: str, folder: Path) -> list[Event]:
    path = folder / f"call.{name}"
    path.write_text(text, "utf-8")
    read = FORMATS[name].read
    assert read is not None
    return list(read(path))


def emotions(events: list[Event]) -> list[Event]:
    return [event for event in events if event["type"] == "emotion.utterance"]


# ---- WebVTT ----------------------------------------------------------------------------------------


def blocks(text: str) -> list[str]:
    return text.rstrip("\n").split("\n\n")


def cues(text: str) -> list[str]:
    return [block for block in blocks(text) if "-->" in block]


def test_a_cue_is_spoken_by_its_speaker_with_the_emotion_beneath() -> None:
    assert cues(rendered("vtt", short_call()))[0] == (
        "5\n00:00:00.490 --> 00:00:02.838\n<v.neutral anna>Hi Ben. The mail came this morning.\n"
        "<c.emotion>neutral 76%</c>"
    )
    assert cues(rendered("vtt", short_call()))[3].endswith("\n<v ben><c.emotion>(fear?) 20%</c>")


@given(events=conversations)
@quickly
def test_a_cue_is_one_for_every_reader_of_webvtt(events: list[Event]) -> None:
    """A player sees each cue once, in order, with a length; and nothing but cues."""
    text = rendered("vtt", events)
    assert text.startswith("WEBVTT ")
    starts = []
    for block in blocks(text)[1:]:
        if block.startswith(("NOTE ", "STYLE\n")):
            assert "-->" not in block
            continue
        _, times, *payload = block.split("\n")
        start, end = re.fullmatch(r"(\d\d+:\d\d:\d\d\.\d{3}) --> (\d\d+:\d\d:\d\d\.\d{3})", times).groups()  # type: ignore[union-attr]
        assert (
            (len(start), start) < (len(end), end) and payload and all("-->" not in line for line in payload)
        )
        starts.append((len(start), start))
    assert starts == sorted(starts)


def test_an_exported_cue_given_as_captions_is_its_words_alone() -> None:
    words = captions.parse_vtt(rendered("vtt", short_call()))
    assert [caption.text for caption in words["anna"]] == [
        "Hi Ben. The mail came this morning.", "Wait, what? This one is from the university!",
    ]  # fmt: skip
    assert words.keys() == {"anna", "ben"}
    loud = "WEBVTT\n\n00:01.000 --> 00:02.000\n<v ben>so <c.loud>what</c>\n"  # somebody else's class
    assert captions.parse_vtt(loud)["ben"][0].text == "so what"


def test_ordinary_words_are_kept_in_the_cue_alone() -> None:
    assert rendered("vtt", short_call()).count("The mail came") == 1


def test_a_corrected_cue_is_a_corrected_event(tmp_path: Path) -> None:
    text = rendered("vtt", short_call())
    changed = text.replace("00:00:00.490 --> 00:00:02.838", "00:00:00.500 --> 00:00:02.800 line:0")
    changed = changed.replace("<v.neutral anna>Hi Ben. The mail", "<v.joy ann>Hi,\nBen &amp; all. The mail")
    first = emotions(reading("vtt", changed, tmp_path))[0]
    assert (first["start_ms"], first["end_ms"], first["participant_id"]) == (500, 2800, "ann")
    assert (first["label"], first["text"]) == ("joy", "Hi, Ben & all. The mail came this morning.")
    named = text.replace("<v ben><c.emotion>", "<v.fear ben><c.emotion>")
    last = emotions(reading("vtt", named, tmp_path))[3]
    assert (last["label"], last["abstained"]) == ("fear", False)


# ---- ELAN ------------------------------------------------------------------------------------------


def opened(text: str, folder: Path) -> Any:
    path = folder / "call.eaf"
    path.write_text(text, "utf-8")
    return pympi.Elan.Eaf(str(path))


def test_elan_has_a_tier_a_participant_and_one_for_each_thing_said_of_it(tmp_path: Path) -> None:
    eaf = opened(rendered("eaf", short_call()), tmp_path)
    assert list(eaf.get_tier_names()) == [
        f"{kind}{person}"
        for person in ("anna", "ben")
        for kind in ("", "emotion@", "confidence@", "used@", "missing@")
    ]  # fmt: skip
    assert eaf.get_annotation_data_for_tier("anna") == [
        (490, 2838, "Hi Ben. The mail came this morning."),
        (5738, 9302, "Wait, what? This one is from the university!"),
    ]
    assert [each[2] for each in eaf.get_ref_annotation_data_for_tier("emotion@anna")] == ["neutral", "anger"]
    assert [each[2] for each in eaf.get_ref_annotation_data_for_tier("emotion@ben")] == ["joy"]
    assert eaf.get_parameters_for_tier("emotion@ben")["PARENT_REF"] == "ben"
    assert [each[2] for each in eaf.get_ref_annotation_data_for_tier("missing@ben")] == [
        "visual: no_video", "text: no_caption; visual: no_video",
    ]  # fmt: skip
    assert len(eaf.get_cv_entries("emotions")) == 7


def test_elan_finds_the_recording(tmp_path: Path) -> None:
    text = rendered("eaf", short_call(), ("../my call.mp4",))
    assert opened(text, tmp_path).get_linked_files() == [
        {"MEDIA_URL": "../my call.mp4", "RELATIVE_MEDIA_URL": "../my call.mp4", "MIME_TYPE": "video/mp4"}
    ]


@given(events=conversations)
@quickly
def test_annotations_of_a_tier_have_a_length_and_do_not_overlap(events: list[Event]) -> None:
    root = ElementTree.fromstring(rendered("eaf", events).encode())
    slots = {slot.get("TIME_SLOT_ID"): int(slot.get("TIME_VALUE", "")) for slot in root.iter("TIME_SLOT")}
    assert list(slots.values()) == sorted(slots.values())
    names = [tier.get("TIER_ID") for tier in root.iter("TIER")]
    assert len(set(names)) == len(names)
    count = 0
    for tier in root.iter("TIER"):
        last = 0
        for annotation in tier.iter("ALIGNABLE_ANNOTATION"):
            start, end = (slots[annotation.get(f"TIME_SLOT_REF{n}")] for n in (1, 2))
            assert last <= start < end
            last, count = end, count + 1
    ids = [each.get("ANNOTATION_ID") for each in root.iter() if "ANNOTATION_ID" in each.attrib]
    assert len(set(ids)) == len(ids)
    assert count == len({event["utterance_id"] for event in emotions(events)})


def test_what_is_corrected_in_elan_is_a_corrected_event(tmp_path: Path) -> None:
    """Saved again by another program, which orders and indents in its own way."""
    eaf = opened(rendered("eaf", short_call()), tmp_path)
    slot = next(key for key, value in eaf.timeslots.items() if value == 490)
    eaf.timeslots[slot] = 510
    first = next(iter(eaf.tiers["anna"][0]))
    eaf.tiers["anna"][0][first] = (*eaf.tiers["anna"][0][first][:2], "Hi, Ben!", None)
    key, (ref, _, *rest) = next(iter(eaf.tiers["emotion@anna"][1].items()))
    eaf.tiers["emotion@anna"][1][key] = (ref, "joy", *rest)
    again = tmp_path / "again.eaf"
    eaf.to_file(str(again))
    read = FORMATS["eaf"].read
    assert read is not None
    expected = copied(short_call())
    emotions(expected)[0].update(start_ms=510, text="Hi, Ben!", label="joy")
    assert list(read(again)) == expected


# ---- EmotionML -------------------------------------------------------------------------------------


@given(events=conversations)
@quickly
def test_emotionml_keeps_the_rules_of_the_recommendation(events: list[Event]) -> None:
    assert broken(rendered("emotionml", events).encode()) == []


def test_an_emotion_has_its_words_times_senses_and_probabilities() -> None:
    emotion = ElementTree.fromstring(rendered("emotionml", short_call())).find(f"{NS}emotion")
    assert emotion is not None and (emotion.text or "").strip() == "Hi Ben. The mail came this morning."
    about = {
        key: emotion.get(key) for key in ("offset-to-start", "duration", "time-ref-uri", "expressed-through")
    }
    assert list(about.values()) == ["490", "2348", "#session", "text voice"]
    values = {each.get("name"): float(each.get("value", "")) for each in emotion.iter(f"{NS}category")}
    assert values["neutral"] == 0.76 and list(values)[0] == "neutral" and len(values) == 7


def test_a_known_moment_makes_times_absolute(tmp_path: Path) -> None:
    events = copied(short_call())
    events[0]["started_at"] = "2026-11-23T16:09:12.300Z"
    text = rendered("emotionml", events)
    emotion = ElementTree.fromstring(text).find(f"{NS}emotion")
    assert emotion is not None
    assert (emotion.get("start"), emotion.get("end")) == ("1795450152790", "1795450155138")
    assert broken(text.encode()) == [] and reading("emotionml", text, tmp_path) == events


def test_a_corrected_emotion_is_a_corrected_event(tmp_path: Path) -> None:
    text = rendered("emotionml", short_call()).replace('"neutral" value="0.76"', '"neutral" value="0.01"', 1)
    text = text.replace('"joy" value="0.04"', '"joy" value="0.79"', 1).replace("Hi Ben.", "Hi, Ben.")
    text = text.replace('offset-to-start="490" duration="2348"', 'offset-to-start="500" duration="2300"')
    first = emotions(reading("emotionml", text, tmp_path))[0]
    assert (first["label"], first["text"]) == ("joy", "Hi, Ben. The mail came this morning.")
    assert (first["start_ms"], first["end_ms"]) == (500, 2800)


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (lambda text: text.replace('version="1.0" ', "").replace(' version="1.0">', ">"), "has no version"),
        (lambda text: text.replace("2009/10/emotionml", "2009/10/other"), "101"),
        (lambda text: text.replace('<item name="joy" />', ""), "212"),
        (lambda text: text.replace('category-set="#emotions-1"', ""), "210"),
        (lambda text: text.replace('name="joy" value', 'name="anger" value'), "213"),
        (lambda text: text.replace('value="0.76"', 'value="7.6"'), "500"),
        (lambda text: text.replace('value="0.76"', 'value="high"'), "not of its form"),
        (lambda text: text.replace('duration="2348"', 'duration="-1"'), "not of its form"),
        (lambda text: text.replace("cs:participant", "participant"), "303"),
        (lambda text: re.sub("<category[^>]*>", "", text), "156"),
        (lambda text: text.replace('id="session"', ""), "leads nowhere"),
        (lambda text: text.replace('id="u8"', 'id="u5"'), "twice"),
    ],
)
def test_a_broken_rule_is_found(change: Change, rule: str) -> None:
    """The checker of the rules is worth something."""
    text = rendered("emotionml", short_call())
    assert change(text) != text
    try:
        found = broken(change(text).encode())
    except ValueError:
        found = ["not of its form"]
    assert any(rule in each for each in found), found


# ---- RTTM ------------------------------------------------------------------------------------------


def projected(events: list[Event], name: str) -> list[tuple[str, str, int, int]]:
    """What RTTM carries of a session: who speaks from when to when."""
    last: dict[str, Event] = {}
    for event in events:
        if event["type"] in ("utterance.ended", "emotion.utterance"):
            last[event["utterance_id"]] = event
        elif event["type"] == "utterance.dropped":
            last.pop(event["utterance_id"], None)
    spans = [(name, _word(e["participant_id"]), e["start_ms"], e["end_ms"]) for e in last.values()]
    return sorted(each for each in spans if each[3] > each[2])


def _word(name: str) -> str:
    seen = re.sub("[\ud800-\udfff\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ufffe\uffff]", "\ufffd", name)
    return "_".join(seen.split()) or "_"


@given(events=conversations)
@quickly
def test_rttm_carries_who_spoke_when(events: list[Event], tmp_path_factory: pytest.TempPathFactory) -> None:
    expected = projected(events, "call")
    path = tmp_path_factory.getbasetemp() / "call.rttm"
    path.write_text(rendered("rttm", events), "utf-8")
    if not expected:
        assert path.read_bytes() == b""
        return
    read = list(rttm.read(path))
    keys = ("session_id", "participant_id", "start_ms", "end_ms")
    assert sorted(tuple(event[key] for key in keys) for event in read) == expected
    assert len({event["event_id"] for event in read}) == len(read)
    assert [event["index"] for event in read] == list(range(len(read)))
    assert rendered("rttm", read) == path.read_text("utf-8")  # and what was read is written the same


def test_what_was_dropped_was_not_spoken() -> None:
    assert "anna.2" in {event.get("utterance_id") for event in short_call()}
    lines = rendered("rttm", short_call()).splitlines()
    assert lines[0] == "SPEAKER call 1 0.490 2.348 <NA> <NA> anna <NA> <NA>"
    assert [line.split()[7] for line in lines] == ["anna", "ben", "anna", "ben"]


# ---- foreign and damaged ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("vtt", "WEBVTT\n\n00:01.000 --> 00:02.000\n<v anna>hi\n", "not written by cmath-stream"),
        ("vtt", "1\n00:00:01,000 --> 00:00:02,000\nhi\n", "not written by cmath-stream"),
        ("eaf", '<ANNOTATION_DOCUMENT AUTHOR="" VERSION="3.0"/>', "not written by cmath-stream"),
        ("eaf", "<html/>", "not written by cmath-stream"),
        ("eaf", "WEBVTT", "not XML"),
        (
            "emotionml",
            '<emotionml xmlns="http://www.w3.org/2009/10/emotionml" version="1.0"/>',
            "not written by",
        ),
        ("emotionml", "<emotionml", "not XML"),
        (
            "rttm",
            "SPEAKER a 1 0 1 <NA> <NA> x <NA> <NA>\nSPEAKER b 1 0 1 <NA> <NA> x <NA> <NA>\n",
            "2 recordings",
        ),
        ("rttm", "hello\n", "line 1: not an RTTM line"),
    ],
)
def test_a_foreign_file_is_told_apart(name: str, text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(MediaError, match=f"call.{name}.*{said}"):
        reading(name, text, tmp_path)


def _without(pattern: str) -> Change:
    return lambda text: re.sub(pattern, "", text, count=1, flags=re.DOTALL)


@pytest.mark.parametrize(
    ("name", "damage", "said"),
    [
        ("vtt", _without(r"NOTE cmath-stream 5 [^\n]*\n\n"), "cue 5: its NOTE is missing"),
        ("vtt", _without(r"5\n00:00:00.490.*?</c>\n\n"), "NOTE 5: its cue is missing"),
        ("vtt", lambda text: text.replace("00:00:00.490 -->", "soon -->"), "cue 5: no cue of one voice"),
        ("vtt", lambda text: text.replace('"schema":"emotion-event/1",', '"schema":', 1), "cue 5: not JSON"),
        ("vtt", lambda text: text.replace("5\n00:00", "five\n00:00", 1), "cue five: its NOTE is missing"),
        ("vtt", lambda text: text.replace('"type":"session.closed",', ""), "NOTE 17: its cue is missing"),
        ("eaf", _without("<ANNOTATION>.*?</ANNOTATION>"), "event 5: its annotation a1 is missing"),
        ("eaf", _without('<PROPERTY NAME="cmath-stream event 5 .*?</PROPERTY>'), "annotation a1 is none of"),
        ("eaf", lambda text: text.replace('TIME_VALUE="490"', ""), "event 5: its annotation a1 has no times"),
        ("eaf", lambda text: text.replace('"room":"demo"', '"room":""'), "event 0: room is empty"),
        ("emotionml", _without('<cs:rest n="5">.*?</cs:rest>'), "emotion u5: its info is missing"),
        ("emotionml", lambda text: text.replace('duration="2348"', ""), "emotion u5: no times"),
        ("emotionml", lambda text: text.replace('value="0.76"', 'value="high"', 1), "u5: .*no probab"),
        ("emotionml", lambda text: text.replace('<cs:event n="0">', "<cs:event>"), "without its number"),
        ("emotionml", lambda text: text.replace('"room":"demo"', '"room":""'), "event 0: room is empty"),
    ],
)  # fmt: skip
def test_damage_is_named(name: str, damage: Change, said: str, tmp_path: Path) -> None:
    text = rendered(name, short_call())
    assert damage(text) != text
    with pytest.raises(MediaError, match=f"call.{name}.*{said}"):
        reading(name, damage(text), tmp_path)


@pytest.mark.parametrize("name", ["vtt", "eaf", "emotionml", "rttm"])
def test_what_is_no_text_is_said(name: str, tmp_path: Path) -> None:
    path = tmp_path / f"call.{name}"
    path.write_bytes(b"\xff\xfe\x00\x00")
    read = FORMATS[name].read
    assert read is not None
    with pytest.raises(MediaError, match="not UTF-8|not XML"):
        list(read(path))


def test_a_revision_replaces_what_was_said_before() -> None:
    """What the time line shows is the last word; the first is kept, unseen."""
    late = utterance("anna", 0, 490, 3000, "joy", "Hi Ben!", revision=1)
    early = utterance("anna", 0, 490, 2838, "neutral", "Hi", is_final=False, event_id=event_id("s", "early"))
    for events in ([early, late], [late, early]):
        assert len(cues(rendered("vtt", events))) == 1 and ">Hi Ben!\n" in rendered("vtt", events)
