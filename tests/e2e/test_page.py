"""Two people with voices and faces, and one who types, in one room of a whole installation."""

from __future__ import annotations

import csv
import io
import json
import time
import urllib.request
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import TOKEN, Installation, Seat

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]


def test_a_conversation(up: Installation, visitor: Seat, pictures: Path) -> None:
    desktop: dict[str, Any] = {"viewport": {"width": 1280, "height": 860}}
    anna, ben = visitor("anna", **desktop), visitor("ben", **desktop)
    anna.page.goto(up.url("lounge"))
    anna.page.screenshot(path=pictures / "page-lobby.png", full_page=True)
    anna.enter(up.url("lounge"), "Anna", "both", captions=True)
    ben.enter(up.url("lounge"), "Ben", "both", captions=True)

    # Both see both: pictures from browser to browser, emotions from the server.
    for one, other in ((anna, ben), (ben, anna)):
        video = f'[data-participant="{other.participant}"] video'
        one.page.wait_for_function(f"document.querySelector('{video}')?.videoWidth > 0", timeout=20_000)
        one.bars(one.participant, 2)
        one.bars(other.participant, 2)
    told = up.events()
    emotions = [event for event in told if event["type"] == "emotion.utterance"]
    assert {event["participant_id"] for event in emotions} == {anna.participant, ben.participant}
    assert any(event.get("text") for event in emotions)  # the captions' way
    (started,) = (event for event in told if event["type"] == "session.started")
    assert (started["room"], started["purpose"]) == ("lounge", "personal")
    joined = [event for event in told if event["type"] == "participant.joined"]
    assert all(event["consent"] == {"notice": "1", "at_ms": event["at_ms"]} for event in joined)

    # Pointing at an utterance, or walking there by keyboard, shows what was said and what each sense says.
    person = anna.page.locator(f'[data-participant="{anna.participant}"]')
    person.locator(".bar:not(.pending)").first.focus()
    first = person.locator(".when").inner_text()
    anna.page.keyboard.press("End")
    assert person.locator(".when").inner_text() != first
    assert person.locator(".bar:focus").count() == 1
    for sense in ("Words", "Voice", "Face"):
        assert person.locator(".view", has_text=sense).count() == 1
    anna.page.keyboard.press("Tab")
    assert anna.page.locator("#live").inner_text().partition(":")[0] in ("Anna", "Ben")

    # A third one, on a phone, types.
    phone = visitor(None, viewport={"width": 390, "height": 844}, device_scale_factor=2, is_mobile=True)
    phone.enter(up.url("lounge"), "Cleo", "words")
    phone.page.get_by_label("What you say").fill("I am so happy that we all meet again!")
    phone.page.get_by_label("What you say").press("Enter")
    phone.bars(phone.participant, 1)
    anna.bars(phone.participant, 1)
    assert "happy" in anna.page.locator(f'[data-participant="{phone.participant}"] .said').inner_text()
    seen = anna.page.locator(f'[data-participant="{anna.participant}"] .bar:not(.pending) span').first
    box = seen.bounding_box()
    assert box is not None and box["width"] >= 8  # an emotion is something to be seen
    narrow = phone.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert narrow, "the page is wider than a phone"

    ben.bars(ben.participant, 3)
    anna.page.screenshot(path=pictures / "page-desktop.png", full_page=True)
    phone.page.screenshot(path=pictures / "page-phone.png")
    anna.page.emulate_media(color_scheme="dark", reduced_motion="reduce")
    anna.page.screenshot(path=pictures / "page-dark.png", full_page=True)

    # Paused: nothing of Ben's is an utterance any more, though the others go on hearing him.
    ben.page.get_by_role("button", name="Pause tracking").click()
    ben.page.locator("#status[data-state=paused]").wait_for()
    zero_s = datetime.fromisoformat(started["started_at"]).timestamp()
    settled_ms = (time.time() - zero_s + 3) * 1000  # what was on its way may still be heard
    settled_s = time.monotonic() + 3

    # Meanwhile, the whole of it as files.
    session_id = started["session_id"]
    rows = list(csv.DictReader(io.StringIO(_exported(anna.page, "Utterances, CSV"), newline="")))
    assert {row["participant_id"] for row in rows} >= {anna.participant, ben.participant, phone.participant}
    names = [emotion["name"] for emotion in emotions[0]["emotions"]]
    assert all(abs(sum(float(row[name]) for name in names) - 1) < 1e-3 for row in rows)
    lines = [json.loads(line) for line in _exported(anna.page, "Events, JSONL").splitlines()]
    kept = {event["event_id"]: event for event in up.events(session_id)}
    assert [line["seq"] for line in lines] == list(range(1, len(lines) + 1))
    assert all(kept[line["event_id"]] == line for line in lines)

    time.sleep(max(0.0, settled_s + 6 - time.monotonic()))
    assert max(event["start_ms"] for event in _started(up, ben.participant)) < settled_ms
    ben.page.get_by_role("button", name="Go on").click()

    # The server's end of Anna's connection goes; her page finds out and comes back by itself.
    before = anna.resource
    cut = urllib.request.Request(before, method="DELETE", headers={"Authorization": f"Bearer {TOKEN}"})
    urllib.request.urlopen(cut, timeout=10).close()
    anna.page.locator("#status:not([data-state=live])").wait_for(timeout=30_000)
    anna.page.locator("#status[data-state=live]").wait_for(timeout=30_000)
    assert anna.resource != before

    # Leaving and coming back continues the same conversation, as the same participant.
    him = ben.participant
    ben.page.get_by_role("button", name="Leave").click()
    ben.page.get_by_role("heading", name="You have left").wait_for()
    anna.page.locator(f'[data-participant="{him}"].gone').wait_for(timeout=10_000)
    spoken = len(_started(up, him))
    ben.page.get_by_role("button", name="Join again").click()
    ben.page.locator("#status[data-state=live]").wait_for(timeout=20_000)
    assert ben.participant == him
    anna.page.locator(f'[data-participant="{him}"]:not(.gone)').wait_for(timeout=10_000)
    anna.bars(him, spoken + 1)
    assert {event["session_id"] for event in up.events()} == {session_id}


