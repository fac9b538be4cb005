"""Every route against every kind of token: a route that is new has no row here, and fails."""

from __future__ import annotations

import os
import re
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from importlib.resources import files

import aiohttp
import pytest
from aiohttp import hdrs

from realtime.redis_cluster import Client
from realtime.sockets import subprotocols
from realtime.tokens import JwtConfig
from tests.calls import FRAGMENT, SDP, ToneTrack, offer_of, quiet
from tests.signing import SECRET, claims, raw, signed
from tests.subscribing import TOKEN, Served, served

OTHER_SECRET = "another-secret-of-thirty-two-bytes-or-more"


@dataclass(frozen=True)
class Row:
    """A route, a request to it, and what the answer is when the token will do."""

    method: str
    route: str
    right: int
    path: str = ""  # default: the route itself
    action: str | None = None  # None: no token is asked for
    either: bool = False  # any action will do
    purpose: bool = False  # the token's purpose counts
    socket: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.method} {self.route}"


ENDPOINT, RESOURCE = "/whip/{room}", "/whip/sessions/{token}"
EVENTS, SOCKET = "/v1/sessions/{session}/events", "/v1/sessions/{session}/ws"
ROOM, MESH, ICE = "/v1/rooms/{room}", "/v1/rooms/{room}/mesh", "/v1/rooms/{room}/ice-servers"
JOIN = "/whip/room?participant=ben&purpose=demo&consent=1"
FILES = [f"/web/{name}" for name in sorted(os.listdir(str(files("realtime").joinpath("web"))))]
ROWS = [
    *(Row("GET", route, 200) for route in ("/", "/healthz", "/readyz", "/metrics", *FILES)),
    *(Row("HEAD", route, 200) for route in ("/", "/healthz", "/readyz", "/metrics", *FILES)),
    *(Row(method, ENDPOINT, 204, "/whip/room") for method in ("GET", "HEAD", "OPTIONS")),
    *(Row(method, RESOURCE, 204) for method in ("GET", "HEAD", "OPTIONS")),
    Row("POST", ENDPOINT, 201, JOIN, "publish", purpose=True, headers=SDP),
    Row("PATCH", RESOURCE, 204, action="publish", headers=FRAGMENT),
    Row("DELETE", RESOURCE, 200, action="publish"),
    Row("GET", EVENTS, 200, "/v1/sessions/room/events", "subscribe", purpose=True),
    Row("GET", SOCKET, 101, "/v1/sessions/room/ws", "subscribe", purpose=True, socket=True),
    Row("GET", ROOM, 200, "/v1/rooms/room", "subscribe", either=True),
    Row("HEAD", ROOM, 200, "/v1/rooms/room", "subscribe", either=True),
    Row("GET", ICE, 200, "/v1/rooms/room/ice-servers", "publish"),
    Row("GET", MESH, 101, "/v1/rooms/room/mesh?participant=ben", "publish", socket=True),
]


def wrong_tokens() -> dict[str, str]:
    """By what is wrong; each answered with 401 wherever a token is asked for."""
    now_s = int(time.time())
    sound = signed()
    return {
        "malformed": "not.a.token",
        "no JSON in it": raw(b"{", b"{", b"x"),
        "signature cut off": sound[: sound.rindex(".") + 1],
        "claims of another": sound.replace(sound.split(".")[1], signed(room="*").split(".")[1]),
        "alg none": raw({"alg": "none", "typ": "JWT"}, claims()),
        "alg nOnE": raw({"alg": "nOnE", "typ": "JWT"}, claims(), b"x"),
        "wrong key": signed(OTHER_SECRET),
        "expired": signed(iat=now_s - 700, exp=now_s - 100),
        "without exp": signed(exp=None),
        "longer than an hour": signed(exp=now_s + 2 * 3600),
        "longer than an hour, no iat": signed(iat=None, exp=now_s + 2 * 3600),
        "from the future": signed(iat=now_s + 600, exp=now_s + 900),
        "not yet": signed(nbf=now_s + 600),
        "for another audience": signed(aud="elsewhere"),
        "almost the static one": TOKEN[:-1],
    }


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
async def here(redis_client: Client) -> AsyncIterator[Served]:
    async with served(redis_client, token=TOKEN, jwt=JwtConfig(secret=SECRET)) as server:
        await server.start("s0")
        yield server
    await quiet()


