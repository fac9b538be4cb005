"""Faces in a picture: found, one of them chosen, cut out as the encoder wants it, 48 x 48 grey.

Knows pictures and boxes; not utterances, nor what a face expresses. Keeps no picture.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from realtime.errors import ModelUnavailable

FACE_PX = 48

Rgb = NDArray[np.uint8]  # [H, W, 3]
Grey = NDArray[np.uint8]  # [H, W]


class Box(NamedTuple):
    """A face, pixels."""

    x: float
    y: float
    width: float
    height: float
    turned: float = 0.0  # 0 = towards the camera, 1 = profile; known from landmarks only


Detector = Callable[[Rgb], list[Box]]


def load_detector(yunet: str | None, smallest_px: int) -> Detector:
    """The YuNet file, better on turned faces, or the Haar cascade that OpenCV carries.

    `smallest_px` is the side of the smallest face that the cascade looks for. Raises ModelUnavailable.
    """
    import cv2
    import cv2.data

    if yunet is not None:
        if not Path(yunet).is_file():
            raise ModelUnavailable(f"face detector file {yunet!r} does not exist")
        try:
            return _yunet(cv2.FaceDetectorYN.create(yunet, "", (320, 320), score_threshold=0.7))
        except cv2.error as error:
            raise ModelUnavailable(f"face detector {yunet!r} does not load: {error.err}") from None
    cascade = cv2.CascadeClassifier(cv2.data.haarcascades + "haarcascade_frontalface_alt2.xml")

    def detect(rgb: Rgb) -> list[Box]:
        grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
        return [
            Box(*map(float, box))
            for box in cascade.detectMultiScale(grey, 1.1, 4, minSize=(smallest_px, smallest_px))
        ]

    return detect


def _yunet(network: Any) -> Detector:
    def detect(rgb: Rgb) -> list[Box]:
        network.setInputSize((rgb.shape[1], rgb.shape[0]))
        _, rows = network.detect(np.ascontiguousarray(rgb[..., ::-1]))  # it was trained on BGR
        return [] if rows is None else [_box(row) for row in rows]

    return detect


def _box(row: NDArray[np.float32]) -> Box:
    x, y, width, height = map(float, row[:4])
    return Box(x, y, width, height, turned(row[4:10]))


def turned(landmarks: NDArray[np.float32]) -> float:
    """Both eyes and the nose, x and y, [6]: how far the nose lies from the middle between the eyes, 0..1."""
    right, left, nose = landmarks.reshape(3, 2)
    across = left - right
    middle = (left + right) / 2
    return min(1.0, 2.0 * abs(float((nose - middle) @ across)) / max(float(across @ across), 1.0))


def scaled(box: Box, factor: float) -> Box:
    """The same face in the picture at another scale."""
    x, y, width, height, turn = box
    return Box(x * factor, y * factor, width * factor, height * factor, turn)


def choose(boxes: Sequence[Box], width: int, height: int) -> Box | None:
    """The face that is large and central: area, halved for a face in a corner."""

    def weight(box: Box) -> float:
        off_x = (box.x + box.width / 2) / width - 0.5
        off_y = (box.y + box.height / 2) / height - 0.5
        return box.width * box.height * (1.0 - 0.5 * float(np.hypot(off_x, off_y)) / 0.7071)

    return max(boxes, key=weight, default=None)


def crop(rgb: Rgb, box: Box) -> Grey | None:
    """The square around a box as grey [48, 48]; None where nothing of it lies in the picture."""
    import cv2

    side = max(box.width, box.height)
    left, top = round(box.x + (box.width - side) / 2), round(box.y + (box.height - side) / 2)
    piece = rgb[max(0, top) : max(0, round(top + side)), max(0, left) : max(0, round(left + side))]
    if piece.size == 0:
        return None
    grey = cv2.cvtColor(np.ascontiguousarray(piece), cv2.COLOR_RGB2GRAY)
    return np.asarray(cv2.resize(grey, (FACE_PX, FACE_PX), interpolation=cv2.INTER_AREA), np.uint8)


def shrink(rgb: Rgb, longest_px: int) -> tuple[Rgb, float]:
    """The picture with its longest side at most `longest_px`, and its scale."""
    import cv2

    height, width = rgb.shape[:2]
    scale = min(1.0, longest_px / max(height, width))
    if scale == 1.0:
        return rgb, 1.0
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), np.uint8), scale


def decode_jpeg(jpeg: bytes) -> Rgb | None:
    """RGB [H, W, 3], or None for bytes that are no picture."""
    import cv2

    bgr = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR) if jpeg else None
    return None if bgr is None else np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)
