"""Offers of real clients (tests/offers), replayed: the server answers each, section by section."""

from __future__ import annotations

import re
from pathlib import Path

import aiohttp
import pytest

from tests.calls import SDP, serving
from tests.fake_rooms import FakeRooms
from tests.offers.record import OFFERS, scrub

FIXTURES = sorted(OFFERS.glob("*.sdp"))
CODECS = {"audio": {"opus", "pcmu", "pcma", "g722"}, "video": {"vp8", "h264", "rtx"}}


def sections(sdp: str) -> list[str]:
    return re.split(r"(?m)^(?=m=)", sdp)[1:]


def one(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    assert found is not None, (pattern, text)
    return found[1]


def codecs(section: str) -> dict[str, str]:
    """Payload type → codec, of those on the m= line."""
    on_line = one(r"m=\w+ \d+ \S+ (.*)", section).split()
    names = dict(re.findall(r"a=rtpmap:(\d+) ([^/\s]+)", section))
    return {number: names.get(number, "").lower() for number in on_line}


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: path.stem)
async def test_an_offer_of_a_real_client_is_answered(path: Path) -> None:
    offer = path.read_bytes().decode()  # noqa: ASYNC240 - nothing else runs yet
    rooms = FakeRooms()
    async with serving(rooms) as url, aiohttp.ClientSession() as http:
        async with http.post(f"{url}/whip/room", data=offer.encode(), headers=SDP) as response:
            answer = await response.text()
            assert response.status == 201, answer
            location = response.headers["Location"]
        async with http.delete(url + location) as response:
            assert response.status == 200
    kinds = re.findall(r"(?m)^m=(\w+)", offer)
    assert rooms.seats[0].offered == {
        "audio": "audio" in kinds,
        "video": "video" in kinds,
        "captions": "application" in kinds,
    }
    assert one(r"a=group:(BUNDLE .*)\r", answer) == one(r"a=group:(BUNDLE .*)\r", offer)
    assert "a=ice-options:trickle" in answer
    assert len(sections(answer)) == len(kinds)
    for asked, given in zip(sections(offer), sections(answer), strict=True):
        kind = one(r"m=(\w+)", asked)
        assert one(r"m=(\w+)", given) == kind
        assert one(r"m=\w+ (\d+)", given) != "0"
        assert one(r"a=mid:(\S+)", given) == one(r"a=mid:(\S+)", asked)
        assert one(r"a=setup:(\w+)", given) in ("active", "passive")
        assert re.search(r"a=fingerprint:sha-256 ", given) and re.search(r"a=ice-pwd:\S{22}", given)
        assert re.search(r"a=candidate:\S+ 1 udp \d+ 127\.0\.0\.1 \d+ typ host", given)
        if kind == "application":
            continue
        assert "a=recvonly" in given
        assert "a=rtcp-mux\r\na=rtcp-mux-only\r\n" in given
        taken = codecs(given)
        assert taken.items() <= codecs(asked).items()
        assert set(taken.values()) <= CODECS[kind]
        assert set(taken.values()) - {"rtx"}


def test_recorded_offers_hold_no_address_of_a_machine() -> None:
    assert len(FIXTURES) >= 8
    for path in FIXTURES:
        text = path.read_bytes().decode()
        assert scrub(text) == text


def test_scrubbing_leaves_loopback_and_hidden_names() -> None:
    line = "a=candidate:1 1 udp 2122260223 {} 50000 typ srflx raddr {} rport 9\r\n"
    assert scrub(line.format("203.0.113.7", "10.0.0.5")) == line.format("192.0.2.1", "192.0.2.1")
    assert scrub(line.format("fe80::1", "::1")) == line.format("2001:db8::1", "::1")
    for kept in ("127.0.0.1", "0a1b.local", "0.0.0.0"):
        assert scrub(line.format(kept, kept)) == line.format(kept, kept)
