"""What clients are told of relays, and a real relay that takes the login."""

from __future__ import annotations

import base64
import hashlib
import hmac
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest
from aiortc import RTCConfiguration, RTCIceServer, RTCPeerConnection

from realtime.server import IngestConfig
from realtime.turn import TurnConfig, ice_servers, links
from tests.calls import serving
from tests.fake_rooms import FakeRooms

SECRET = "north"  # the example of the draft
TURN = TurnConfig(("turn:turn.example.org:3478?transport=tcp",), SECRET, hours=2)


def test_a_login_says_when_it_ends_and_proves_that_we_gave_it() -> None:
    stun, relay = ice_servers(["stun:a.example:3478"], TURN, 1_000_000.0)
    assert stun == {"urls": "stun:a.example:3478"}
    ends, _, nobody = relay["username"].partition(":")
    assert (int(ends), len(nobody)) == (1_007_200, 8)
    mac = hmac.new(b"north", relay["username"].encode(), hashlib.sha1).digest()
    assert base64.b64decode(relay["credential"]) == mac
    other = ice_servers([], TURN, 1_000_000.0)[0]
    assert other["username"] != relay["username"]
    assert ice_servers([], TurnConfig(), 0.0) == []


def test_as_link_headers() -> None:
    stun, relay = links(ice_servers(["stun:a.example:3478"], TURN, 0.0))
    assert stun == '<stun:a.example:3478>; rel="ice-server"'
    assert relay.startswith('<turn:turn.example.org:3478?transport=tcp>; rel="ice-server"; username="7200:')
    assert relay.endswith('"; credential-type="password"')


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"urls": ("stun:a.example",), "secret": "s"}, "not a turn: URL"),
        ({"urls": ("turn:",), "secret": "s"}, "not a turn: URL"),
        ({"urls": ("turn:a.example",)}, "secret must be set"),
        ({"hours": 0}, "hours"),
    ],
)
def test_settings_that_would_not_work(values: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        TurnConfig(**values)  # type: ignore[arg-type]


def test_a_relay_among_the_servers_without_a_login_is_sent_where_it_belongs() -> None:
    with pytest.raises(ValueError, match=r"not a stun: URL; relays are told in turn\.urls"):
        IngestConfig(ice_servers=("turn:a.example:3478",))


def test_the_secret_is_in_no_repr() -> None:
    assert SECRET not in repr(IngestConfig(turn=TURN))


# ---- a real relay


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[int]:
    """coturn with the settings of deploy/compose.yaml that matter here; its port."""
    program = shutil.which("turnserver")
    if program is None:
        pytest.skip("no turnserver (coturn) here")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = [
        "-n", "--use-auth-secret", f"--static-auth-secret={SECRET}", "--realm=turn.example.org",
        "--fingerprint", f"--listening-port={port}", "--listening-ip=127.0.0.1", "--relay-ip=127.0.0.1",
        "--no-tls", "--no-dtls", "--no-cli", "--no-multicast-peers", f"--pidfile={tmp_path}/pid",
        "--log-file=stdout", f"--userdb={tmp_path}/db",
    ]  # fmt: skip
    running = subprocess.Popen(
        [program, *options], cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield port
    finally:
        running.terminate()
        running.wait(10)


async def relayed(server: dict[str, str]) -> bool:
    """Whether a client is given an address at the relay."""
    pc = RTCPeerConnection(RTCConfiguration([RTCIceServer(**server)]))
    try:
        pc.createDataChannel("x")
        await pc.setLocalDescription(await pc.createOffer())
        return " typ relay" in pc.localDescription.sdp
    finally:
        await pc.close()


@pytest.mark.parametrize("transport", ["udp", "tcp"])
async def test_a_relay_takes_the_login_that_a_client_gets(relay: int, transport: str) -> None:
    turn = TurnConfig((f"turn:127.0.0.1:{relay}?transport={transport}",), SECRET)
    config = IngestConfig(loopback_only=True, turn=turn)
    async with serving(FakeRooms(), config) as url, aiohttp.ClientSession() as http:
        async with http.get(f"{url}/v1/rooms/demo/ice-servers") as answer:
            assert answer.status == 200
            (server,) = await answer.json()
    assert await relayed(server)
    assert not await relayed(server | {"credential": "x"})
    (expired,) = ice_servers([], turn, time.time() - 13 * 3600)
    assert not await relayed(expired)