@dataclass
class Door:
    """Requests to one route; a resource of the room is there for those that need one."""

    row: Row
    here: Served
    http: aiohttp.ClientSession
    offer: str
    resource: str = ""

    async def open(self) -> None:
        headers = SDP | bearer(TOKEN)
        async with self.http.post(self.here.url + JOIN, data=self.offer, headers=headers) as response:
            assert response.status == 201, await response.text()
            self.resource = response.headers[hdrs.LOCATION]

    async def knock(
        self, token: str | None, query: str = "", authorization: str | None = None
    ) -> tuple[int, str]:
        """(status, challenge) of the answer."""
        row, url = self.row, self.here.url + (self.row.path or self.resource_or_route()) + query
        if row.socket and authorization is None:
            try:
                async with self.http.ws_connect(url, protocols=subprotocols(token)):
                    return 101, ""
            except aiohttp.WSServerHandshakeError as error:
                assert error.headers is not None
                return error.status, error.headers.get(hdrs.WWW_AUTHENTICATE, "")
        headers = dict(row.headers) | bearer(token)
        if authorization is not None:
            headers[hdrs.AUTHORIZATION] = authorization
        async with self.http.request(row.method, url, data=self.body(), headers=headers) as response:
            challenge = response.headers.get(hdrs.WWW_AUTHENTICATE, "")
            if response.status in (401, 403) and row.method != "HEAD":
                document = await response.json(content_type="application/problem+json")
                assert document["status"] == response.status and "\n" not in document["detail"]
                assert token is None or token not in str(document)
            return response.status, challenge

    def resource_or_route(self) -> str:
        return self.resource if self.row.route == RESOURCE else self.row.route

    def body(self) -> str | None:
        if self.row.method == "POST":
            return self.offer
        found = re.search(r"a=ice-ufrag:\S+", self.offer)
        assert found is not None
        return f"{found[0]}\r\n" if self.row.method == "PATCH" else None


def bearer(token: str | None) -> dict[str, str]:
    return {} if token is None else {hdrs.AUTHORIZATION: f"Bearer {token}"}


async def test_every_route_has_a_row(here: Served) -> None:
    assert {(row.method, row.route) for row in ROWS} == here.routes


@pytest.fixture
async def offer() -> str:
    return await offer_of(ToneTrack())


@pytest.mark.parametrize("row", [row for row in ROWS if row.action is None], ids=lambda row: row.name)
async def test_routes_that_are_open(row: Row, here: Served, http: aiohttp.ClientSession, offer: str) -> None:
    door = Door(row, here, http, offer)
    if row.route == RESOURCE:
        await door.open()
    for token in (None, "nonsense", signed(actions=[]), TOKEN):
        assert await door.knock(token) == (row.right, "")


