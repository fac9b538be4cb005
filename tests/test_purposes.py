"""What a conversation may be for, and who has agreed: refused with a reason, or on record."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator

import aiohttp
import jsonschema
import pytest

from cmath_stream.events import participant_joined, schema
from realtime.errors import SettingsError, SignalingError
from realtime.messages import ParticipantJoined
from realtime.purposes import RESTRICTED, PurposeConfig
from realtime.server import IngestConfig, make_app
from realtime.settings import build
from realtime.wire import decode, encode
from tests.calls import SDP, ToneTrack, offer_of, serving
from tests.fake_rooms import FakeRooms


def refusal(
    config: PurposeConfig, purpose: str | None, of_room: str | None = None, consent: str | None = "1"
) -> str:
    """Why, or nothing."""
    try:
        config.require(purpose, of_room=of_room, consent=consent)
    except SignalingError as error:
        assert error.status == 403 and "\n" not in error.detail
        return error.detail
    return ""


@pytest.mark.parametrize(
    "purpose",
    [*RESTRICTED, "Workplace", "HIRING", "remote-workplace", "school_lessons", "team.work", "work1"],
)
def test_purposes_that_the_law_forbids(purpose: str) -> None:
    said = refusal(PurposeConfig(), purpose)
    assert "EU AI Act, Art. 5(1)(f)" in said and "no legal advice" in said


@pytest.mark.parametrize(
    "purpose", ["personal", "research", "demonstration", "homework", "preschooler", "a", "7", None]
)
def test_purposes_that_it_does_not(purpose: str | None) -> None:
    assert refusal(PurposeConfig(), purpose) == ""


def test_an_override_lets_in_what_it_names_and_no_more() -> None:
    config = PurposeConfig(allow_restricted=("workplace",))
    assert refusal(config, "workplace") == refusal(config, "workplace-safety") == ""
    for purpose in ("work", "school", "workplace-hiring"):
        assert "Art. 5(1)(f)" in refusal(config, purpose)


@pytest.mark.parametrize(
    ("purpose", "of_room", "told"),
    [
        ("demo", None, ""),
        ("demo", "demo", ""),
        (None, "demo", ""),
        ("research", "demo", "another purpose"),
        ("Demo", "demo", "another purpose"),
    ],
)
def test_a_room_has_one_purpose(purpose: str | None, of_room: str | None, told: str) -> None:
    said = refusal(PurposeConfig(), purpose, of_room)
    assert told in said and bool(said) is bool(told)


def test_a_list_of_purposes_is_all_there_is() -> None:
    config = PurposeConfig(allowed=("research", "personal"))
    assert refusal(config, "research") == refusal(config, None, "personal") == ""
    for purpose in ("demo", None):
        assert "one of: research, personal" in refusal(config, purpose)


def test_consent_may_be_asked_for() -> None:
    assert refusal(PurposeConfig(), "demo", consent=None) == ""
    assert "consent" in refusal(PurposeConfig(require_consent=True), "demo", consent=None)
    assert refusal(PurposeConfig(require_consent=True), "demo", consent="1") == ""


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"allow_restricted": ["worplace"]}, "worplace"),
        ({"allowed": ["research", "school"]}, "allow_restricted"),
    ],
)
def test_settings_that_would_not_do_what_they_say(values: dict[str, object], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        build(PurposeConfig, values)


def test_an_override_is_logged_at_the_start(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        make_app(FakeRooms(), IngestConfig())
        assert caplog.messages == []
        make_app(FakeRooms(), IngestConfig(purposes=PurposeConfig(allow_restricted=("workplace",))))
    (message,) = caplog.messages
    assert "workplace" in message and "Art. 5(1)(f)" in message


# ---- over HTTP ---------------------------------------------------------------------------------------


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def test_who_is_refused_leaves_no_trace_and_turns_nobody_out(http: aiohttp.ClientSession) -> None:
    rooms, offer = FakeRooms(), await offer_of(ToneTrack())

    async def join(query: str) -> tuple[int, str]:
        async with http.post(f"{url}/whip/room?{query}", data=offer, headers=SDP) as response:
            return response.status, "" if response.status == 201 else (
                await response.json(content_type=None)
            )["detail"]

    async with serving(rooms) as url:
        assert (await join("participant=ann&purpose=workplace"))[0] == 403
        assert rooms.seats == [] and rooms.open == {}
        assert (await join("participant=ann&purpose=demo&consent=1"))[0] == 201
        status, said = await join("participant=ann&purpose=research")  # ann's own name, another purpose
        assert (status, said) == (403, "the conversation in this room has another purpose")
        assert [seat.left for seat in rooms.seats] == [None]
        assert (await join("participant=ben"))[0] == 201
        assert rooms.consents == ["1", None]
        for query in ("purpose=to%20see", "consent=yes%0a", "purpose=" + "x" * 65):
            assert (await join(query))[0] == 400


async def test_consent_that_is_asked_for(http: aiohttp.ClientSession) -> None:
    rooms, offer = FakeRooms(), await offer_of(ToneTrack())
    config = IngestConfig(loopback_only=True, purposes=PurposeConfig(require_consent=True))
    async with serving(rooms, config) as url:
        for query, status in (("", 403), ("consent=", 403), ("consent=1", 201)):
            async with http.post(f"{url}/whip/room?{query}", data=offer, headers=SDP) as response:
                assert response.status == status
    assert rooms.consents == ["1"]


# ---- on record ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("consent", [None, "1"])
def test_consent_goes_from_the_join_to_the_event(consent: str | None) -> None:
    message = decode(encode(ParticipantJoined("s", "anna", 40, consent)))
    assert isinstance(message, ParticipantJoined) and message.consent == consent
    event = participant_joined(message) | {"seq": 1}
    jsonschema.Draft202012Validator(schema()).validate(event)
    assert event["consent"] == (None if consent is None else {"notice": "1", "at_ms": 40})


def test_a_join_that_was_written_before_there_was_consent_is_read() -> None:
    fields = encode(ParticipantJoined("s", "anna", 40))
    fields["head"] = b'{"session_id":"s","participant_id":"anna","at_ms":40}'
    assert decode(fields) == ParticipantJoined("s", "anna", 40, None)
