"""FFmpeg's own WHIP client, as PyAV carries it: silence and grey pictures in real time.

A program of its own, `python -m tests.ffmpeg URL SECONDS [OPTION=VALUE…]`: PyAV holds the GIL while FFmpeg
waits for the answer, so a server in the same process could not give it.
"""

from __future__ import annotations

import datetime
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

FPS = 15
RATE_HZ = 48_000
PACKET = 960


def certificate(folder: Path) -> dict[str, str]:
    """Options with a certificate on P-256.

    FFmpeg with GnuTLS, as in PyAV, makes itself one on P-224, which no DTLS of a browser or of ours accepts.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "whip")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    encoding, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    (folder / "cert.pem").write_bytes(made.public_bytes(encoding))
    (folder / "key.pem").write_bytes(
        key.private_bytes(encoding, serialization.PrivateFormat.TraditionalOpenSSL, plain)
    )
    return {"cert_file": str(folder / "cert.pem"), "key_file": str(folder / "key.pem")}


def play_to(url: str, seconds: float, options: dict[str, str]) -> None:
    """Publish to a WHIP URL; `options` are those of FFmpeg's muxer. Raises av.error.FFmpegError."""
    out = av.open(url, "w", format="whip", options=options)
    try:
        sound = out.add_stream("libopus", rate=RATE_HZ)
        sound.layout = "stereo"
        picture = out.add_stream("libx264", rate=FPS)
        picture.width, picture.height, picture.pix_fmt = 320, 240, "yuv420p"
        picture.options = {"profile": "baseline", "tune": "zerolatency", "preset": "ultrafast"}
        samples = np.zeros((1, 2 * PACKET), np.int16)
        grey = np.full((240, 320, 3), 120, np.uint8)
        start_s = time.monotonic()
        sent = shown = 0
        while (now_s := time.monotonic() - start_s) < seconds:
            while sent < now_s * RATE_HZ:
                audio = av.AudioFrame.from_ndarray(samples, format="s16", layout="stereo")
                audio.sample_rate, audio.pts = RATE_HZ, sent
                sent += PACKET
                out.mux(sound.encode(audio))
            while shown < now_s * FPS:
                video = av.VideoFrame.from_ndarray(grey, format="rgb24")
                video.pts, video.time_base = shown, Fraction(1, FPS)
                shown += 1
                out.mux(picture.encode(video))
            time.sleep(0.005)
    finally:
        out.close()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        given = dict(option.split("=", 1) for option in sys.argv[3:])
        play_to(sys.argv[1], float(sys.argv[2]), certificate(Path(folder)) | given)
