"""WHIP over HTTP (RFC 9725): `POST /whip/{room}`, then PATCH and DELETE on the resource it names.

A participant that is already in the room is *replaced*, not refused: who lost the network comes back before
the old connection is known to be dead (up to 8 s), and a 409 would lock them out just then.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from dataclasses import dataclass

from aiohttp import web
from aiohttp.typedefs import Handler
from yarl import URL

from realtime import telemetry
from realtime.access import grant_of
from realtime.errors import BusError, SignalingError
from realtime.purposes import PurposeConfig
from realtime.rate_limit import RateLimit
from realtime.refusals import problem, require_name
from realtime.sdp import MAX_SDP_BYTES, Offer, check_offer, parse_fragment, with_trickle
from realtime.seats import Rooms
from realtime.turn import IceServer, links
from realtime.webrtc import Peer, PeerConfig

log = logging.getLogger(__name__)

SDP_TYPE = "application/sdp"
FRAGMENT_TYPE = "application/trickle-ice-sdpfrag"
RECORDED = "-recorded"  # at the end of the name of a notice that says so
EVENTS_REL = "urn:cmath-stream:rel:events"  # Link relation of the session's event stream
_BODY_S = 10.0
_CORS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Expose-Headers": "Location, ETag, Link, Accept-Patch, Retry-After",
}
_PREFLIGHT = {
    "Access-Control-Allow-Methods": "OPTIONS, GET, HEAD, POST, PATCH, DELETE",
    "Access-Control-Allow-Headers": "Authorization, Content-Type, If-Match",
    "Access-Control-Max-Age": "600",
}


_Handler = Callable[[web.Request], Awaitable[web.Response]]


@dataclass(frozen=True, slots=True)
class _Resource:
    """One WHIP session: what its URL stands for."""

    room: str
    peer: Peer
    ice_ufrag: str  # of the client's offer


@dataclass(frozen=True, slots=True)
class _Joining:
    """Who wants to come in, and what they declare."""

    room: str
    participant: str
    purpose: str | None
    consent: str | None  # version of the notice that was agreed to


class Whip:
    """The peers of this process and the routes that make and end them."""

    def __init__(
        self,
        rooms: Rooms,
        config: PeerConfig,
        max_participants: int,
        limit: RateLimit,
        pictures: Executor,
        purposes: PurposeConfig,
        records: Callable[[str], bool],
        ice_servers: Callable[[], list[IceServer]],
    ) -> None:
        """`limit` counts POST, PATCH and DELETE together, of each client address. `records` says whether
        sessions of a room are recorded: then whoever joins has to have agreed to it. `ice_servers` are for
        clients."""
        self._rooms = rooms
        self._config = config
        self._limit = limit
        self._max_participants = max_participants
        self._pictures = pictures
        self._purposes = purposes
        self._records = records
        self._ice_servers = ice_servers
        self._resources: dict[str, _Resource] = {}
        self._ended: set[str] = set()  # of those, told to end and still closing
        self._joining = asyncio.Lock()  # so that two offers of one participant cannot both replace a third
        self._closing = False

    def add_routes(self, app: web.Application) -> None:
        """Put the WHIP endpoint and resources on `app`."""
        endpoint, resource = "/whip/{room}", "/whip/sessions/{token}"
        app.router.add_get(resource, _guarded(self._get))
        app.router.add_options(resource, _resource_options)
        app.router.add_patch(resource, _guarded(self._limited(self._patch)))
        app.router.add_delete(resource, _guarded(self._limited(self._delete)))
        app.router.add_get(endpoint, _empty)
        app.router.add_options(endpoint, _endpoint_options)
        app.router.add_post(endpoint, _guarded(self._limited(self._post)))
        app.router.add_get("/v1/rooms/{room}/ice-servers", _guarded(self._get_ice_servers), allow_head=False)

    async def close(self, deadline_s: float) -> None:
        """Take no more offers, close every peer; give up on what is left after the deadline."""
        self._closing = True
        peers = [resource.peer for resource in self._resources.values()]
        closing = [asyncio.create_task(peer.close("shutdown"), name="close peer") for peer in peers]
        if not closing:
            return
        _, late = await asyncio.wait(closing, timeout=deadline_s)
        for task in late:
            task.cancel()
        if late:
            log.warning("%d peers did not close within %g s", len(late), deadline_s)

    def _limited(self, handler: _Handler) -> _Handler:
        """Hold back floods (RFC 9725 §5): an offer costs us a transport, a DELETE may be a guess at a URL."""

        async def limited(request: web.Request) -> web.Response:
            wait_s = self._limit.wait_s(request.remote or "", time.monotonic())
            if wait_s > 0:
                raise SignalingError(429, "too many requests from this address", retry_after_s=wait_s)
            return await handler(request)

        return limited

    async def _post(self, request: web.Request) -> web.Response:
        room = require_name("room", request.match_info["room"])
        who = _joining(request, room)
        offer = check_offer(await _body(request, SDP_TYPE))
        token, peer = await self._join(who, offer)
        try:
            answer = await peer.answer(offer.sdp)
        except BaseException:
            await peer.close("setup_failed")
            raise
        # Relative: only the proxy in front of us knows our scheme and name.
        events = URL.build(path=f"/v1/sessions/{room}/events")
        headers = {
            "Location": f"/whip/sessions/{token}",
            "Link": ", ".join([*links(self._ice_servers()), f'<{events}>; rel="{EVENTS_REL}"']),
            "Accept-Patch": FRAGMENT_TYPE,
        }  # no ETag: there is no ICE restart (RFC 9725 §4.3.1)
        body = with_trickle(answer).encode()  # as text it would go out with a charset, which the type has not
        return web.Response(status=201, body=body, content_type=SDP_TYPE, headers=headers)

    async def _join(self, who: _Joining, offer: Offer) -> tuple[str, Peer]:
        async with self._joining:
            under_way = self._rooms.open_session(who.room)
            of_room = under_way.purpose if under_way else None
            self._purposes.require(who.purpose, of_room=of_room, consent=who.consent)
            if self._records(who.room) and not (who.consent or "").endswith(RECORDED):
                raise SignalingError(
                    403,
                    f"this room is recorded: join with consent=VERSION{RECORDED} of a notice that says so",
                )
            for other in list(self._resources.values()):
                if other.room == who.room and other.peer.seat.participant_id == who.participant:
                    await other.peer.close("replaced")
            if self._closing:
                raise SignalingError(503, "this server is shutting down")
            if len(self._resources) >= self._max_participants:
                raise SignalingError(503, "this server is full; try again in a few seconds")
            try:
                seat = await self._rooms.join(
                    who.room,
                    who.participant,
                    captions=offer.captions,
                    audio=offer.audio,
                    video=offer.video,
                    purpose=who.purpose,
                    consent=who.consent,
                )
            except BusError as error:
                raise SignalingError(503, str(error)) from error
            token = secrets.token_urlsafe(16)  # 128 bits: knowing the URL is what allows PATCH and DELETE
            peer = Peer(seat, self._config, self._pictures, lambda _: self._forget(token))
            self._resources[token] = _Resource(who.room, peer, offer.ice_ufrag)
            return token, peer

    async def _get(self, request: web.Request) -> web.Response:
        self._resource(request)
        return await _empty(request)

    async def _get_ice_servers(self, request: web.Request) -> web.Response:
        """For clients that need them before their offer: the Link header of its answer comes after it."""
        grant_of(request).require(require_name("room", request.match_info["room"]), "publish")
        return web.json_response(self._ice_servers(), headers={"Cache-Control": "no-store"})

    async def _patch(self, request: web.Request) -> web.Response:
        resource = self._own_resource(request)
        # RFC 9110 §13.1.1: we give no entity tag, so none matches. RFC 9725's example has the star in quotes.
        if request.headers.get("If-Match", "*").strip('"') != "*":
            raise SignalingError(412, "this session has no entity tag; leave If-Match out")
        fragment = parse_fragment(await _body(request, FRAGMENT_TYPE))
        if fragment.ice_ufrag is None:
            raise SignalingError(400, "the fragment lacks a=ice-ufrag (RFC 8840 §4.4)")
        if fragment.ice_ufrag != resource.ice_ufrag:
            raise SignalingError(422, "ICE restart is not supported; make a new offer instead")
        await resource.peer.add_candidates(fragment.candidates)
        return web.Response(status=204)

    async def _delete(self, request: web.Request) -> web.Response:
        resource = self._own_resource(request)
        # A second DELETE gets 404, while a new offer of the participant waits for the end.
        self._ended.add(request.match_info["token"])
        await resource.peer.close("hangup")
        return web.Response(status=200)

    def _resource(self, request: web.Request) -> _Resource:
        token = request.match_info["token"]
        resource = self._resources.get(token)
        if resource is None or token in self._ended:
            raise SignalingError(404, "there is no such WHIP session, or it has ended")
        return resource

    def _own_resource(self, request: web.Request) -> _Resource:
        """As its holder may change it. Only the room is asked for: whoever goes need not say what for."""
        resource = self._resource(request)
        grant_of(request).require(resource.room, "publish")
        return resource

    def _forget(self, token: str) -> None:
        self._resources.pop(token, None)
        self._ended.discard(token)


@web.middleware
async def cors_middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Let pages of any origin publish (RFC 9725 §4.2). The event stream is not opened this way: on a
    loopback server without a token, any site the user visits could read it.
    """
    headers = _CORS if request.path.startswith("/whip/") else {}
    try:
        response = await handler(request)
    except web.HTTPException as error:
        error.headers.update(headers)
        raise
    if not response.prepared:
        response.headers.update(headers)
    return response


