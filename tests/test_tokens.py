"""Signed tokens: which are taken, and all the ways in which one is not."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from realtime.errors import AccessDenied, SettingsError
from realtime.grants import Grant
from realtime.settings import build
from realtime.tokens import LEEWAY_S, MAX_LIFE_S, JwtConfig, Verifier, mint
from tests.signing import SECRET, claims, raw, signed

SHARED = Verifier(JwtConfig(secret=SECRET))
RSA = rsa.generate_private_key(65537, 2048)
EC = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()
NOW = 2_000_000_000  # in the claims below; `current` makes it the time at which a test runs


def jwk(key: Any, **members: str) -> dict[str, Any]:
    kinds = {rsa.RSAPublicKey: RSAAlgorithm, ec.EllipticCurvePublicKey: ECAlgorithm}
    kind: Any = next((kinds[k] for k in kinds if isinstance(key, k)), OKPAlgorithm)
    return {**kind.to_jwk(key, as_dict=True), **members}


def key_file(folder: Path, *keys: dict[str, Any]) -> Path:
    path = folder / "keys.json"
    path.write_text(json.dumps({"keys": keys}))
    return path


@pytest.fixture
def keys(tmp_path: Path) -> Verifier:
    public = (
        jwk(RSA.public_key(), kid="r"),
        jwk(EC.public_key(), kid="e"),
        jwk(ED.public_key(), kid="d"),
    )
    return Verifier(JwtConfig(jwks=str(key_file(tmp_path, *public))))


def current(changes: dict[str, Any]) -> dict[str, Any]:
    """Claims about NOW as claims about now."""
    late_s = int(time.time()) - NOW

    def moved(value: Any) -> Any:
        if isinstance(value, str) and value.isdecimal():
            return str(int(value) + late_s)
        return value + late_s if isinstance(value, int | float) and 1e9 < value < 1e10 else value

    return {name: moved(value) for name, value in changes.items()}


def refused(verifier: Verifier, token: str) -> str:
    with pytest.raises(AccessDenied) as caught:
        verifier.verify(token)
    assert (caught.value.status, caught.value.code) == (401, "invalid_token")
    assert caught.value.__context__ is None or caught.value.__suppress_context__  # no traceback tells it
    assert not set(caught.value.detail) & set('"\\\n')  # it goes into a quoted string of a header
    return caught.value.detail


def test_what_was_minted_is_taken_for_what_it_says() -> None:
    token = mint(SECRET, room="demo", actions=["publish"], purpose="research", participant="anna")
    assert SHARED.verify(token) == Grant("demo", frozenset({"publish"}), "research", "anna")
    assert SHARED.verify(mint(SECRET, room="*", actions=["subscribe"])) == Grant(
        "*", frozenset({"subscribe"})
    )


@pytest.mark.parametrize(
    ("key", "algorithm", "kid"), [(RSA, "RS256", "r"), (EC, "ES256", "e"), (ED, "EdDSA", "d")]
)
def test_keys_of_a_file(keys: Verifier, key: Any, algorithm: str, kid: str) -> None:
    assert keys.verify(signed(key, algorithm, {"kid": kid})).room == "room"
    assert keys.verify(signed(key, algorithm)).room == "room"  # the only key for this algorithm
    refused(keys, signed(key, algorithm, {"kid": "another"}))
    refused(SHARED, signed(key, algorithm, {"kid": kid}))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"exp": None}, "not valid"),
        ({"exp": NOW - LEEWAY_S - 5}, "expired"),
        ({"exp": NOW + MAX_LIFE_S + 60}, "more than an hour"),
        ({"exp": NOW + MAX_LIFE_S + LEEWAY_S + 60, "iat": None}, "more than an hour"),
        ({"exp": NOW + 60, "iat": NOW - MAX_LIFE_S}, "more than an hour"),  # a long one in its last minute
        ({"iat": NOW + LEEWAY_S + 60}, "not valid yet"),
        ({"nbf": NOW + LEEWAY_S + 60}, "not valid yet"),
        ({"exp": float("inf")}, "not valid"),
        ({"exp": float("nan")}, "not valid"),
        ({"exp": "soon"}, "not valid"),
        ({"exp": str(NOW + 60)}, "must be numbers"),
        ({"exp": True}, "expired"),
        ({"iat": str(NOW)}, "must be numbers"),
        ({"aud": "somebody"}, "another audience"),  # RFC 7519 §4.1.3: nobody said that this is us
        ({"room": None}, "lacks"),
        ({"room": ["room"]}, "lacks"),
        ({"actions": None}, "lacks"),
        ({"actions": "publish"}, "lacks"),
        ({"actions": [1]}, "lacks"),
        ({"purpose": 7}, "must be text"),
    ],
)
def test_claims_that_do_not_do(changes: dict[str, Any], words: str) -> None:
    assert words in refused(SHARED, signed(**current(changes)))


@pytest.mark.parametrize(
    "changes",
    [
        {"exp": NOW - LEEWAY_S + 10},
        {"iat": NOW + LEEWAY_S - 10},
        {"nbf": NOW + LEEWAY_S - 10},
        {"iat": None, "exp": NOW + MAX_LIFE_S},
        {"iat": NOW, "exp": NOW + MAX_LIFE_S},
        {"exp": NOW + 60.5},
    ],
)
def test_clocks_may_differ_a_little(changes: dict[str, Any]) -> None:
    assert SHARED.verify(signed(**current(changes))).room == "room"


def test_an_audience_that_was_set_has_to_be_named() -> None:
    verifier = Verifier(JwtConfig(secret=SECRET, audience="here"))
    assert verifier.verify(signed(aud=["here", "there"])).room == "room"
    assert verifier.verify(mint(SECRET, room="room", actions=[], audience="here")).room == "room"
    assert "another audience" in refused(verifier, signed(aud="there"))
    refused(verifier, signed())


def forged(header: object, body: object, key: bytes, digest: Any = hashlib.sha256) -> str:
    """As a client makes it that signs for itself."""
    unsigned = raw(header, body).rstrip(".")
    return unsigned + raw(b"", b"", hmac.digest(key, unsigned.encode(), digest))[1:]


def test_the_algorithm_is_not_the_senders_to_choose(keys: Verifier, tmp_path: Path) -> None:
    both = Verifier(JwtConfig(secret=SECRET, jwks=str(tmp_path / "keys.json")))
    pem = RSA.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    n = jwk(RSA.public_key())["n"].encode()
    for verifier in (SHARED, keys, both):
        for name in ("none", "None", "NONE", "nOnE", "", None, 0, ["HS256"]):
            refused(verifier, raw({"alg": name, "typ": "JWT"}, claims()))
            refused(verifier, raw({"alg": name, "typ": "JWT"}, claims(), b"x"))
        for public in (pem, pem.strip(), n):  # a public key is no secret
            for kid in ("r", None):
                refused(verifier, forged({"alg": "HS256"} | ({"kid": kid} if kid else {}), claims(), public))
        refused(verifier, signed(EC, "ES256", {"kid": "r"}))
        refused(verifier, forged({"alg": "HS384"}, claims(), SECRET.encode(), hashlib.sha384))
        refused(verifier, signed(RSA, "PS256", {"kid": "r"}))
        refused(verifier, signed(RSA, "RS512", {"kid": "r"}))
    sound = forged({"alg": "HS256"}, claims(), SECRET.encode())
    assert SHARED.verify(sound).room == "room"  # so the others fail for what they say


def test_keys_in_the_token_are_not_looked_at(keys: Verifier) -> None:
    mine = rsa.generate_private_key(65537, 2048)
    for header in (
        {"jwk": jwk(mine.public_key())},
        {"jku": "https://example.org/keys"},
        {"x5u": "https://x"},
    ):
        refused(keys, signed(mine, "RS256", {"kid": "r", **header}))
        refused(keys, signed(mine, "RS256", header))


@pytest.mark.parametrize(
    "token",
    [
        "",
        "x",
        "a.b.c",
        "..",
        signed()[:-4],
        signed() + ".x",
        signed("another-secret-of-thirty-two-bytes-or-more"),
        raw(b"[" * 5000, claims()),
        raw([], claims()),
        raw({"alg": "HS256", "crit": ["exp"]}, claims(), b"x"),
        "\u00fc.\udc80.\u0000",
    ],
)
def test_what_is_no_token_of_ours(token: str) -> None:
    assert refused(SHARED, token) == "the token is not valid"


def test_a_body_that_is_no_object_of_claims() -> None:
    for body in (b"[]", b"[" * 5000, b"7", b"\xff"):
        assert refused(SHARED, forged({"alg": "HS256"}, body, SECRET.encode())) == "the token is not valid"


def test_keys_come_and_go_with_their_file(tmp_path: Path) -> None:
    path = key_file(tmp_path, jwk(EC.public_key(), kid="e"))
    verifier = Verifier(JwtConfig(jwks=str(path)))
    old, new = signed(EC, "ES256", {"kid": "e"}), signed(ED, "EdDSA", {"kid": "d"})
    verifier.verify(old)
    refused(verifier, new)
    key_file(tmp_path, jwk(ED.public_key(), kid="d"))
    os.utime(path, ns=(1, 1))
    verifier.verify(new)
    refused(verifier, old)
    path.write_text("{")  # half written
    os.utime(path, ns=(2, 2))
    verifier.verify(new)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "cannot be read"),
        ("{", "is not JSON"),
        ("[]", "no JWK set"),
        ('{"keys": []}', "no JWK set"),
        ('{"keys": [7, {"kty": "oct", "k": "c2VjcmV0"}, {"kty": "EC"}]}', "no JWK set"),
    ],
)
def test_a_key_file_that_cannot_be_used_stops_the_start(tmp_path: Path, text: str | None, words: str) -> None:
    path = tmp_path / "keys.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(SettingsError, match=words) as caught:
        Verifier(JwtConfig(jwks=str(path)))
    assert "\n" not in str(caught.value) and "ingest.jwt.jwks" in str(caught.value)


def test_keys_that_are_for_something_else_or_too_weak(tmp_path: Path) -> None:
    weak = rsa.generate_private_key(65537, 1024)
    path = key_file(
        tmp_path,
        jwk(EC.public_key(), use="enc"),
        jwk(weak.public_key()),
        RSAAlgorithm.to_jwk(RSA, as_dict=True),  # a private key has no business here
        jwk(RSA.public_key(), alg="PS256"),
        jwk(ED.public_key()),
    )
    verifier = Verifier(JwtConfig(jwks=str(path)))
    verifier.verify(signed(ED, "EdDSA"))
    for key, algorithm in ((EC, "ES256"), (RSA, "RS256"), (RSA, "PS256")):
        refused(verifier, signed(key, algorithm))


def test_a_short_secret_is_none_and_no_secret_is_shown() -> None:
    with pytest.raises(SettingsError, match="at least 32 bytes") as caught:
        build(JwtConfig, {"secret": "too-short-for-HS256"})
    assert "too-short" not in str(caught.value)
    assert SECRET not in repr(JwtConfig(secret=SECRET))
    assert jwt.get_unverified_header(mint(SECRET, room="r", actions=[])) == {"alg": "HS256", "typ": "JWT"}