@pytest.mark.parametrize("row", [row for row in ROWS if row.action is not None], ids=lambda row: row.name)
async def test_routes_that_ask(row: Row, here: Served, http: aiohttp.ClientSession, offer: str) -> None:
    door = Door(row, here, http, offer)
    if row.route == RESOURCE:
        await door.open()

    # 401: nothing to go by, then something that is not valid (RFC 6750 §3, §3.1).
    nothing = (401, 'Bearer realm="cmath-stream"')
    assert await door.knock(None) == nothing
    for scheme in ("Basic YTpi", "Bearer", "Bearer ", signed(), f"Token {signed()}"):
        assert await door.knock(None, authorization=scheme) == nothing, scheme
    for name in ("access_token", "token", "jwt", "authorization"):
        assert await door.knock(None, f"{'&' if '?' in row.path else '?'}{name}={signed()}") == nothing
    for what, token in wrong_tokens().items():
        status, challenge = await door.knock(token)
        assert (status, what) == (401, what)
        assert challenge.startswith('Bearer realm="cmath-stream", error="invalid_token", error_description="')

    # 403: valid, and for something else.
    others = [] if row.either else [{"publish": "subscribe", "subscribe": "publish"}[row.action or ""]]
    for what, token in {
        "wrong room": signed(room="other"),
        "part of a room's name": signed(room="roo"),
        "no room": signed(room=""),
        "wrong action": signed(actions=others),
        "unknown action": signed(actions=["admin", "*"]),
        "wrong purpose": signed(purpose="research"),
    }.items():
        if what == "wrong purpose" and not row.purpose:
            continue
        status, challenge = await door.knock(token)
        assert (status, what) == (403, what)
        assert 'error="insufficient_scope"' in challenge

    # Right, in all the ways there are; a resource can be deleted once.
    right = [
        TOKEN,
        signed(),
        signed(room="*"),
        signed(actions=[row.action]),
        signed(actions=[row.action, "later"]),
        signed(purpose="demo"),
    ]
    if row.either:
        right.append(signed(actions=["publish"]))
    for token in right:
        assert await door.knock(token) == (row.right, "")
        if row.method == "DELETE":
            await door.open()


async def test_a_token_for_a_purpose_says_it_for_a_client_that_does_not(
    here: Served, http: aiohttp.ClientSession, offer: str
) -> None:
    url = f"{here.url}/whip/quiet?participant=ben"
    async with http.post(
        url, data=offer, headers=SDP | bearer(signed(room="quiet", purpose="demo"))
    ) as answer:
        assert answer.status == 201
    async with http.post(url + "&purpose=research", data=offer, headers=SDP | bearer(TOKEN)) as answer:
        assert answer.status == 403  # the conversation has the token's purpose
        assert hdrs.WWW_AUTHENTICATE not in answer.headers  # no other token would help


async def test_a_token_for_a_participant_is_for_nobody_else(
    here: Served, http: aiohttp.ClientSession, offer: str
) -> None:
    headers = bearer(signed(sub="ben"))
    for query, status in (("participant=ann", 403), ("participant=ben", 201), ("", 201)):
        async with http.post(f"{here.url}/whip/room?{query}", data=offer, headers=SDP | headers) as answer:
            assert answer.status == status
    mesh = f"{here.url}/v1/rooms/room/mesh"
    protocols = subprotocols(signed(sub="ben"))
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await http.ws_connect(f"{mesh}?participant=ann", protocols=protocols)
    assert refused.value.status == 403
    async with http.ws_connect(mesh, protocols=protocols) as ws:
        assert (await ws.receive_json(timeout=5))["type"] == "welcome"
    # A subject that is no name of ours is not bent into one.
    async with http.post(
        f"{here.url}/whip/room", data=offer, headers=SDP | bearer(signed(sub="auth0|5"))
    ) as answer:
        assert answer.status == 400


@pytest.mark.parametrize("way", ["events", "ws"])
async def test_a_session_by_its_id_belongs_to_its_room(
    way: str, here: Served, http: aiohttp.ClientSession
) -> None:
    await here.start("s1", "other")
    await here.end("s1")

    async def status(name: str, token: str) -> int:
        url = f"{here.url}/v1/sessions/{name}/{way}"
        if way == "ws":
            try:
                async with http.ws_connect(url, protocols=subprotocols(token)):
                    return 101
            except aiohttp.WSServerHandshakeError as error:
                return error.status
        async with http.get(url, headers=bearer(token)) as answer:
            return answer.status

    told, all_told = (101, 101) if way == "ws" else (200, 204)
    assert await status("s0", signed()) == told  # open, by its id
    assert await status("s1", signed()) == 403  # over, and another room's
    assert await status("s1", signed(room="other")) == all_told
    assert await status("s1", signed(room="other", purpose="research")) == 403
    assert await status("s1", signed(room="s1")) == 403  # a room called like it does not reach it
    # Whether there is such a session is told to those alone who could hear it.
    assert await status("nobody", signed()) == 403
    assert await status("nobody", signed(room="nobody")) == 404
    assert await status("nobody", signed(room="*")) == 404