def test_the_notice_of_a_room_that_is_recorded_says_so(up: Installation, visitor: Seat) -> None:
    one = visitor(None)
    for room, recorded in (("lounge-3", False), ("taped-1", True)):
        one.page.goto("about:blank")
        one.page.goto(up.url(room))
        one.page.locator("#kept" if recorded else "#not-kept").wait_for()
        assert one.page.locator("#not-kept" if recorded else "#kept").is_hidden()
    one.enter(up.url("taped-1"), "Dora", "words")
    (joined,) = (
        event for event in up.events()
        if event["type"] == "participant.joined" and event["participant_id"] == one.participant
    )  # fmt: skip
    assert joined["consent"]["notice"] == "1-recorded"
    one.page.get_by_role("button", name="Leave").click()


def test_a_wrong_token_is_said_and_the_page_is_locked_down(up: Installation, visitor: Seat) -> None:
    one = visitor(None)
    answer = one.page.goto(up.page.partition("#")[0])
    assert answer is not None and "script-src 'self'" in answer.headers["content-security-policy"]
    one.page.get_by_label("Room name").fill("lounge-2")
    one.page.get_by_role("button", name="Go on").click()
    one.page.get_by_role("alert").filter(has_text="wants a token").wait_for()
    assert all("401" in complaint for complaint in one.complaints)  # the browser's own note of the refusal
    one.complaints.clear()


RULES = r"""async () => {
  const { Conversation } = await import("/web/conversation.js");
  const { csv } = await import("/web/export.js");
  const talk = new Conversation();
  let n = 0;
  const tell = (type, more) => talk.apply({ type, event_id: String(n++), session_id: "s0", ...more });
  const felt = (revision, text, more = {}) => tell("emotion.utterance", {
    participant_id: "ann", utterance_id: "ann.0", revision, is_final: true, start_ms: 0, end_ms: 9, text,
    label: "joy", abstained: false, emotions: [{ name: "joy", probability: 1 }], modalities: {}, ...more });
  tell("session.started", { room: "r", purpose: "p" });
  tell("utterance.started", { participant_id: "ann", utterance_id: "ann.0", start_ms: 0 });
  const fresh = [felt(1, '=cmd("x"),\n').fresh !== null, felt(0, "older").fresh !== null];
  const again = talk.apply(talk.events.at(-1)).changed;
  const rows = csv(talk);
  tell("utterance.dropped", { participant_id: "ann", utterance_id: "ann.0", reason: "noise" });
  const left = talk.people.get("ann").utterances.size;
  const { reset } = tell("session.started", { session_id: "s1" });
  return { fresh, again, rows, left, reset, people: talk.people.size };
}"""


def test_what_the_page_makes_of_events(up: Installation, visitor: Seat) -> None:
    one = visitor(None)
    one.page.goto(up.page)
    found = one.page.evaluate(RULES)
    assert found["fresh"] == [True, False]  # the highest revision counts
    assert found["again"] is None  # a repeat changes nothing
    (row,) = csv.DictReader(io.StringIO(found["rows"], newline=""))
    assert row["text"] == '\'=cmd("x"),\n' and row["joy"] == "1"  # no formula for a spreadsheet to run
    assert (found["left"], found["reset"], found["people"]) == (0, True, 0)


def _started(up: Installation, participant: str) -> list[dict[str, Any]]:
    return [
        event
        for event in up.events()
        if event["type"] == "utterance.started" and event["participant_id"] == participant
    ]


def _exported(page: Any, what: str) -> str:
    page.locator("#export-menu summary").click()
    with page.expect_download() as download:
        page.get_by_role("button", name=what).click()
    return str(Path(download.value.path()).read_bytes().decode())
