"""The door: a token, or the loopback interface."""

from __future__ import annotations

import pytest

from realtime.auth import bearer_of, is_loopback, is_same, require_token_off_loopback
from realtime.errors import SettingsError

TOKEN = "a-token-of-sixteen-or-more"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_loopback_needs_no_token(host: str) -> None:
    assert is_loopback(host)
    require_token_off_loopback(host, None)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.0.2.7", "example.org"])
def test_anything_else_does(host: str) -> None:
    with pytest.raises(SettingsError, match="bearer token"):
        require_token_off_loopback(host, None)
    require_token_off_loopback(host, TOKEN)
    require_token_off_loopback(host, None, signed=True)


def test_a_short_token_is_no_token() -> None:
    with pytest.raises(SettingsError, match="16 characters"):
        require_token_off_loopback("127.0.0.1", "short")


@pytest.mark.parametrize(
    ("header", "right"),
    [
        (f"Bearer {TOKEN}", True),
        (f"bearer {TOKEN}", True),
        (f"Bearer {TOKEN}x", False),
        (f"Basic {TOKEN}", False),
        (TOKEN, False),
        ("Bearer", False),
        ("Bearer \u00fc\udc80", False),
        ("", False),
        (None, False),
    ],
)
def test_authorization_header(header: str | None, right: bool) -> None:
    given = bearer_of(header)
    assert (given is not None and is_same(given, TOKEN)) is right
