"""WHIP clients from npm, as published, in Chromium and Firefox: they join, are heard and seen, and leave.

The packages are fetched by npm when the test runs and are not kept. The page has another origin than the
server, so CORS is tried too, and the server asks for a token.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aioice.ice import get_host_addresses

from realtime.server import IngestConfig
from tests.calls import serving
from tests.e2e.stage import FLAGS
from tests.fake_rooms import FakeRooms
from tests.offers.record import FIREFOX_PREFS

playwright = pytest.importorskip("playwright.async_api", reason="playwright is not installed")

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

TOKEN = "a-token-of-sixteen-or-more"
NPM_S = 60.0
# package → (what is built of it, if it is no plain module; how its documentation says to publish and to stop)
CLIENTS = {
    "whip-whep@1.2.0": (
        "node_modules/whip-whep/whip.js",
        """
        const pc = new RTCPeerConnection();
        for (const track of media.getTracks())
          pc.addTransceiver(track, {direction: "sendonly", streams: [media]});
        const client = new WHIPClient();
        await client.publish(pc, url, token);
        window.stop_publishing = () => client.stop();
        """,
    ),
    "@eyevinn/whip-web-client@1.1.7": (
        "bundle.js",
        """
        const client = new WHIPClient({endpoint: url, opts: {authkey: token, iceServers: []}});
        await client.ingest(media);
        window.stop_publishing = () => client.destroy();
        """,
    ),
}
PAGE = """<!doctype html><title>npm client</title><script type="module">
import {{ WHIPClient }} from "/{module}";
window.publish = async (url, token) => {{
  const media = await navigator.mediaDevices.getUserMedia({{audio: true, video: true}});
  {publish}
}};
if (location.hash) window.publish(...location.hash.slice(1).split("|"));
</script>"""


@pytest.fixture(params=CLIENTS)
async def site(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    """URL of a page with `publish(url, token)` and `stop_publishing()` made of one package.

    With `#URL|TOKEN` after it the page publishes by itself.
    """
    package: str = request.param
    module, publish = CLIENTS[package]
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    packages = [package] if module != "bundle.js" else [package, "esbuild@0.25"]
    await run(tmp_path, "npm", "install", "--no-audit", "--no-fund", "--no-save", *packages)
    if module == "bundle.js":
        (tmp_path / "entry.js").write_text(f'export * from "{package.rpartition("@")[0]}";')
        build = ["--bundle", "--format=esm", "--outfile=bundle.js"]
        await run(tmp_path, "node_modules/.bin/esbuild", "entry.js", *build)

    async def page(_: web.Request) -> web.Response:
        return web.Response(text=PAGE.format(module=module, publish=publish), content_type="text/html")

    app = web.Application()
    app.router.add_get("/", page)
    app.router.add_static("/", tmp_path)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://localhost:{runner.addresses[0][1]}/"
    await runner.cleanup()


async def run(folder: Path, *command: str) -> None:
    """Run a program of the registry's world; where that cannot be reached the test is skipped."""
    process = await asyncio.create_subprocess_exec(
        *command, cwd=folder, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), NPM_S)
    except TimeoutError:
        process.kill()
        await process.wait()
        pytest.skip(f"{command[0]} did not finish within {NPM_S:.0f} s")
    if process.returncode != 0:
        pytest.skip(f"{' '.join(command[:2])} failed: {output.decode(errors='replace')[-200:]}")


@asynccontextmanager
async def browsing(url: str) -> AsyncIterator[Any]:
    """A page in Chromium with a fake camera and microphone; an error of the page fails the test."""
    async with playwright.async_playwright() as driver:
        browser = await driver.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        try:
            page = await browser.new_page()
            errors: list[str] = []
            page.on("pageerror", lambda error: errors.append(str(error)))
            await page.goto(url)
            yield page
            assert not errors
        finally:
            await browser.close()


@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed")
async def test_it_is_heard_and_seen_and_hangs_up(site: str) -> None:
    rooms = FakeRooms()
    config = IngestConfig(loopback_only=True, token=TOKEN)
    async with serving(rooms, config) as url, browsing(site) as page:
        await page.evaluate("([url, token]) => publish(url, token)", [f"{url}/whip/room", TOKEN])
        await rooms.until(lambda: rooms.seats and rooms.seats[0].audio, timeout_s=20)
        await rooms.until(lambda: len(rooms.seats[0].pictures) >= 3, timeout_s=20)
        assert rooms.seats[0].offered == {"audio": True, "video": True, "captions": False}
        await page.evaluate("() => stop_publishing()")
        await rooms.until(lambda: rooms.seats[0].left)
        assert rooms.seats[0].left in (
            "hangup",
            "closed",
        )  # closed: it says goodbye by DTLS before its DELETE


@pytest.mark.skipif(shutil.which("firefox-esr") is None, reason="firefox-esr is not installed")
async def test_firefox_is_heard_and_seen_and_missed_when_it_dies(site: str, tmp_path: Path) -> None:
    """Without a driver: its addresses stay hidden behind mDNS names, as a user's are.

    It sends nothing to loopback, so media take the machine's own address.
    """
    if not get_host_addresses(use_ipv4=True, use_ipv6=True):
        pytest.skip("this machine has no address but loopback")
    profile = tmp_path / "profile"
    profile.mkdir()
    (profile / "user.js").write_text(FIREFOX_PREFS)
    rooms = FakeRooms()
    config = IngestConfig(token=TOKEN)
    async with serving(rooms, config) as url:
        firefox = await asyncio.create_subprocess_exec(
            *("firefox-esr", "--headless", "--no-remote", "--profile", str(profile)),
            f"{site}#{url}/whip/room|{TOKEN}",
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            await rooms.until(lambda: rooms.seats and rooms.seats[0].audio, timeout_s=60)
            await rooms.until(lambda: len(rooms.seats[0].pictures) >= 3, timeout_s=20)
        finally:
            firefox.kill()
            await firefox.wait()
        await rooms.until(lambda: rooms.seats[0].left, timeout_s=10)
        assert rooms.seats[0].left in ("lost", "closed")
