"""WHIP as HTTP, what is ours in it: rooms, participants, tokens. The RFC is in test_whip_conformance.py."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web
from aiortc import RTCSessionDescription

from realtime.errors import SettingsError
from realtime.server import IngestConfig, make_app
from realtime.settings import build
from tests.calls import FRAGMENT, SDP, GreyTrack, ToneTrack, client, offer_of, serving, until
from tests.fake_rooms import FakeRooms

TOKEN = "a-token-of-sixteen-or-more"


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


def ufrag_of(sdp: str) -> str:
    found = re.search(r"a=ice-ufrag:(\S+)", sdp)
    assert found is not None
    return found[1]


async def test_who_joins_is_seated_as_offered_and_hangs_up(http: aiohttp.ClientSession) -> None:
    rooms = FakeRooms()
    async with serving(rooms) as url:
        offer = await offer_of(ToneTrack(), GreyTrack())
        async with http.post(f"{url}/whip/room-1?participant=ann", data=offer, headers=SDP) as response:
            assert response.status == 201
            location = response.headers["Location"]
            assert "</v1/sessions/room-1/events>; rel=" in response.headers["Link"]
        (seat,) = rooms.seats
        assert seat.participant_id == "ann"
        assert seat.offered == {"audio": True, "video": True, "captions": True}
        async with http.delete(url + location):
            assert seat.left == "hangup"


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/whip/ro%20om", "room name"),
        ("/whip/" + "r" * 65, "room name"),
        ("/whip/room?participant=a%2Fb", "participant name"),
    ],
)
async def test_names_that_are_none(http: aiohttp.ClientSession, path: str, words: str) -> None:
    rooms = FakeRooms()
    async with serving(rooms) as url, http.post(url + path, data="v=0", headers=SDP) as response:
        problem = await response.json(content_type="application/problem+json")
        assert (response.status, problem["status"]) == (400, 400)
        assert words in problem["detail"]
        assert rooms.seats == []


async def test_an_offer_that_aiortc_will_not_take_leaves_no_seat(http: aiohttp.ClientSession) -> None:
    rooms = FakeRooms()
    offer = await offer_of(ToneTrack())
    async with serving(rooms) as url:
        broken = offer.replace("a=setup:actpass", "a=setup:active").replace("SAVPF 96", "SAVPF 96 200")
        for text in (broken, offer.replace("typ host", "typ strange")):
            async with http.post(f"{url}/whip/room", data=text, headers=SDP) as response:
                assert response.status in (201, 400, 422)
                location = response.headers.get("Location")
            if location is not None:
                async with http.delete(url + location):
                    pass
        assert all(seat.left for seat in rooms.seats)


async def test_a_refusal_of_the_rooms_is_told_and_counted(http: aiohttp.ClientSession) -> None:
    rooms = FakeRooms()
    rooms.full = True
    offer = await offer_of(ToneTrack())
    async with serving(rooms) as url:
        async with http.post(f"{url}/whip/room", data=offer, headers=SDP) as response:
            assert response.status == 503
            assert int(response.headers["Retry-After"]) > 0
        async with http.get(f"{url}/metrics") as response:
            assert 'cmath_stream_sessions_rejected_total{reason="503"}' in await response.text()


async def test_the_same_participant_replaces_itself(http: aiohttp.ClientSession) -> None:
    rooms = FakeRooms()
    offer = await offer_of(ToneTrack())
    async with serving(rooms) as url:
        target = f"{url}/whip/room?participant=ann"

        async def post() -> int:
            async with http.post(target, data=offer, headers=SDP) as response:
                return response.status

        assert await post() == 201
        assert 201 in await asyncio.gather(post(), post())  # the one replaced may get a 422
        assert [seat.left for seat in rooms.seats] == ["replaced", "replaced", None]
    assert rooms.seats[-1].left == "shutdown"


async def test_who_hangs_up_and_comes_back_at_once_gets_in(http: aiohttp.ClientSession) -> None:
    """The end of the old connection, however slow, comes before the new seat."""
    rooms = FakeRooms()
    offer = await offer_of(ToneTrack())
    async with serving(rooms) as url:
        async with http.post(f"{url}/whip/room?participant=ann", data=offer, headers=SDP) as response:
            location = response.headers["Location"]
        ending = asyncio.create_task(http.delete(url + location))
        async with http.post(f"{url}/whip/room?participant=ann", data=offer, headers=SDP) as response:
            assert response.status == 201
        async with await ending as response:
            assert response.status in (200, 404)  # 404: the new offer came first and replaced it
        assert rooms.seats[0].left in ("hangup", "replaced")


async def test_who_does_not_connect_is_let_go(http: aiohttp.ClientSession) -> None:
    rooms = FakeRooms()
    offer = await offer_of(ToneTrack())
    async with serving(rooms, IngestConfig(loopback_only=True, connect_timeout_s=0.3)) as url:
        async with http.post(f"{url}/whip/room", data=offer, headers=SDP) as response:
            location = response.headers["Location"]
        await rooms.until(lambda: rooms.seats[0].left)
        assert rooms.seats[0].left == "connect_timeout"
        async with http.delete(url + location) as response:
            assert response.status == 404


async def test_a_client_whose_candidates_all_trickle_connects(http: aiohttp.ClientSession) -> None:
    rooms = FakeRooms()
    async with serving(rooms) as url:
        pc, channel, _ = client(ToneTrack())
        assert channel is not None
        await pc.setLocalDescription(await pc.createOffer())
        offer = pc.localDescription.sdp
        bare = re.sub(r"a=candidate:.*\r\n|a=end-of-candidates\r\n", "", offer)
        async with http.post(f"{url}/whip/room", data=bare, headers=SDP) as response:
            location, answer = response.headers["Location"], await response.text()
        lines = re.findall(r"a=candidate:.*", offer)[:1]
        body = "\r\n".join([f"a=ice-ufrag:{ufrag_of(offer)}", "a=mid:0", *lines, ""])
        async with http.patch(url + location, data=body, headers=FRAGMENT) as response:
            assert response.status == 204
        await pc.setRemoteDescription(RTCSessionDescription(answer, "answer"))
        await until(lambda: pc.connectionState == "connected", "connected")
        await pc.close()
        await rooms.until(lambda: rooms.seats[0].left)


async def test_a_client_that_hides_its_addresses_connects(http: aiohttp.ClientSession) -> None:
    """As Firefox: mDNS names and the end of them in the offer, and once more in a PATCH."""
    rooms = FakeRooms()
    async with serving(rooms) as url:
        pc, _, _ = client(ToneTrack())
        await pc.setLocalDescription(await pc.createOffer())
        offer = pc.localDescription.sdp
        hidden = re.sub(r"(a=candidate:.*) 127\.0\.0\.1 ", r"\1 0a1b.local ", offer)
        assert ".local" in hidden and "a=end-of-candidates" in hidden
        async with http.post(f"{url}/whip/room", data=hidden, headers=SDP) as response:
            location, answer = response.headers["Location"], await response.text()
        lines = [*re.findall(r"a=candidate:.*", hidden)[:1], "a=end-of-candidates"]
        body = "\r\n".join([f"a=ice-ufrag:{ufrag_of(offer)}", "a=mid:0", *lines, ""])
        async with http.patch(url + location, data=body, headers=FRAGMENT) as response:
            assert response.status == 204
        await pc.setRemoteDescription(RTCSessionDescription(answer, "answer"))
        await until(lambda: pc.connectionState == "connected", "connected")
        await pc.close()
        await rooms.until(lambda: rooms.seats[0].left)


async def test_the_token_guards_events_too_and_health_not(http: aiohttp.ClientSession) -> None:
    async with serving(FakeRooms(), IngestConfig(token=TOKEN, loopback_only=True)) as url:
        async with http.get(f"{url}/v1/sessions/room/events") as response:
            assert response.status == 401
        for path in ("/healthz", "/readyz", "/metrics"):
            async with http.get(url + path) as response:
                assert response.status == 200


async def test_readiness_says_why_not(http: aiohttp.ClientSession) -> None:
    async def not_ready() -> str | None:
        return "no Redis"

    runner = web.AppRunner(make_app(FakeRooms(), IngestConfig(), not_ready))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with http.get(f"http://127.0.0.1:{runner.addresses[0][1]}/readyz") as response:
        assert (response.status, await response.text()) == (503, "no Redis\n")
    await runner.cleanup()


def test_an_open_door_to_the_network_is_refused() -> None:
    with pytest.raises(SettingsError, match="bearer token"):
        make_app(FakeRooms(), IngestConfig(host="0.0.0.0"))


@pytest.mark.parametrize(
    "values",
    [
        {"port": 70_000},
        {"max_participants": 0},
        {"video_fps": 0.0},
        {"ice_servers": ["http://x"]},
        {"requests_per_s": 0.0},
        {"requests_burst": 0},
        {"nothing": 1},
    ],
)
def test_settings_out_of_range(values: dict[str, object]) -> None:
    with pytest.raises(SettingsError):
        build(IngestConfig, values)
