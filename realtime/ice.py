"""What we need of the ICE agent under aiortc and cannot ask it for.

aiortc makes its `aioice.Connection` itself and passes no options on, so a connection is adjusted after it
was made: that one object only, never the library.
"""

from __future__ import annotations

import asyncio
import random
import time
from typing import Literal

from aioice import Candidate, Connection
from aioice.ice import StunProtocol
from aioice.stun import Message, TransactionError
from aiortc import RTCBundlePolicy, RTCConfiguration, RTCIceServer, RTCPeerConnection

# A STUN server that does not answer must not cost aioice's 5 s (aiortc#1183); its second try is after 0.5 s.
GATHER_S = 0.7
LOOPBACK = "127.0.0.1"
# RFC 7675 §5.1. aioice takes an answer that is half a second late for none, six of which end the call; on a
# busy machine they all are. Here an answer has 7.5 s, and the call ends 30 s after the last one.
CONSENT_EVERY_S = 5.0
CONSENT_EXPIRES_S = 30.0
_RETRANSMISSIONS = 3  # after 0.5, 1.5 and 3.5 s

Loopback = Literal["never", "also", "only"]


def new_connection(ice_servers: tuple[str, ...]) -> RTCPeerConnection:
    """A peer connection on one transport (RFC 9725 §4.4: BUNDLE) that talks to the given servers only.

    Without a configuration aiortc asks a public STUN server.
    """
    servers = [RTCIceServer(url) for url in ice_servers]
    return RTCPeerConnection(RTCConfiguration(iceServers=servers, bundlePolicy=RTCBundlePolicy.MAX_BUNDLE))


class IceWatch:
    """Adjusts and observes the one ICE connection of a bundled peer connection.

    To be made when the transport exists (a track, channel or remote description was set) and before
    candidates are gathered.
    """

    def __init__(self, pc: RTCPeerConnection, loopback: Loopback) -> None:
        self._connection = connection = _connection_of(pc)
        self.heard_at_s = time.monotonic()
        gather = connection.get_component_candidates
        data_received, request_received = connection.data_received, connection.request_received

        async def capped(
            component: int,
            addresses: list[str],
            timeout: int = 0,  # noqa: ASYNC109 - aioice's signature
        ) -> list[Candidate]:
            if loopback == "only":
                addresses = [LOOPBACK]
            elif loopback == "also":
                addresses = [*addresses, LOOPBACK]
            return await gather(component, addresses, GATHER_S)  # type: ignore[arg-type]  # it may be a fraction

        def heard_data(data: bytes, component: int) -> None:
            self.heard_at_s = time.monotonic()
            data_received(data, component)

        def heard_request(message: Message, addr: tuple[str, int], protocol: StunProtocol) -> None:
            self.heard_at_s = time.monotonic()
            request_received(message, addr, protocol)

        async def query_consent() -> None:
            assert connection.remote_password is not None
            granted_s = time.monotonic()
            while True:
                await asyncio.sleep(CONSENT_EVERY_S * random.uniform(0.8, 1.2))
                for pair in list(connection._nominated.values()):
                    request = connection.build_request(pair, nominate=False)
                    key = connection.remote_password.encode()
                    try:
                        await pair.protocol.request(
                            request, pair.remote_addr, integrity_key=key, retransmissions=_RETRANSMISSIONS
                        )
                        granted_s = time.monotonic()
                    except TransactionError:
                        if time.monotonic() - granted_s >= CONSENT_EXPIRES_S:
                            connection._query_consent_task = None  # it is this one: closing must not await it
                            return await connection.close()

        # mypy is right that methods are not to be assigned to; on this one instance it is the point.
        connection.get_component_candidates = capped  # type: ignore[method-assign]
        connection.data_received = heard_data  # type: ignore[method-assign]
        connection.request_received = heard_request  # type: ignore[method-assign]
        connection.query_consent = query_consent  # type: ignore[method-assign]

    @property
    def silent_s(self) -> float:
        """Seconds since anything came from the other side: RTP, RTCP, data or a consent check.

        A live peer, muted or not, asks for consent every 4 to 6 s (RFC 7675 §5.1), so a longer silence
        means that it is gone; aioice itself notices only after 25 to 35 s.
        """
        return time.monotonic() - self.heard_at_s


def _connection_of(pc: RTCPeerConnection) -> Connection:
    transceivers = pc.getTransceivers()
    if transceivers:
        dtls = transceivers[0].receiver.transport
    else:
        assert pc.sctp is not None
        dtls = pc.sctp.transport
    return dtls.transport._connection
