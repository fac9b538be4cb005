"""WHIP requirement by requirement: each row of the table is one sentence of an RFC, as a client sees it.

RFC 9725 was read in its last working-group draft, which has the same sections. Rows of the RFCs that it leans
on are marked `unverified` where their own text was not at hand. What is ours alone is in test_whip.py; that a
DELETE flushes and is seen by the client, and that a silent peer is missed, in test_webrtc.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import aiohttp
import pytest

from realtime.server import IngestConfig
from tests.calls import FRAGMENT, SDP, ToneTrack, calling, serving
from tests.fake_rooms import FakeRooms
from tests.test_sdp import AUDIO, DATA, TRANSPORT, VIDEO, offer

OPEN = IngestConfig(loopback_only=True)
TOKEN = "a-token-of-sixteen-or-more"
CLOSED = IngestConfig(loopback_only=True, token=TOKEN)
ONCE = IngestConfig(loopback_only=True, requests_per_s=0.1, requests_burst=1)
FULL = IngestConfig(loopback_only=True, max_participants=1)

OFFER = offer(AUDIO, VIDEO, DATA)
# All but the first section without transport attributes of their own, as RFC 9725's example has it.
MAX_BUNDLE = offer(
    AUDIO,
    VIDEO.replace(TRANSPORT, "a=mid:{mid}\r\na=bundle-only\r\n")
    .replace("m=video 9", "m=video 0")
    .replace("a=rtcp-mux\r\na=rtcp-mux-only\r\n", ""),
)
SIMULCAST = OFFER.replace(
    "a=fmtp:97 apt=96\r\n", "a=fmtp:97 apt=96\r\na=rid:0 send\r\na=simulcast:send 0\r\n"
)
TWO_STREAMS = OFFER.replace("a=msid:s 1", "a=msid:another 1")

CREDENTIALS = "a=ice-ufrag:abCD\r\na=ice-pwd:0123456789abcdefghijkl\r\n"
SECTION = "a=group:BUNDLE 0 1 2\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\n"
CANDIDATE = "a=candidate:1 1 udp 2122260223 127.0.0.1 9 typ host generation 0 ufrag abCD network-id 1\r\n"
TCP = "a=candidate:2 1 tcp 1518280447 127.0.0.1 9 typ host tcptype active generation 0 ufrag abCD\r\n"
UNRESOLVABLE = "a=candidate:3 1 udp 2122260223 nowhere.invalid 9 typ host\r\n"
TRICKLE = SECTION + CREDENTIALS + CANDIDATE
RESTART = SECTION + CREDENTIALS.replace("abCD", "EfGh") + CANDIDATE

PROBLEM = {"Content-Type": r"application/problem\+json"}
CODECS = (r'"accepted": \[', "audio/opus", "video/VP8", "video/H264")
PREFLIGHT = {"Origin": "https://example.org", "Access-Control-Request-Method": "POST"}
DRAFT, UNVERIFIED = "draft text", "unverified"


@dataclass(frozen=True)
class Row:
    """A request and what the RFC says of its answer."""

    cites: str
    says: str
    method: str
    target: str  # endpoint | session (an open one) | nowhere
    status: int
    body: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    has: Mapping[str, str] = field(default_factory=dict)  # header of the answer → the pattern of all of it
    lacks: tuple[str, ...] = ()  # headers of the answer
    text: tuple[str, ...] = ()  # patterns found in the answer's body
    no_text: tuple[str, ...] = ()  # patterns not found there
    config: IngestConfig = OPEN
    before: int = 0  # the same request goes ahead so many times
    read: str = DRAFT


def post(cites: str, says: str, status: int, body: str = OFFER, **rest: object) -> Row:
    return Row(cites, says, "POST", "endpoint", status, body, **{"headers": SDP, **rest})  # type: ignore[arg-type]


def patch(cites: str, says: str, status: int, body: str = TRICKLE, **rest: object) -> Row:
    return Row(cites, says, "PATCH", "session", status, body, **{"headers": FRAGMENT, **rest})  # type: ignore[arg-type]


ROWS = [
    # ---- RFC 9725 §4.1 HTTP usage
    Row("RFC 9725 4.1", "GET of the endpoint is 2xx and empty", "GET", "endpoint", 204),
    Row("RFC 9725 4.1", "GET of a session is 2xx and empty", "GET", "session", 204),
    Row("RFC 9725 4.1", "GET asks for no token", "GET", "endpoint", 204, config=CLOSED),
    Row("RFC 9110 9.3.2", "HEAD goes where GET goes", "HEAD", "endpoint", 204, read=UNVERIFIED),
    Row("RFC 9110 15.5.5", "GET of no session is 404", "GET", "nowhere", 404, has=PROBLEM, read=UNVERIFIED),
    Row(
        "RFC 9110 15.5.5",
        "PATCH of no session is 404",
        "PATCH",
        "nowhere",
        404,
        TRICKLE,
        FRAGMENT,
        has=PROBLEM,
        read=UNVERIFIED,
    ),
    Row(
        "RFC 9110 15.5.6",
        "PUT is 405 and says what is allowed",
        "PUT",
        "endpoint",
        405,
        has={"Allow": r".*POST.*"},
        read=UNVERIFIED,
    ),
    # ---- RFC 9725 §4.2 ingest session set-up
    post(
        "RFC 9725 4.2",
        "an offer is answered 201 with SDP and a Location",
        201,
        has={"Content-Type": "application/sdp", "Location": r"/whip/sessions/\S+"},
        text=(r"\Av=0\r\n",),
    ),
    post(
        "RFC 9725 4.2",
        "the media type may have parameters",
        201,
        headers={"Content-Type": "application/sdp; charset=utf-8"},
    ),
    post(
        "RFC 9725 4.2", "another media type is 4xx", 415, headers={"Content-Type": "text/plain"}, has=PROBLEM
    ),
    post("RFC 9725 4.2", "no media type is 4xx", 415, headers={"Content-Type": "application/octet-stream"}),
    post("RFC 9725 4.2", "malformed SDP is 4xx", 400, "v=0\r\nm=audio\r\n", has=PROBLEM),
    post("RFC 9725 4.2", "an empty body is 4xx", 400, "", has=PROBLEM),
    post("RFC 9725 4.2", "a recvonly offer is refused", 422, OFFER.replace("sendonly", "recvonly")),
    post("RFC 9725 4.2", "an inactive offer is refused", 422, OFFER.replace("sendonly", "inactive")),
    post(
        "RFC 9725 4.2",
        "a sendrecv offer is answered recvonly",
        201,
        OFFER.replace("sendonly", "sendrecv"),
        text=("a=recvonly",),
        no_text=("a=sendrecv", "a=sendonly", "a=inactive"),
    ),
    post("RFC 9725 4.2", "a sendonly offer is answered recvonly", 201, no_text=("a=sendrecv", "a=sendonly")),
    Row("RFC 9725 4.2", "DELETE ends the session", "DELETE", "session", 200),
    Row("RFC 9110 15.5.5", "a second DELETE is 404", "DELETE", "session", 404, before=1, read=UNVERIFIED),
    Row(
        "RFC 9725 4.2",
        "OPTIONS of the endpoint is for CORS, asks for no token and tells Accept-Post",
        "OPTIONS",
        "endpoint",
        204,
        headers=PREFLIGHT | {"Access-Control-Request-Headers": "authorization,content-type"},
        has={
            "Accept-Post": "application/sdp",
            "Access-Control-Allow-Origin": r"\*",
            "Access-Control-Allow-Methods": r".*\bPOST\b.*",
            "Access-Control-Allow-Headers": "Authorization, Content-Type, If-Match",
        },
        lacks=("Link",),  # §4.6: no ICE servers on a preflight
        config=CLOSED,
    ),
    Row(
        "RFC 5789 3.1",
        "OPTIONS of a session tells Accept-Patch",
        "OPTIONS",
        "session",
        204,
        headers=PREFLIGHT | {"Access-Control-Request-Headers": "if-match"},
        has={
            "Accept-Patch": "application/trickle-ice-sdpfrag",
            "Access-Control-Allow-Methods": r".*\bPATCH\b.*\bDELETE\b.*",
            "Access-Control-Allow-Headers": r".*If-Match.*",
        },
        read=UNVERIFIED,
    ),
    post(
        "Fetch 3.3",
        "a page may read what WHIP tells in headers",
        201,
        headers=SDP | {"Origin": "https://example.org"},
        has={
            "Access-Control-Allow-Origin": r"\*",
            "Access-Control-Expose-Headers": "Location, ETag, Link, Accept-Patch, Retry-After",
        },
        read=UNVERIFIED,
    ),
    # ---- RFC 9725 §4.3 ICE
    patch("RFC 9725 4.3.1", "another media type is 4xx", 415, headers=SDP, has=PROBLEM),
    patch("RFC 9725 4.3.1", "a malformed fragment is 4xx", 400, "candidates, please", has=PROBLEM),
    patch("RFC 9725 4.3.1", "an ICE restart is 422 where there is none", 422, RESTART, text=("ICE restart",)),
    patch(
        "RFC 9725 4.3.3",
        "If-Match: * asks for a restart and is 422",
        422,
        RESTART,
        headers=FRAGMENT | {"If-Match": "*"},
    ),
    patch(
        "RFC 9725 4.3.3",
        "the star may be in quotes, as in the RFC's example",
        422,
        RESTART,
        headers=FRAGMENT | {"If-Match": '"*"'},
    ),
    patch("RFC 9725 4.3.3", "a restart refused leaves the session", 422, RESTART, before=1),
    post("RFC 9725 4.3.1", "without restarts there is no entity tag", 201, lacks=("ETag",)),
    patch(
        "RFC 9725 4.3.1",
        "an entity tag that was never given does not match: 412",
        412,
        headers=FRAGMENT | {"If-Match": '"xyzzy"'},
        has=PROBLEM,
    ),
    Row(
        "RFC 9725 4.3.1",
        "DELETE ignores entity tags",
        "DELETE",
        "session",
        200,
        headers={"If-Match": '"xyzzy"'},
    ),
    patch("RFC 9725 4.3.2", "candidates are 204, without body and entity tag", 204, lacks=("ETag",)),
    patch("RFC 9725 4.3.2", "candidates may come in many PATCHes", 204, before=3),
    patch("RFC 9725 4.3.2", "the same end of candidates twice is no error", 204, TRICKLE, before=1),
    patch("RFC 9725 4.3.2", "another transport is left out in silence", 204, SECTION + CREDENTIALS + TCP),
    patch("RFC 9725 4.3.2", "an address nobody resolves too", 204, SECTION + CREDENTIALS + UNRESOLVABLE),
    post(
        "RFC 9725 4.3.2",
        "an offer may come without candidates",
        201,
        re.sub(r"a=candidate:.*\r\n", "", OFFER),
    ),
    post(
        "RFC 9725 4.3.2",
        "the answer has all candidates of the server",
        201,
        text=(r"a=candidate:\S+ 1 udp \d+ 127\.0\.0\.1 \d+ typ host", "a=end-of-candidates"),
    ),
    post(
        "RFC 8863 4",
        "an offer that ends without a candidate to try is not given up",
        201,
        re.sub(r"a=candidate:.*\r\n", "a=end-of-candidates\r\n", OFFER),
        text=(r"a=candidate:\S+ 1 udp \d+ 127\.0\.0\.1 \d+ typ host",),
        read=UNVERIFIED,
    ),
    patch("RFC 8840 4.4", "credentials may stand before the section", 204, CREDENTIALS + SECTION + CANDIDATE),
    patch("RFC 8840 4.4", "a fragment without ufrag is refused", 400, SECTION + CANDIDATE, read=UNVERIFIED),
    patch(
        "RFC 8840 4.4",
        "a fragment of two ICE sessions is refused",
        400,
        TRICKLE + "m=video 9 UDP/TLS/RTP/SAVPF 96\r\na=mid:1\r\na=ice-ufrag:EfGh\r\n",
        read=UNVERIFIED,
    ),
    patch(
        "RFC 8838 8.2",
        "end-of-candidates is taken",
        204,
        TRICKLE + "a=end-of-candidates\r\n",
        read=UNVERIFIED,
    ),
    post(
        "RFC 8840 4.1",
        "the answer says that it trickles",
        201,
        text=("a=ice-options:trickle",),
        read=UNVERIFIED,
    ),
    # ---- RFC 9725 §4.4 WebRTC
    post("RFC 9725 4.4.1", "all sections are in one BUNDLE", 201, text=(r"a=group:BUNDLE 0 1 2\r\n",)),
    post("RFC 9725 4.4.1", "an offer without BUNDLE is refused", 422, re.sub(r"a=group:.*\r\n", "", OFFER)),
    post("RFC 9725 4.4.1", "max-bundle: a bundle-only section may leave the transport out", 201, MAX_BUNDLE),
    post(
        "RFC 9143 7.3.1",
        "a bundle-only section is taken on the first section's transport",
        201,
        MAX_BUNDLE,
        text=(r"a=group:BUNDLE 0 1\r\n",),
        no_text=("m=video 0 ",),
        read=UNVERIFIED,
    ),
    post(
        "RFC 9725 4.4.1",
        "rtcp-mux and rtcp-mux-only in each media section (RFC 5761, RFC 8858)",
        201,
        text=(
            r"m=audio[^m]*?(?s:.)*?a=rtcp-mux\r\na=rtcp-mux-only\r\n(?s:.)*m=video(?s:.)*?a=rtcp-mux-only",
        ),
    ),
    post("RFC 9725 4.4.1", "an offer without rtcp-mux is refused", 422, OFFER.replace("a=rtcp-mux\r\n", "")),
    post(
        "RFC 9725 4.4.2",
        "two audio tracks are 422",
        422,
        offer(AUDIO, AUDIO, VIDEO),
        text=("2 m=audio", *CODECS),
    ),
    post("RFC 9725 4.4.2", "two video tracks are 422", 422, offer(AUDIO, VIDEO, VIDEO), text=("2 m=video",)),
    post("RFC 9725 4.4.2", "two MediaStreams are one participant to us", 201, TWO_STREAMS),
    post(
        "RFC 9725 4.4.3",
        "a section that cannot be taken refuses the whole offer, naming the codecs",
        422,
        OFFER.replace("VP8/90000", "AV1/90000"),
        has=PROBLEM,
        text=CODECS,
    ),
    post(
        "RFC 9725 4.4.3",
        "the same for audio",
        422,
        OFFER.replace("opus", "speex").replace("PCMU", "L16"),
        text=CODECS,
    ),
    post("RFC 9725 4.4.3", "no section of an answer is rejected", 201, no_text=(r"m=\w+ 0 ", "a=inactive")),
    post(
        "RFC 3264 6",
        "a section that the offer itself disables is not answered as live",
        422,
        OFFER.replace("m=video 9", "m=video 0"),
        read=UNVERIFIED,
    ),
    post(
        "RFC 9725 4.4.4",
        "actpass is answered",
        201,
        text=(r"a=setup:(active|passive)",),
        no_text=("actpass",),
    ),
    post(
        "RFC 9725 4.4.4",
        "a client that is only active is answered passive",
        201,
        OFFER.replace("actpass", "active"),
        text=("a=setup:passive",),
    ),
    post(
        "RFC 4145 4.1",
        "a client that is only passive, as FFmpeg by default, is answered active",
        201,
        OFFER.replace("actpass", "passive"),
        text=("a=setup:active",),
        read=UNVERIFIED,
    ),
    # ---- RFC 9725 §4.5 load
    post(
        "RFC 9725 4.5",
        "under load: 503 with Retry-After",
        503,
        has={"Retry-After": r"\d+"},
        config=FULL,
        before=1,
    ),
    # ---- RFC 9725 §4.6 STUN
    post(
        "RFC 9725 4.6",
        "ICE servers come as Link on the 201",
        201,
        has={"Link": r'.*<stun:127\.0\.0\.1:9>; rel="ice-server".*'},
        config=IngestConfig(loopback_only=True, ice_servers=("stun:127.0.0.1:9",)),
    ),
    # ---- RFC 9725 §4.7 authentication
    post(
        "RFC 9725 4.7.1",
        "a bearer token is asked for",
        401,
        config=CLOSED,
        has={"WWW-Authenticate": "Bearer .*", "Access-Control-Allow-Origin": r"\*", **PROBLEM},
    ),
    post(
        "RFC 9725 4.7.1",
        "another token is refused",
        401,
        config=CLOSED,
        headers=SDP | {"Authorization": "Bearer no"},
    ),
    post(
        "RFC 6750 2.1",
        "the right one is taken",
        201,
        config=CLOSED,
        headers=SDP | {"Authorization": f"Bearer {TOKEN}"},
        read=UNVERIFIED,
    ),
    Row("RFC 9725 4.7.1", "PATCH too asks for the token", "PATCH", "nowhere", 401, config=CLOSED),
    Row("RFC 9725 4.7.1", "DELETE too", "DELETE", "nowhere", 401, config=CLOSED),
    # ---- RFC 9725 §4.8, §4.9
    post(
        "RFC 9725 4.8",
        "a simulcast offer gets an answer without simulcast",
        201,
        SIMULCAST,
        no_text=("simulcast",),
    ),
    post(
        "RFC 9725 4.9",
        "the event stream is an extension: a Link, relative (RFC 8288 3.1)",
        201,
        has={"Link": r'(.*, )?</v1/sessions/room/events>; rel="urn:\S+".*'},
    ),
    # ---- RFC 9725 §5 security
    post(
        "RFC 9725 5",
        "POST is rate-limited",
        429,
        has={"Retry-After": r"\d+", **PROBLEM},
        config=ONCE,
        before=1,
    ),
    patch("RFC 9725 5", "PATCH is rate-limited", 429, has={"Retry-After": r"\d+"}, config=ONCE),
    Row(
        "RFC 9725 5",
        "DELETE is rate-limited",
        "DELETE",
        "session",
        429,
        has={"Retry-After": r"\d+"},
        config=ONCE,
    ),
    post(
        "RFC 9725 5",
        "the session's URL has 128 random bits",
        201,
        has={"Location": r"/whip/sessions/[\w-]{22}"},
    ),
    post(
        "RFC 9110 15.5.14", "an offer above 64 KiB is 413", 413, OFFER + "a=x\r\n" * 14_000, read=UNVERIFIED
    ),
    patch(
        "RFC 9110 15.5.14",
        "a fragment above 64 KiB is 413",
        413,
        TRICKLE + "a=x\r\n" * 14_000,
        read=UNVERIFIED,
    ),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.cites}: {row.says} ({row.read})")
async def test_requirement(row: Row) -> None:
    async with serving(FakeRooms(), row.config) as url, aiohttp.ClientSession() as http:
        target = {"endpoint": f"{url}/whip/room", "nowhere": f"{url}/whip/sessions/{'x' * 22}"}
        if row.target == "session":
            async with http.post(target["endpoint"], data=OFFER, headers=SDP) as response:
                target["session"] = url + response.headers["Location"]
        for _ in range(row.before + 1):
            async with http.request(
                row.method, target[row.target], data=row.body or None, headers=row.headers
            ) as response:
                text = await response.text()
        assert response.status == row.status, text
        for name, pattern in row.has.items():
            assert re.fullmatch(pattern, response.headers.get(name, "")), (name, response.headers)
        assert not set(row.lacks) & set(response.headers)
        for pattern in row.text:
            assert re.search(pattern, text), (pattern, text)
        for pattern in row.no_text:
            assert not re.search(pattern, text), (pattern, text)
        if row.status in (204, 200):
            assert text == ""
        if row.target == "session" and row.status not in (200, 404):  # nothing but DELETE ends a session
            async with http.get(target["session"]) as response:
                assert response.status == 204


def test_every_row_says_something_of_its_own() -> None:
    assert len({(row.cites, row.says) for row in ROWS}) == len(ROWS)


async def test_a_refused_restart_keeps_the_media_flowing() -> None:
    """RFC 9725 §4.3.3: the existing ICE session stays."""
    rooms = FakeRooms()
    async with serving(rooms) as url, calling(f"{url}/whip/room", ToneTrack()) as call:
        await rooms.until(lambda: rooms.seats and rooms.seats[0].audio)
        async with call.http.patch(call.resource, data=RESTART, headers=FRAGMENT) as response:
            assert response.status == 422
        heard = len(rooms.seats[0].audio)
        await rooms.until(lambda: len(rooms.seats[0].audio) > heard + 5)
