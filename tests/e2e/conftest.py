"""A whole installation as a user starts it, and browsers with a voice and a face."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import pytest
import redis
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Response, sync_playwright

from tests.e2e import stage

TOKEN = "e2e-token/of+sixteen-or-more"
CHROMIUM = "/usr/bin/chromium"

# A recogniser that hears the lines of the microphone's file as they are spoken; a real one needs a network.
RECOGNISER = """
const lines = LINES;
const capture = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
let zero = 0;
navigator.mediaDevices.getUserMedia = async (what) => {
  const stream = await capture(what);
  zero = performance.now();
  return stream;
};
window.SpeechRecognition = window.webkitSpeechRecognition = class {
  start() {
    const at = (ms, text, isFinal) => {
      const wait = zero + ms - performance.now();
      if (wait < 0) return;
      const result = Object.assign([{ transcript: text }], { isFinal });
      this.timers.push(setTimeout(() => this.onresult({ resultIndex: 0, results: [result] }), wait));
    };
    this.timers = [];
    for (const { start_ms, end_ms, text } of lines) {
      at(start_ms + 500, text, false);
      at(end_ms, text, false);
      at(end_ms + 100, text, true);
    }
  }
  stop() {
    this.timers.forEach(clearTimeout);
    setTimeout(() => this.onend(), 0);
  }
};
"""
WATCH = """
addEventListener("securitypolicyviolation", (e) => console.error(`CSP: ${e.violatedDirective}`));
"""


@dataclass(frozen=True)
class Installation:
    """A running `cmath-stream up`."""

    page: str  # as printed, with the token
    redis: redis.Redis

    def url(self, room: str) -> str:
        return self.page.replace("/#", f"/?room={room}#")

    def events(self, session_id: str | None = None) -> list[dict[str, Any]]:
        """What Redis has, oldest first."""
        key = "emo:feed" if session_id is None else f"emo:{{{session_id}}}:events"
        entries: Any = self.redis.xrange(key)
        return [json.loads(fields[b"event"]) for _, fields in entries]


@pytest.fixture(scope="session")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """Everything; rooms named taped-… are recorded."""
    folder = tmp_path_factory.mktemp("tapes")
    (folder / "key").write_text("5a" * 32)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environ = {key: value for key, value in os.environ.items() if key != "REDIS_URL"} | {
        "CMATH_STREAM__INGEST__PORT": str(port),
        "CMATH_STREAM__INGEST__TOKEN": TOKEN,
        "CMATH_STREAM__INGEST__LOOPBACK_ONLY": "true",
        "CMATH_STREAM__TEXT__WHISPER": "none",
        "CMATH_STREAM__TAPE__FOLDER": str(folder),
        "CMATH_STREAM__TAPE__KEY_FILE": str(folder / "key"),
        "CMATH_STREAM__TAPE__ROOMS": "taped-*",
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "cmath_stream", "up"], env=environ, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        printed = "".join(process.stdout.readline() for _ in range(3))
        page = re.search(r"page:\s+(\S+)", printed)
        url = re.search(r"--redis (\S+)", printed)
        assert page and url, f"`up` did not start: {printed}"
        with redis.Redis.from_url(url[1]) as client:
            yield Installation(page[1], client)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.communicate()


@dataclass
class Visitor:
    """One person at one browser window, and what went wrong there."""

    page: Page
    complaints: list[str] = field(default_factory=list)
    resource: str = ""  # URL of its latest WHIP session

    def __post_init__(self) -> None:
        self.page.on("console", self._on_console)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("response", self._on_response)

    def _on_console(self, message: ConsoleMessage) -> None:
        gone = "404" in message.text and "/whip/sessions/" in message.location["url"]
        if (
            message.type in ("error", "warning") and not gone
        ):  # gone: the server knew of the end before we told
            self.complaints.append(f"{message.text} {message.location['url']}")

    def _on_response(self, response: Response) -> None:
        if response.request.method == "POST" and response.status == 201:
            self.resource = urljoin(response.url, response.headers["location"])

    def enter(self, url: str, name: str, media: str, *, captions: bool = False) -> None:
        """Through the lobby: read, agree, join."""
        self.page.goto(url)
        self.page.get_by_label("Your name").fill(name)
        self.page.locator(f"input[name=media][value={media}]").check()
        if captions:
            self.page.locator("#captions").check()
        assert self.page.get_by_role("button", name="Join", exact=True).is_disabled()  # before agreeing
        self.page.get_by_label("I have read this").check()
        self.page.get_by_role("button", name="Join", exact=True).click()
        self.page.locator("#status[data-state=live]").wait_for(timeout=20_000)

    @property
    def participant(self) -> str:
        """Its id in the events."""
        return str(self.page.locator(".person.me").get_attribute("data-participant"))

    def bars(self, participant: str, at_least: int, timeout_s: float = 30) -> None:
        """Wait for utterances that have an emotion on somebody's timeline."""
        bars = self.page.locator(f'[data-participant="{participant}"] .bar:not(.pending)')
        bars.nth(at_least - 1).wait_for(state="attached", timeout=timeout_s * 1000)


Seat = Callable[..., Visitor]


@pytest.fixture
def visitor(tmp_path: Path) -> Iterator[Seat]:
    """Makes people: `visitor("anna")` has the demo's voice and a camera, `visitor(None)` has neither."""
    if not Path(CHROMIUM).exists():
        pytest.skip(f"{CHROMIUM} is not installed")
    data = os.environ.get("CMATH_STREAM_DATA")
    clips = sorted(Path(data, "clips/talkers").glob("*.mp4")) if data else []
    with ExitStack() as open_things:
        driver = open_things.enter_context(sync_playwright())
        browsers: dict[str | None, Browser] = {}
        everybody: list[Visitor] = []

        def launch(voice: str | None) -> Browser:
            flags = list(stage.FLAGS)
            if voice is not None:
                number = len(browsers)
                clip = clips[number % len(clips)] if clips else None
                stage.camera(tmp_path / f"{voice}.y4m", clip, hue=(105, 15, 60)[number % 3])
                flags += [
                    f"--use-file-for-fake-audio-capture={tmp_path / voice}.wav",
                    f"--use-file-for-fake-video-capture={tmp_path / voice}.y4m",
                ]
            return driver.chromium.launch(executable_path=CHROMIUM, args=flags)

        def make(voice: str | None = None, **context: Any) -> Visitor:
            first_s = 0.5 + 2.5 * len(browsers)  # they do not begin all at once
            lines = stage.microphone(voice, tmp_path / f"{voice}.wav", first_s) if voice else []
            if voice not in browsers:
                browsers[voice] = launch(voice)
                open_things.callback(browsers[voice].close)
            opened: BrowserContext = browsers[voice].new_context(accept_downloads=True, **context)
            opened.add_init_script(WATCH)
            if voice is not None:
                opened.add_init_script(RECOGNISER.replace("LINES", json.dumps(lines)))
            one = Visitor(opened.new_page())
            everybody.append(one)
            return one

        yield make
        complaints = [complaint for one in everybody for complaint in one.complaints]
        assert complaints == []


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Where screenshots go: the docs' folder when asked for, else nowhere that stays."""
    return Path(os.environ.get("CMATH_STREAM_SCREENSHOTS") or tmp_path)
