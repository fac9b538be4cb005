"""What the browsers are shown: the demo's voices as microphones, a moving picture as cameras, its words as
what a speech recogniser would hear.
"""

from __future__ import annotations

import json
import wave
from collections.abc import Iterator
from pathlib import Path

import av
import cv2
import numpy as np

from realtime.messages import SAMPLE_RATE_HZ
from realtime.recording import Recording

# Chromium with a microphone and a camera that need no permission, on loopback, and nothing in the background.
FLAGS = (
    "--use-fake-ui-for-media-stream",
    "--use-fake-device-for-media-stream",
    "--allow-loopback-in-peer-connection",
    "--autoplay-policy=no-user-gesture-required",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

DEMO = Path("cmath_stream/demo")
SIZE = 320, 240
FPS = 6

_FROM_MS = 12_800  # where the demo becomes lively
_GAP_S = 1.6


def microphone(name: str, path: Path, first_s: float) -> list[dict[str, object]]:
    """A WAV file with the demo's lines of one person, the first after `first_s`, each soon after the other:
    in any six seconds something is begun. Their words, on the file's clock.
    """
    spoken = np.concatenate([chunk.pcm for chunk in Recording.open(DEMO / f"{name}.opus").audio()])
    heard = [np.zeros(round(first_s * SAMPLE_RATE_HZ), np.float32)]
    lines: list[dict[str, object]] = []
    for line in json.loads((DEMO / "script.json").read_text("utf-8")):
        if line["speaker"] == name and line["start_ms"] >= _FROM_MS:
            piece = spoken[line["start_ms"] * 16 : (line["end_ms"] + 100) * 16]
            start_ms = sum(map(len, heard)) // 16
            heard += [piece, np.zeros(round(_GAP_S * SAMPLE_RATE_HZ), np.float32)]
            lines.append({"start_ms": start_ms, "end_ms": start_ms + len(piece) // 16, "text": line["text"]})
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE_HZ)
        file.writeframes((np.concatenate(heard).clip(-1, 1) * 32767).astype("<i2").tobytes())
    return lines


def camera(path: Path, clip: Path | None, hue: int) -> None:
    """A picture that moves, as Y4M: of `clip` where there is one, else drawn. Y4M names its rate, and a slow
    one leaves a small machine time for the rest.
    """
    width, height = SIZE
    with path.open("wb") as file:
        file.write(f"YUV4MPEG2 W{width} H{height} F{FPS}:1 Ip A1:1 C420jpeg\n".encode())
        for frame in _filmed(clip) if clip is not None else _drawn(hue):
            file.write(b"FRAME\n" + cv2.cvtColor(frame, cv2.COLOR_BGR2YUV_I420).tobytes())


def _filmed(clip: Path) -> Iterator[np.ndarray]:
    with av.open(str(clip)) as container:
        step = max(1, round(float(container.streams.video[0].average_rate or 30) / FPS))
        for n, frame in enumerate(container.decode(video=0)):
            if n >= 8 * FPS * step:
                return
            if n % step == 0:
                yield _fit(frame.to_ndarray(format="bgr24"))


def _fit(picture: np.ndarray) -> np.ndarray:
    height, width = picture.shape[:2]
    wide = min(width, height * SIZE[0] // SIZE[1])
    tall = min(height, width * SIZE[1] // SIZE[0])
    top, left = (height - tall) // 2, (width - wide) // 2
    cut = picture[top : top + tall, left : left + wide]
    return cv2.resize(cut, SIZE, interpolation=cv2.INTER_AREA)


def _drawn(hue: int) -> Iterator[np.ndarray]:
    """A head and shoulders without a face: nobody is shown, and no face is found."""
    width, height = SIZE
    for n in range(4 * FPS):
        sway = round(6 * np.sin(2 * np.pi * n / (4 * FPS)))
        shade = np.linspace(70, 120, height, dtype=np.uint8)[:, None].repeat(width, 1)
        hsv = np.stack([np.full_like(shade, hue), np.full_like(shade, 90), shade], axis=2)
        picture = cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)
        light = cv2.cvtColor(np.array([[[hue, 60, 205]]], np.uint8), cv2.COLOR_HSV2BGR)
        ink = tuple(light[0, 0].tolist())
        middle = width // 2 + sway
        cv2.ellipse(picture, (middle, height + 25), (92, 105), 0, 0, 360, ink, -1, cv2.LINE_AA)
        cv2.ellipse(picture, (middle, 100), (42, 52), 0, 0, 360, ink, -1, cv2.LINE_AA)
        yield picture
