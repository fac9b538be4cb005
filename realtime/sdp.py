"""Whether an SDP offer can be served, decided before anything is built for it. Pure functions.

Everything a foreign client can send ends here in a SignalingError with a sentence: 400 for what is no SDP,
422 for a sound offer we cannot take whole (RFC 9725 §4.4.3 forbids a partial answer).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from aiortc.codecs import CODECS
from aiortc.rtcicetransport import RTCIceCandidate
from aiortc.rtcpeerconnection import find_common_codecs
from aiortc.sdp import MediaDescription, SessionDescription, candidate_from_sdp

from realtime.errors import SignalingError

MAX_SDP_BYTES = 64 * 1024
ACCEPTED_CODECS = (
    "audio/opus",
    "audio/G722",
    "audio/PCMU",
    "audio/PCMA",
    "video/VP8",
    "video/H264 (profile-level-id 42001f or 42e01f)",
)

# What aiortc raises on foreign SDP: it asserts, indexes, converts and looks up as it goes.
FOREIGN_SDP_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    StopIteration,
    TypeError,
    ValueError,
)

_MAX_CANDIDATES = 64
_HASHES = {"sha-256", "sha-384", "sha-512"}
_BUNDLE_ONLY = "\r\na=bundle-only\r\n"
_TRANSPORT = ("a=ice-ufrag:", "a=ice-pwd:", "a=ice-options:", "a=fingerprint:", "a=setup:", "a=rtcp-mux")
_DEAD_END = re.compile(r"a=candidate:.* \S+\.local |a=end-of-candidates$")
_ICE_CHARS = re.compile(r"[A-Za-z0-9+/]+")


@dataclass(frozen=True, slots=True)
class Offer:
    """An offer that can be served."""

    sdp: str
    audio: bool
    video: bool
    captions: bool  # it has an m=application: a data channel can be opened
    ice_ufrag: str


def check_offer(body: bytes) -> Offer:
    """Read an offer. Raises SignalingError 400, 413 or 422."""
    if len(body) > MAX_SDP_BYTES:
        raise SignalingError(413, f"an SDP offer is at most {MAX_SDP_BYTES // 1024} KiB")
    text = _text(body)
    if not text.startswith("v=0"):
        raise SignalingError(400, "the body is not an SDP offer: it does not start with v=0")
    text = _with_shared_transport(_without_dead_ends(text))
    try:
        session = SessionDescription.parse(text)
    except FOREIGN_SDP_ERRORS:
        raise SignalingError(400, "the body is not a valid SDP offer") from None
    kinds = [media.kind for media in session.media]
    for kind in kinds:
        if kind not in ("audio", "video", "application"):
            raise _refused(f"the offer has an m={kind} section; audio, video and application are understood")
        if kinds.count(kind) > 1:
            raise _refused(f"the offer has {kinds.count(kind)} m={kind} sections; one at most is taken")
    if "audio" not in kinds and "application" not in kinds:
        raise _refused(
            "the offer has no audio track: emotion is followed by utterances, so send an audio track, "
            "or a data channel named captions (m=application) for words only"
        )
    _check_bundle(session)
    for media, section in zip(session.media, _sections(text)[1:], strict=True):
        if media.port == 0 and _BUNDLE_ONLY not in section:  # RFC 3264 §5.1: offered, and not to be used
            raise _refused(f"the m={media.kind} section is disabled (port 0): leave it out")
        _check_transport(media)
        _check_candidates(media.ice_candidates)
        if media.kind == "application":
            _check_data(media)
        else:
            _check_rtp(media)
    ice = session.media[0].ice
    assert ice is not None and ice.usernameFragment is not None  # _check_transport saw to it
    return Offer(text, "audio" in kinds, "video" in kinds, "application" in kinds, ice.usernameFragment)


def with_rtcp_mux_only(sdp: str) -> str:
    """Add `a=rtcp-mux-only` beside `a=rtcp-mux` (RFC 9725 §4.4.1, RFC 8858), which aiortc never writes."""
    return sdp.replace("a=rtcp-mux\r\n", "a=rtcp-mux\r\na=rtcp-mux-only\r\n")


def with_trickle(sdp: str) -> str:
    """Say in an answer that trickled candidates are taken (RFC 8840 §4.1), which aiortc never does."""
    return sdp.replace("t=0 0\r\n", "t=0 0\r\na=ice-options:trickle\r\n", 1)


@dataclass(frozen=True, slots=True)
class Fragment:
    """A trickle ICE fragment (RFC 8840)."""

    ice_ufrag: str | None
    candidates: tuple[RTCIceCandidate, ...]


def parse_fragment(body: bytes) -> Fragment:
    """Read an `application/trickle-ice-sdpfrag` body. Raises SignalingError 400 or 413."""
    if len(body) > MAX_SDP_BYTES:
        raise SignalingError(413, f"an SDP fragment is at most {MAX_SDP_BYTES // 1024} KiB")
    ufrags: set[str] = set()
    candidates: list[RTCIceCandidate] = []
    for line in _without_dead_ends(_text(body)).splitlines():
        name, _, value = line.strip().partition(":")
        if name == "a=ice-ufrag":
            ufrags.add(value)
        elif name == "a=candidate":
            candidates.append(_candidate(value))
        elif name and not re.match(r"[a-z]=", name):
            raise SignalingError(400, "the body is not an SDP fragment (RFC 8840)")
    if len(candidates) > _MAX_CANDIDATES:
        raise SignalingError(400, f"more than {_MAX_CANDIDATES} candidates in one fragment")
    if len(ufrags) > 1:
        raise SignalingError(400, "the fragment names more than one ICE session; all sections are bundled")
    return Fragment(next(iter(ufrags), None), tuple(candidates))


def _candidate(value: str) -> RTCIceCandidate:
    try:
        candidate = candidate_from_sdp(value)
    except FOREIGN_SDP_ERRORS:
        raise SignalingError(400, "a candidate line of the fragment is malformed") from None
    _check_candidates([candidate])
    candidate.sdpMLineIndex = 0  # whatever mid it names: all is bundled on the first section's transport
    return candidate


def _text(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError:
        raise SignalingError(400, "the body is not UTF-8 text") from None


def _sections(text: str) -> list[str]:
    """What comes before the first m= line, then each m= section."""
    return re.split(r"(?m)^(?=m=)", text)


def _with_shared_transport(text: str) -> str:
    """Give bundle-only sections the transport attributes of the first section.

    A client that follows RFC 9143 §7.1.3 and RFC 9429 §5.2.1 writes them there alone; aiortc looks for them
    in every section.
    """
    head, *sections = _sections(text)
    if not sections:
        return text
    shared = [line for line in sections[0].splitlines() if line.startswith(_TRANSPORT)]
    for n, section in enumerate(sections):
        if _BUNDLE_ONLY in section and "\r\na=ice-ufrag:" not in section:
            own = section.splitlines()
            sections[n] += "".join(f"{line}\r\n" for line in shared if line not in own)
    return head + "".join(sections)


def _without_dead_ends(text: str) -> str:
    """Leave out candidates whose address is an mDNS name, and the end of candidates.

    Resolving such names would hold up the answer by a multicast query for each; a browser that hides its
    address is found all the same, as its checks reach ours first (peer-reflexive, RFC 8445 §7.3.1.3). For
    that we must still be there: told that no more candidates come, aioice gives up at once when none is left
    to try, which RFC 8863 §4 forbids. Who does not connect is let go by the connect timeout.
    """
    lines = (line for line in text.splitlines() if not _DEAD_END.match(line))
    return "\r\n".join(lines) + "\r\n"


def _check_bundle(session: SessionDescription) -> None:
    mids = [media.rtp.muxId for media in session.media]
    if len(set(mids)) < len(mids) or not all(mids):
        raise _refused("each m= section needs an a=mid of its own (RFC 9143)")
    bundles = [group.items for group in session.group if group.semantic == "BUNDLE"]
    if len(bundles) != 1 or set(bundles[0]) != set(mids):
        raise _refused("all m= sections must be in one a=group:BUNDLE (RFC 9725 §4.4.1)")
    if bundles[0][0] != mids[0]:
        raise _refused("the first m= section must be the first of a=group:BUNDLE")


def _check_transport(media: MediaDescription) -> None:
    name = f"the m={media.kind} section"
    ufrag = media.ice.usernameFragment if media.ice else None
    password = media.ice.password if media.ice else None
    if not ufrag or not password:
        raise _refused(f"{name} lacks a=ice-ufrag or a=ice-pwd")
    if not 4 <= len(ufrag) <= 256 or not 22 <= len(password) <= 256:
        raise _refused(f"{name} has an a=ice-ufrag or a=ice-pwd of illegal length (RFC 8839 §5.4)")
    if not _ICE_CHARS.fullmatch(ufrag) or not _ICE_CHARS.fullmatch(password):
        raise _refused(f"{name} has an a=ice-ufrag or a=ice-pwd with illegal characters")
    if media.dtls is None or media.dtls.role not in ("auto", "client", "server"):
        raise _refused(f"{name} needs a=setup:actpass, active or passive")
    if not any(fingerprint.algorithm.lower() in _HASHES for fingerprint in media.dtls.fingerprints):
        raise _refused(f"{name} needs an a=fingerprint of type sha-256")


def _check_candidates(candidates: list[RTCIceCandidate]) -> None:
    if len(candidates) > _MAX_CANDIDATES:
        raise SignalingError(400, f"an m= section has more than {_MAX_CANDIDATES} candidates")
    if not all(0 <= candidate.port < 65536 for candidate in candidates):
        raise SignalingError(400, "a candidate has an impossible port")


def _check_rtp(media: MediaDescription) -> None:
    name = f"the m={media.kind} section"
    if media.profile not in ("UDP/TLS/RTP/SAVPF", "UDP/TLS/RTP/SAVP"):
        raise _refused(f"{name} is {media.profile}; only UDP/TLS/RTP/SAVPF (DTLS-SRTP) is taken")
    if not media.rtcp_mux:
        raise _refused(f"{name} lacks a=rtcp-mux")
    if media.direction not in ("sendonly", "sendrecv"):
        raise _refused(f"{name} is {media.direction or 'without a direction'}; a publisher sends: a=sendonly")
    try:
        common = find_common_codecs(CODECS[media.kind], media.rtp.codecs)
    except FOREIGN_SDP_ERRORS:
        raise SignalingError(400, f"{name} has malformed codec parameters") from None
    if not any(codec.name.lower() != "rtx" for codec in common):
        raise _refused(f"{name} offers no codec that is understood here")


def _check_data(media: MediaDescription) -> None:
    if media.profile not in ("UDP/DTLS/SCTP", "DTLS/SCTP") or (
        media.profile == "UDP/DTLS/SCTP" and not 0 < (media.sctp_port or 0) < 65536
    ):
        raise _refused("the m=application section must be UDP/DTLS/SCTP webrtc-datachannel with a=sctp-port")
    if media.profile == "DTLS/SCTP" and not str(media.fmt[0]).isdigit():
        raise _refused("the m=application section names no SCTP port")


def _refused(detail: str) -> SignalingError:
    return SignalingError(422, detail, ACCEPTED_CODECS)
