"""Offers: what is taken, what is refused and with which words; never anything but a SignalingError."""

from __future__ import annotations

import random

import pytest

from realtime.errors import SignalingError
from realtime.sdp import MAX_SDP_BYTES, check_offer, parse_fragment, with_rtcp_mux_only

FINGERPRINT = ":".join(["AB"] * 32)
HEAD = (
    "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE {mids}\r\na=msid-semantic: WMS s\r\n"
)
TRANSPORT = (
    "c=IN IP4 0.0.0.0\r\na=ice-ufrag:abCD\r\na=ice-pwd:0123456789abcdefghijkl\r\na=ice-options:trickle\r\n"
    f"a=fingerprint:sha-256 {FINGERPRINT}\r\na=setup:actpass\r\na=mid:{{mid}}\r\n"
)
RTP = "a=sendonly\r\na=rtcp-mux\r\na=rtcp-mux-only\r\na=msid:s {mid}\r\n"
AUDIO = (
    "m=audio 9 UDP/TLS/RTP/SAVPF 111 0\r\n" + TRANSPORT + RTP + "a=rtpmap:111 opus/48000/2\r\n"
    "a=fmtp:111 minptime=10;useinbandfec=1\r\na=rtpmap:0 PCMU/8000\r\na=ssrc:77 cname:x\r\n"
    "a=candidate:1 1 udp 2113937151 192.0.2.1 50000 typ host\r\n"
)
VIDEO = (
    "m=video 9 UDP/TLS/RTP/SAVPF 96 97\r\n" + TRANSPORT + RTP + "a=rtpmap:96 VP8/90000\r\n"
    "a=rtcp-fb:96 nack pli\r\na=rtpmap:97 rtx/90000\r\na=fmtp:97 apt=96\r\n"
    "a=extmap:3 urn:ietf:params:rtp-hdrext:sdes:mid\r\n"
)
DATA = (
    "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\n"
    + TRANSPORT
    + "a=sctp-port:5000\r\na=max-message-size:262144\r\n"
)


def offer(*sections: str) -> str:
    mids = " ".join(str(n) for n in range(len(sections)))
    return HEAD.format(mids=mids) + "".join(text.format(mid=n) for n, text in enumerate(sections))


def refused(text: str | bytes) -> SignalingError:
    with pytest.raises(SignalingError) as caught:
        check_offer(text if isinstance(text, bytes) else text.encode())
    return caught.value


@pytest.mark.parametrize(
    ("sections", "kinds"),
    [
        ((AUDIO,), (True, False, False)),
        ((AUDIO, VIDEO), (True, True, False)),
        ((AUDIO, VIDEO, DATA), (True, True, True)),
        ((DATA,), (False, False, True)),
        ((VIDEO, DATA), (False, True, True)),
    ],
)
def test_sound_offers(sections: tuple[str, ...], kinds: tuple[bool, bool, bool]) -> None:
    taken = check_offer(offer(*sections).encode())
    assert (taken.audio, taken.video, taken.captions) == kinds
    assert taken.ice_ufrag == "abCD"


@pytest.mark.parametrize("codec", ["opus/48000/2", "PCMU/8000", "PCMA/8000", "G722/8000"])
def test_audio_codecs(codec: str) -> None:
    assert check_offer(offer(AUDIO.replace("PCMU", "X").replace("opus/48000/2", codec)).encode()).audio


@pytest.mark.parametrize("profile", ["42001f", "42e01f", "42E01F"])
def test_h264_baseline(profile: str) -> None:
    h264 = (
        f"H264/90000\r\na=fmtp:96 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id={profile}"
    )
    assert check_offer(offer(AUDIO, VIDEO.replace("VP8/90000", h264)).encode()).video


@pytest.mark.parametrize(
    ("text", "status", "words"),
    [
        (b"", 400, "v=0"),
        (b"hello", 400, "v=0"),
        (b"v=0\xff\xfe", 400, "UTF-8"),
        (b"v=0\r\nm=audio\r\n", 400, "not a valid SDP"),
        (b"v=0" + b"a" * MAX_SDP_BYTES, 413, "64 KiB"),
        (offer(), 422, "no audio track"),
        (offer(VIDEO), 422, "data channel named captions"),
        (offer(AUDIO, AUDIO), 422, "2 m=audio"),
        (offer(AUDIO, VIDEO, VIDEO), 422, "2 m=video"),
        (offer(AUDIO.replace("m=audio", "m=text")), 422, "m=text"),
        (offer(AUDIO).replace("a=group:BUNDLE 0\r\n", ""), 422, "BUNDLE"),
        (offer(AUDIO, VIDEO).replace("BUNDLE 0 1", "BUNDLE 0"), 422, "BUNDLE"),
        (offer(AUDIO, VIDEO).replace("BUNDLE 0 1", "BUNDLE 1 0"), 422, "first"),
        (offer(AUDIO).replace("a=mid:0\r\n", ""), 422, "a=mid"),
        (offer(AUDIO).replace("a=ice-ufrag:abCD\r\n", ""), 422, "ice-ufrag"),
        (offer(AUDIO).replace("abCD", "ab"), 422, "illegal length"),
        (offer(AUDIO).replace("abCD", "ab:D"), 422, "illegal characters"),
        (offer(AUDIO).replace(f"a=fingerprint:sha-256 {FINGERPRINT}\r\n", ""), 422, "fingerprint"),
        (offer(AUDIO).replace("sha-256", "md5"), 422, "fingerprint"),
        (offer(AUDIO).replace("a=setup:actpass\r\n", ""), 422, "a=setup"),
        (offer(AUDIO).replace("UDP/TLS/RTP/SAVPF", "RTP/AVP"), 422, "DTLS-SRTP"),
        (offer(AUDIO).replace("a=rtcp-mux\r\n", ""), 422, "rtcp-mux"),
        (offer(AUDIO).replace("a=sendonly", "a=recvonly"), 422, "recvonly"),
        (offer(AUDIO).replace("a=sendonly", "a=inactive"), 422, "inactive"),
        (offer(AUDIO).replace("a=sendonly\r\n", ""), 422, "without a direction"),
        (offer(AUDIO).replace("opus", "speex").replace("PCMU", "L16"), 422, "no codec"),
        (offer(AUDIO, VIDEO.replace("VP8", "AV1")), 422, "no codec"),
        (offer(AUDIO, VIDEO.replace("VP8", "rtx")), 422, "no codec"),
        (
            offer(AUDIO).replace("typ host", "typ host\r\na=candidate:1 1 udp 1 192.0.2.1 70000 typ host"),
            400,
            "port",
        ),
        (offer(DATA).replace("a=sctp-port:5000\r\n", ""), 422, "sctp-port"),
        (offer(DATA).replace("UDP/DTLS/SCTP", "TCP/DTLS/SCTP"), 422, "UDP/DTLS/SCTP"),
    ],
)
def test_refusals_say_why(text: str | bytes, status: int, words: str) -> None:
    error = refused(text)
    assert (error.status, words in error.detail) == (status, True), error.detail
    assert "\n" not in error.detail
    if status == 422:
        assert "audio/opus" in error.accepted


