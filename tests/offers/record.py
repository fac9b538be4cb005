"""Records the offers of real clients as tests/offers/*.sdp: `python -m tests.offers.record [NAME…]`.

A browser is started without a window on a page of ours, which posts its offers back; FFmpeg's and aiortc's
are taken where they arrive. Addresses of this machine are replaced by documentation addresses (RFC 5737,
RFC 3849); loopback and mDNS names stay. What is not installed is left out, with a line that says so.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import av
from aiohttp import web

from realtime.ice import new_connection
from tests.calls import GreyTrack, ToneTrack

OFFERS = Path(__file__).parent
PAGE = """<!doctype html><title>offers</title><script>
async function record(name, config, captions) {
  const pc = new RTCPeerConnection(config);
  const media = await navigator.mediaDevices.getUserMedia({audio: true, video: true});
  for (const track of media.getTracks())
    pc.addTransceiver(track, {direction: "sendonly", streams: [media]});
  if (captions) pc.createDataChannel("captions");
  await pc.setLocalDescription(await pc.createOffer());
  for (let n = 0; n < 30 && pc.iceGatheringState !== "complete"; n++)
    await new Promise(done => setTimeout(done, 100));
  await fetch("/offer/" + name, {method: "POST", body: pc.localDescription.sdp});
}
const browser = location.hash.slice(1);
record(browser, {}, true)
  .then(() => record(browser + "-max-bundle", {bundlePolicy: "max-bundle"}, false))
  .catch(error => fetch("/failed", {method: "POST", body: String(error)}));
</script>"""
_BROWSER_S = 60.0
FIREFOX_PREFS = """
user_pref("media.navigator.streams.fake", true);
user_pref("media.navigator.permission.disabled", true);
user_pref("media.autoplay.default", 0);
user_pref("app.update.enabled", false);
user_pref("datareporting.policy.dataSubmissionEnabled", false);
user_pref("network.captive-portal-service.enabled", false);
user_pref("network.connectivity-service.enabled", false);
user_pref("media.gmp-manager.updateEnabled", false);
"""
CHROMIUM_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-ui-for-media-stream",
    "--use-fake-device-for-media-stream",
)


def scrub(sdp: str) -> str:
    """Without addresses of this machine."""

    def replaced(match: re.Match[str]) -> str:
        try:
            address = ipaddress.ip_address(match[0])
        except ValueError:
            return match[0]
        if address.is_loopback or address.is_unspecified:
            return match[0]
        return "192.0.2.1" if address.version == 4 else "2001:db8::1"

    return "".join(
        re.sub(r"(?<=\s)[0-9A-Fa-f:.]+(?=\s)", replaced, line)
        if line.startswith(("a=candidate:", "c=", "o=", "a=rtcp:"))
        else line
        for line in sdp.splitlines(keepends=True)
    )


def keep(name: str, sdp: str) -> None:
    """Write one offer, byte for byte but for addresses."""
    (OFFERS / f"{name}.sdp").write_bytes(scrub(sdp).encode())
    print(f"{name}: recorded")


@asynccontextmanager
async def listening() -> AsyncIterator[tuple[str, asyncio.Queue[tuple[str, str]]]]:
    """A web server that shows the page and collects offers as (name, sdp); a name of "" is an error."""
    heard: asyncio.Queue[tuple[str, str]] = asyncio.Queue()

    async def page(_: web.Request) -> web.Response:
        return web.Response(text=PAGE, content_type="text/html")

    async def offer(request: web.Request) -> web.Response:
        heard.put_nowait((request.match_info.get("name", ""), await request.text()))
        return web.Response(status=406)  # to FFmpeg: the offer is all we want

    app = web.Application()
    app.router.add_get("/", page)
    app.router.add_post("/offer/{name}", offer)
    app.router.add_post("/failed", offer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://localhost:{runner.addresses[0][1]}", heard
    finally:
        await runner.cleanup()


async def browser(program: str, *flags: str, name: str) -> None:
    """Start a browser on the page and keep its two offers."""
    async with listening() as (url, heard):
        process = await asyncio.create_subprocess_exec(
            program,
            *flags,
            f"{url}/#{name}",
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            async with asyncio.timeout(_BROWSER_S):
                for _ in range(2):
                    got, sdp = await heard.get()
                    if not got:
                        raise RuntimeError(f"{program}: {sdp}")
                    keep(got, sdp)
        finally:
            process.terminate()
            await process.wait()


async def chromium() -> None:
    """Debian's Chromium, with its fake camera and microphone."""
    program = shutil.which("chromium")
    if program is None:
        print("chromium: not installed, left out")
        return
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        await browser(program, *CHROMIUM_FLAGS, f"--user-data-dir={profile}", name="chromium")


async def firefox() -> None:
    """Firefox ESR, likewise."""
    program = shutil.which("firefox-esr")
    if program is None:
        print("firefox: not installed, left out")
        return
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        Path(profile, "user.js").write_text(FIREFOX_PREFS)  # noqa: ASYNC240 - nothing else runs here
        await browser(program, "--headless", "--no-remote", "--profile", profile, name="firefox")


async def aiortc() -> None:
    """What `cmath-stream publish` sends."""
    pc = new_connection(())
    for track in (ToneTrack(), GreyTrack()):
        pc.addTransceiver(track, "sendonly")
    pc.createDataChannel("captions")
    await pc.setLocalDescription(await pc.createOffer())
    keep("aiortc", pc.localDescription.sdp)
    await pc.close()


async def ffmpeg() -> None:
    """The whip muxer of the FFmpeg that PyAV carries."""
    if "whip" not in av.formats_available:
        print("ffmpeg: PyAV's FFmpeg has no whip muxer, left out")
        return
    async with listening() as (url, heard):
        target = url.replace("localhost", "127.0.0.1") + "/offer/ffmpeg"
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.ffmpeg", target, "1", stderr=asyncio.subprocess.DEVNULL
        )
        await process.wait()  # it fails, as its offer is refused
        keep(*heard.get_nowait())


CLIENTS: dict[str, Callable[[], Awaitable[None]]] = {
    "chromium": chromium,
    "firefox": firefox,
    "aiortc": aiortc,
    "ffmpeg": ffmpeg,
}


async def main() -> None:
    """Record the clients named, or all."""
    for name in sys.argv[1:] or CLIENTS:
        await CLIENTS[name]()


if __name__ == "__main__":
    asyncio.run(main())
