"""The report in a browser, from a file and without a network: pointing, keys, search and the recording."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.e2e.conftest import CHROMIUM, WATCH
from tests.e2e.stage import DEMO

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]


def run(*arguments: object) -> None:
    command = [sys.executable, "-m", "cmath_stream", *map(str, arguments)]
    environ = {**os.environ, "CMATH_STREAM__TEXT__WHISPER": "none"}
    subprocess.run(command, check=True, capture_output=True, env=environ, timeout=120)


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the demo, replayed."""
    folder = tmp_path_factory.mktemp("report")
    voices = [DEMO / f"{name}.opus" for name in ("anna", "ben")]
    words = [part for name in ("anna", "ben") for part in ("--captions", DEMO / f"{name}.captions.json")]
    run("replay", *voices, *words, "--out", folder / "demo.jsonl")
    run("export", folder / "demo.jsonl", "--to", "html")
    media = [part for voice in voices for part in ("--media", voice)]
    run("export", folder / "demo.jsonl", "--to", "html", "--out", folder / "heard.html", *media)
    return folder / "demo.html"


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    if not Path(CHROMIUM).exists():
        pytest.skip(f"{CHROMIUM} is not installed")
    flags = ["--no-sandbox", "--disable-gpu", "--autoplay-policy=no-user-gesture-required"]
    with sync_playwright() as driver, driver.chromium.launch(executable_path=CHROMIUM, args=flags) as browser:
        yield browser


class Opened:
    """A page without a network, and all that went wrong in it."""

    def __init__(self, browser: Browser, path: Path, **how: Any) -> None:
        self.complaints: list[str] = []
        self.context = browser.new_context(offline=True, **how)
        self.context.add_init_script(WATCH)
        self.page: Page = self.context.new_page()
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", self._on_request)
        self.page.goto(path.as_uri())

    def _on_request(self, request: Any) -> None:
        if not request.url.startswith("file:"):
            self.complaints.append(f"asks for {request.url}")

    def __enter__(self) -> Page:
        return self.page

    def __exit__(self, *failure: object) -> None:
        self.context.close()
        assert self.complaints == []


def test_pointing_at_an_utterance_shows_what_was_made_of_it(report: Path, browser: Browser) -> None:
    with Opened(browser, report) as page:
        detail = page.locator("#detail")
        assert "Hi Ben. The mail came this morning." in detail.inner_text()  # the first, at first
        page.locator(".said-bar").nth(1).hover()
        told = detail.inner_text()
        assert "Wait, what?" in told and "anna · 0:06 – 0:09 · anger" in told
        assert [view.split("\n")[0] for view in page.locator("#detail .view").all_inner_texts()] == [
            "Words", "Voice", "Face",
        ]  # fmt: skip
        assert "no camera" in told
        page.locator("h1").hover()
        assert "Hi Ben." in detail.inner_text()


def test_everything_is_reached_by_keys(report: Path, browser: Browser) -> None:
    with Opened(browser, report) as page:
        page.locator("#wider").focus()
        page.keyboard.press("Tab")  # to anna's lane
        assert page.evaluate("document.activeElement.getAttribute('aria-label')").startswith(
            "anna, 0:00 – 0:03, neutral"
        )
        page.keyboard.press("ArrowRight")
        assert "Wait, what?" in page.locator("#detail").inner_text()
        page.keyboard.press("End")
        assert "It's only the toast!" in page.locator("#detail").inner_text()
        page.keyboard.press("Tab")  # one stop a lane
        assert page.evaluate("document.activeElement.getAttribute('aria-label')").startswith("ben, ")
        chosen = page.evaluate("document.activeElement.dataset.id")
        assert page.locator("tr.selected").get_attribute("id") == chosen


def test_search_and_filters_leave_what_fits(report: Path, browser: Browser) -> None:
    with Opened(browser, report) as page:
        rows = page.locator("tbody tr[data-who]:visible")
        assert rows.count() == 16
        page.locator("#search").fill("LETTERS table")
        assert rows.count() == 1 and "put the letters" in (rows.first.text_content() or "")
        assert page.locator("#found").inner_text() == "1 of 16"
        assert page.locator(".said-bar.dim").count() == 15
        page.locator("#search").fill("nobody said this")
        assert rows.count() == 0 and page.locator("#nothing").is_visible()
        page.locator("#search").fill("")
        page.locator("#who").select_option("ben")
        page.locator("#emotion").select_option("joy")
        assert rows.count() == 2
        page.locator("#missing").check()
        assert rows.count() == 2  # nobody had a camera
        page.locator("#emotion").select_option("?")
        assert rows.count() == 1 and "unsure, perhaps" in (rows.first.text_content() or "")


def test_all_probabilities_are_a_table(report: Path, browser: Browser) -> None:
    with Opened(browser, report) as page:
        page.locator("#u3 summary").click()
        table = page.locator("#u3 .matrix")
        assert table.locator("thead th").all_inner_texts() == ["Fused", "Words", "Voice"]
        assert table.locator("tbody tr").count() == 7
        assert table.locator("tbody tr", has_text="anger").locator("td").first.inner_text() == "59.2 %"


def test_a_wider_time_line_scrolls(report: Path, browser: Browser) -> None:
    with Opened(browser, report) as page:
        wide = "(({ scrollWidth, clientWidth }) => scrollWidth > clientWidth + 200)(track)"
        assert page.locator("#whole").is_disabled() and not page.evaluate(wide)
        page.locator("#wider").click()
        assert page.evaluate(wide)
        page.locator("#whole").click()
        assert not page.evaluate(wide)


def until(page: Page, holds: str) -> None:
    """Wait until each recording is as said; the page's own policy forbids that the browser does it."""
    end_s = time.monotonic() + 15
    while not page.evaluate(f"[...document.querySelectorAll('audio')].every((one) => {holds})"):
        assert time.monotonic() < end_s, holds
        page.wait_for_timeout(20)


def test_the_recording_goes_where_one_clicks(report: Path, browser: Browser) -> None:
    with Opened(browser, report.with_name("heard.html")) as page:
        until(page, "one.readyState > 0")
        page.locator(".said-bar").nth(1).click()
        until(page, "one.currentTime >= 5.7 && one.currentTime < 12 && !one.paused")
        page.locator(".said-bar.now").first.wait_for(state="attached")
        assert page.locator(".playhead").first.get_attribute("visibility") == "visible"
        page.evaluate("document.querySelectorAll('audio')[1].pause()")
        until(page, "one.paused")


def test_it_reads_without_a_script_and_on_paper(report: Path, browser: Browser) -> None:
    with Opened(browser, report, java_script_enabled=False) as page:
        assert page.locator("#search").is_hidden() and page.locator("tbody tr").count() == 16
        assert page.locator("#u3 .views").is_visible()
        page.emulate_media(media="print")
        assert len(page.pdf()) > 10_000


@pytest.mark.parametrize(("name", "width", "height"), [("desktop", 1280, 1500), ("phone", 390, 1500)])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_desk_and_a_phone(
    report: Path, browser: Browser, pictures: Path, name: str, width: int, height: int, scheme: Any
) -> None:
    how = {"viewport": {"width": width, "height": height}, "color_scheme": scheme}
    with Opened(browser, report, **how) as page:
        page.locator(".said-bar").nth(1).focus()
        page.evaluate("scrollTo(0, 0)")
        page.screenshot(path=pictures / f"report-{name}{'-dark' if scheme == 'dark' else ''}.png")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        luminance = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0]")
        assert (int(luminance) > 200) == (scheme == "light")