def test_mdns_candidates_and_the_end_of_candidates_are_left_out() -> None:
    hidden = "a=candidate:9 1 udp 1 0a1b-2c.local 50000 typ host generation 0\r\n"
    taken = check_offer((offer(AUDIO) + hidden + "a=end-of-candidates\r\n").encode()).sdp
    assert ".local" not in taken and "end-of-candidates" not in taken


def test_bundle_only_sections_share_the_first_transport() -> None:
    bare = (
        "m=video 0 UDP/TLS/RTP/SAVPF 96\r\na=mid:1\r\na=bundle-only\r\na=sendonly\r\n"
        "a=rtpmap:96 VP8/90000\r\n"
    )
    text = offer(AUDIO).replace("BUNDLE 0", "BUNDLE 0 1") + bare
    taken = check_offer(text.encode())
    assert taken.video and taken.sdp.count("a=ice-ufrag:abCD") == taken.sdp.count("a=rtcp-mux\r\n") == 2
    assert "port 0" in refused(text.replace("a=bundle-only\r\n", "")).detail


def test_bare_newlines_are_taken() -> None:
    assert check_offer(offer(AUDIO, DATA).replace("\r\n", "\n").encode()).captions


def test_foreign_text_never_raises_anything_else() -> None:
    whole = offer(AUDIO, VIDEO, DATA)
    lines = whole.splitlines()
    chance = random.Random(7)
    mutants = ["\r\n".join(lines[:n] + lines[n + 1 :]) for n in range(len(lines))]  # a line missing
    mutants += [whole[:n] for n in range(0, len(whole), 7)]  # cut short
    mutants += [
        "\r\n".join([*lines[:n], lines[n].partition(":")[0], *lines[n + 1 :]]) for n in range(len(lines))
    ]
    for _ in range(1500):
        text = list(whole)
        for _ in range(chance.randint(1, 6)):
            text[chance.randrange(3, len(text))] = chance.choice("0 9:;=/,-aZ\r\n\u00e9\u0663")
        mutants.append("".join(text))
    taken = 0
    for mutant in mutants:
        try:
            check_offer(mutant.encode())
            taken += 1
        except SignalingError as error:
            assert error.status in (400, 422)
    assert 0 < taken < len(mutants)


def test_rtcp_mux_only_stands_beside_rtcp_mux() -> None:
    assert with_rtcp_mux_only("a=rtcp-mux\r\na=x\r\n") == "a=rtcp-mux\r\na=rtcp-mux-only\r\na=x\r\n"


FRAGMENT = (
    "a=ice-ufrag:abCD\r\na=ice-pwd:0123456789abcdefghijkl\r\nm=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:0\r\n"
    "a=candidate:1 1 udp 2113937151 192.0.2.1 50000 typ host\r\na=end-of-candidates\r\n"
)


def test_a_fragment_is_read() -> None:
    fragment = parse_fragment(FRAGMENT.encode())
    assert fragment.ice_ufrag == "abCD"
    assert [(c.ip, c.port, c.sdpMLineIndex) for c in fragment.candidates] == [("192.0.2.1", 50000, 0)]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"\xff", 400),
        (b"hello world", 400),
        (b"a=candidate:1 1 udp\r\n", 400),
        (b"a=candidate:1 1 udp 1 192.0.2.1 99999 typ host\r\n", 400),
        (b"a=candidate:1 1 udp 1 192.0.2.1 1 typ host\r\n" * 65, 400),
        (FRAGMENT.encode() + b"m=video 9 x 0\r\na=ice-ufrag:EfGh\r\n", 400),
        (b"a" * (MAX_SDP_BYTES + 1), 413),
    ],
)
def test_foreign_fragments(body: bytes, status: int) -> None:
    with pytest.raises(SignalingError) as caught:
        parse_fragment(body)
    assert caught.value.status == status
