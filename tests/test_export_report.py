"""The report: what it tells, and that nothing in it can run or load but its own style and script."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import realtime
from cmath_stream.exports import report, wording
from cmath_stream.exports.about import About
from cmath_stream.exports.report_view import view
from cmath_stream.exports.turning import Step, courses, shares, strongest
from tests.sessions import Event, copied, distribution, short_call, utterance

HOSTILE = (
    "<script>alert(1)</script>", "</script><script>alert(1)</script>", "\"><img src=x onerror=alert(1)>",
    "' onmouseover='alert(1)", "</title></style><svg onload=alert(1)>", "{{ 7*7 }}{% raw %}",
    "javascript:alert(1)", "<!--", "]]>", "\u2028\ud800\0",
)  # fmt: skip
WEB = Path(realtime.__file__).with_name("web")
VOID = {"meta", "input", "rect", "path", "line", "br", "img", "link"}


def page(events: list[Event], *media: str, name: str = "call") -> str:
    file = io.BytesIO()
    report.write(events, file, About(name, media))
    return file.getvalue().decode()


class Parsed(HTMLParser):
    """Elements with their attributes, and the text of scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.raw: list[tuple[str, str]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == [], "elements that are not closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] in ("script", "style"):
            self.raw.append((self._open[-1], data))
        else:
            self.text += data


def hostile_call(words: str) -> list[Event]:
    """Everything that comes from outside is the same bad word."""
    events = copied(short_call())
    events[0].update(room=words, purpose=words, started_at=words)
    for event in events:
        if "participant_id" in event:
            event["participant_id"] = words
        if event["type"] == "utterance.dropped":
            event["reason"] = words
        if event["type"] == "emotion.utterance":
            event["text"] = words
            event["emotions"][0]["name"] = words
            event["label"] = words
            event["modalities"]["text"] = {"used": False, "reason": words}
            event["modalities"]["audio"]["emotions"][0] = {"name": words, "probability": 1}
            event["model"]["version"] = event["model"]["name"] = words
    return events


@pytest.mark.parametrize("words", HOSTILE)
def test_what_comes_from_outside_is_text_and_nothing_else(words: str) -> None:
    media = words.replace("\ud800", "") + ".mp4"  # which no file's name has
    plain = Parsed(page(hostile_call("x"), "x.mp4", name="x"))
    bad = Parsed(page(hostile_call(words), media, name=words))
    shape = [(tag, sorted(about)) for tag, about in plain.elements]
    assert [(tag, sorted(about)) for tag, about in bad.elements] == shape
    for tag, about in bad.elements:
        assert not any(key.startswith("on") or key == "style" for key in about), (tag, about)
        assert "alert" not in (about.get("class") or "")
        if tag == "a":
            assert (about["href"] or "").startswith("#")
        if tag in ("audio", "video"):
            assert not re.match(r"\s*[a-z]+:", about["src"] or "")  # never another scheme
    data = next(text for tag, text in bad.raw if text.startswith("{"))
    assert words in json.loads(data)["emotions"]
    seen = words.encode("utf-8", "replace").decode()
    assert seen in bad.text


def test_nothing_is_loaded_and_only_our_own_script_runs() -> None:
    text = page(short_call(), "call.mp4")
    parsed = Parsed(text)
    policy = next(
        a["content"] for t, a in parsed.elements if a.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy is not None and policy.startswith("default-src 'none'; ") and "unsafe" not in policy
    scripts = [text for tag, text in parsed.raw if tag == "script" and not text.startswith("{")]
    styles = [text for tag, text in parsed.raw if tag == "style"]
    assert len(scripts) == len(styles) == 1
    for kind, raw in (("script", scripts[0]), ("style", styles[0])):
        digest = base64.b64encode(hashlib.sha256(raw.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert "media-src 'self' file:" in policy and "media-src" not in page(short_call())
    assert not re.search(r"(src|href)=\"(?!#|call\.mp4\")", text)
    assert not re.search(r"url\(|@import|fetch\(|XMLHttp|innerHTML|eval\(|https?://", styles[0] + scripts[0])


def test_a_recording_is_pointed_to() -> None:
    elements = Parsed(page(short_call(), "../my call?.mp4", "ben.opus")).elements
    assert ("video", "../my%20call%3F.mp4") in [(tag, about.get("src")) for tag, about in elements]
    assert ("audio", "ben.opus") in [(tag, about.get("src")) for tag, about in elements]


def test_it_tells_who_said_what_and_what_each_sense_thought() -> None:
    seen = re.sub(r"\s+", " ", Parsed(page(short_call())).text)
    for words in (
        "Estimates of expression, not of what anybody feels.", "Hi Ben. The mail came this morning.",
        "neutral 76 %", "Words neutral 70 %", "Voice neutral 64 %", "Face no camera", "No words: no captions",
        "unsure, perhaps fear 20 %", "4, 1 unsure, 1 dropped: too short", "no consent on record",
        "agreed to notice 1", "Length 11 s", "Purpose demonstration", "2 utterances · 3 s of speech",
    ):  # fmt: skip
        assert words.replace(" ", "") in seen.replace(" ", ""), words


def test_it_says_what_the_model_learned_from_where_that_is_known() -> None:
    assert "RAVDESS speech" in page(short_call())
    events = copied(short_call())
    for event in events:
        if "model" in event:
            event["model"]["version"] = "mine-7"
    assert "what it was trained on is not in these events" in page(events)


def test_nobody_and_nothing_is_a_report_too() -> None:
    assert "Nobody took part" in page([])
    silent = view(short_call()[:3])
    assert [person.name for person in silent.people] == ["anna", "ben"] and silent.rows == ()
    Parsed(page(short_call()[:3]))


def test_places_are_in_proportion_to_the_time() -> None:
    shown = view(short_call())
    first = shown.rows[0]
    assert first.x == pytest.approx(100 * 490 / 11000) and first.width == pytest.approx(100 * 2348 / 11000)
    assert sum(box.height for box in first.stack) == pytest.approx(72)
    assert [box.hue for box in first.marks] == ["unused" if n == 2 else "used" for n in range(3)]
    anna = shown.people[0]
    assert [box.hue for box in anna.ribbon] == ["e-neutral", "e-anger"]
    assert sum(box.width for box in anna.ribbon) == pytest.approx(100 * (11000 - 2838) / 11000)
    assert sum(box.width for box in anna.bar) == pytest.approx(100)


def test_a_long_call_has_few_enough_marks() -> None:
    events = [utterance("anna", n, n * 60_000, n * 60_000 + 900, "joy", "ha") for n in range(600)]
    shown = view(events)
    assert len(shown.ticks) <= 721 and shown.coarse_s == 3600
    assert shown.ticks[-1][2] == "9:59:00"


# ---- turning points --------------------------------------------------------------------------------


def said(number: int, start_s: float, end_s: float, label: str, share: float = 1.0, **changes: Any) -> Event:
    event = utterance("anna", number, round(start_s * 1000), round(end_s * 1000), label, "so", **changes)
    return {**event, "emotions": distribution(label, share)}


def test_a_turn_is_where_the_running_label_changes() -> None:
    calm, cross = said(0, 0, 2, "neutral"), said(1, 3, 13, "anger")
    (first, second) = courses([calm, cross])["anna"]
    assert (first.before, first.after, first.moved, first.turns) == (None, "neutral", 0.0, False)
    assert (second.before, second.after, second.turns) == ("neutral", "anger", True)
    # 2 s of neutral, faded by 11 s of 20 s half-life, against 10 s of anger
    old = 2 * 2 ** (-11 / 20)
    assert second.moved == pytest.approx(10 / (10 + old))


def test_a_turn_that_the_model_was_unsure_of_is_none() -> None:
    unsure = said(1, 3, 13, "anger") | {"label": None, "abstained": True}
    step = courses([said(0, 0, 2, "neutral"), unsure])["anna"][1]
    assert step.after == "anger" and not step.turns


def test_a_close_race_is_no_turn() -> None:
    """The running label stays until another is ahead by .1, as that of participant.state does."""
    step = courses([said(0, 0, 10, "neutral", 0.5), said(1, 10, 20, "anger", 0.45)])["anna"][1]
    assert step.after == "neutral" and not step.turns


def test_another_models_emotions_begin_the_course_anew() -> None:
    other = said(1, 3, 13, "up") | {
        "emotions": [{"name": "up", "probability": 0.9}, {"name": "down", "probability": 0.1}]
    }
    steps = courses([said(0, 0, 2, "neutral"), other])["anna"]
    assert [step.before for step in steps] == [None, None]


def test_the_strongest_turns_are_told_in_order_of_time() -> None:
    steps = [
        Step(said(n, n, n + 1, "joy"), "neutral", "joy", moved) for n, moved in enumerate((0.2, 0.5, 0.3))
    ]
    assert [step.moved for step in strongest(steps, 2)] == [0.5, 0.3]


def test_a_share_counts_by_the_length_of_what_was_said() -> None:
    found = shares([said(0, 0, 3, "joy"), said(1, 3, 4, "anger")])
    assert found["joy"] == pytest.approx(0.75) and found["anger"] == pytest.approx(0.25)


# ---- one look, one wording, with the page of a live call ---------------------------------------------


def test_reasons_are_worded_as_on_the_page() -> None:
    source = (WEB / "words.js").read_text("utf-8")
    inside = re.search(r"const REASONS = \{(.*?)\};", source, re.DOTALL)
    assert inside is not None
    assert dict(re.findall(r'(\w+): "(.*)"', inside[1])) == wording.REASONS
    assert json.loads(re.search(r"const KNOWN = (\[.*\]);", source)[1]) == list(wording.HUES)  # type: ignore[index]


def test_colours_are_those_of_the_page() -> None:
    style = Path(report.__file__).with_name("web").joinpath("report.css").read_text("utf-8")
    screen = style.partition("@media print")[0]
    theirs, ours = (
        (re.findall(r"--([\w-]+): (#\w+);", text)) for text in ((WEB / "style.css").read_text(), screen)
    )
    assert set(ours) <= set(theirs) and len(ours) > 15


@pytest.mark.parametrize(
    ("ids", "shown"),
    [
        (["anna-3f9a", "ben"], ["anna", "ben"]),
        (["anna-3f9a", "anna-11bb"], ["anna-3f9a", "anna-11bb"]),
        (["mary_ann", "-3f9a"], ["mary ann", "-3f9a"]),
    ],
)
def test_people_are_called_by_their_names(ids: list[str], shown: list[str]) -> None:
    assert list(wording.names(ids).values()) == shown


@pytest.mark.parametrize(
    ("ms", "shown"), [(0, "0:00"), (59_600, "1:00"), (3_599_000, "59:59"), (3_661_000, "1:01:01")]
)
def test_a_time_is_told_as_on_a_clock(ms: int, shown: str) -> None:
    assert wording.clock(ms) == shown