def _guarded(handler: _Handler) -> Handler:
    """Turn a refusal into its problem document (RFC 9457)."""

    async def guarded(request: web.Request) -> web.Response:
        try:
            return await handler(request)
        except SignalingError as error:
            if request.method == "POST":
                telemetry.SESSIONS_REJECTED_TOTAL.labels(reason=str(error.status)).inc()
            log.info("%s refused: %d", request.method, error.status)  # the detail may hold a person's name
            response = problem(error)
            if error.status == 415:
                response.headers["Accept-Post"] = SDP_TYPE
                response.headers["Accept-Patch"] = FRAGMENT_TYPE
            return response

    return guarded


def _joining(request: web.Request, room: str) -> _Joining:
    grant = grant_of(request)
    grant.require(room, "publish")
    participant = grant.named(request.query.get("participant") or None) or f"p-{secrets.token_hex(4)}"
    purpose = grant.declared(request.query.get("purpose") or None)
    consent = request.query.get("consent") or None
    for what, name in (("participant", participant), ("purpose", purpose), ("consent", consent)):
        if name is not None:
            require_name(what, name)
    return _Joining(room, participant, purpose, consent)


async def _body(request: web.Request, content_type: str) -> bytes:
    if request.content_type != content_type:
        raise SignalingError(415, f"the body must be {content_type}, not {request.content_type}")
    body = b""
    try:
        async with asyncio.timeout(_BODY_S):
            async for chunk in request.content.iter_any():
                body += chunk
                if len(body) > MAX_SDP_BYTES:
                    break  # whoever reads it says that it is too large
    except TimeoutError:
        raise SignalingError(408, f"the body did not come within {_BODY_S:.0f} s") from None
    return body


async def _empty(_: web.Request) -> web.Response:
    return web.Response(status=204)


async def _endpoint_options(_: web.Request) -> web.Response:
    return web.Response(status=204, headers={**_PREFLIGHT, "Accept-Post": SDP_TYPE})


async def _resource_options(_: web.Request) -> web.Response:
    return web.Response(status=204, headers={**_PREFLIGHT, "Accept-Patch": FRAGMENT_TYPE})
