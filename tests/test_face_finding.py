from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from realtime.errors import ModelUnavailable
from workers import face_finding
from workers.face_finding import Box, Rgb, turned


def jpeg(rgb: Rgb) -> bytes:
    done, data = cv2.imencode(".jpg", np.ascontiguousarray(rgb[..., ::-1]))
    assert done
    return data.tobytes()


def plain(height: int = 240, width: int = 320) -> Rgb:
    return np.full((height, width, 3), 90, np.uint8)


def test_the_large_and_central_face_is_chosen() -> None:
    middle, corner, small = Box(130, 90, 60, 60), Box(0, 0, 62, 62), Box(150, 110, 20, 20)
    assert face_finding.choose([corner, small, middle], 320, 240) == middle
    assert face_finding.choose([small, Box(0, 0, 120, 120)], 320, 240) == Box(0, 0, 120, 120)
    assert face_finding.choose([], 320, 240) is None


@pytest.mark.parametrize("box", [Box(10, 10, 50, 80), Box(-20, -20, 60, 60), Box(300, 200, 90, 90)])
def test_a_crop_is_48_grey_even_at_the_edge(box: Box) -> None:
    piece = face_finding.crop(plain(), box)
    assert piece is not None
    assert piece.shape == (48, 48)
    assert piece.dtype == np.uint8


def test_a_box_outside_the_picture_gives_nothing() -> None:
    assert face_finding.crop(plain(), Box(400, 10, 20, 20)) is None


def test_a_detector_file_that_is_not_there_or_not_one(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match="does not exist"):
        face_finding.load_detector(str(tmp_path / "yunet.onnx"), 24)
    (tmp_path / "bad.onnx").write_bytes(b"bad")
    with pytest.raises(ModelUnavailable, match="does not load"):
        face_finding.load_detector(str(tmp_path / "bad.onnx"), 24)


def frames(path: Path, count: int = 8) -> list[Rgb]:
    """Some frames spread over a recording."""
    video = cv2.VideoCapture(str(path))
    total = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
    found: list[Rgb] = []
    for index in np.linspace(0, total - 2, count).astype(int):
        video.set(cv2.CAP_PROP_POS_FRAMES, float(index))
        done, bgr = video.read()
        if done:
            found.append(np.ascontiguousarray(bgr[..., ::-1]).astype(np.uint8))
    video.release()
    return found


def test_a_turned_head_by_its_landmarks() -> None:
    def marks(nose_x: float) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        return np.array([10, 20, 30, 20, nose_x, 30], np.float32)

    assert turned(marks(20)) == 0.0
    assert turned(marks(25)) == pytest.approx(0.5)
    assert turned(marks(45)) == 1.0
    assert turned(np.zeros(6, np.float32)) == 0.0


@pytest.mark.parametrize("kind", ["haar", "yunet"])
def test_real_faces_are_found_and_their_absence_too(data_dir: Path, kind: str) -> None:
    yunet = str(data_dir / "models" / "yunet_n_640_640.onnx") if kind == "yunet" else None
    detect = face_finding.load_detector(yunet, 24)
    for path in sorted((data_dir / "clips" / "talkers").glob("*.mp4")):
        found = [bool(detect(face_finding.shrink(frame, 320)[0])) for frame in frames(path)]
        assert sum(found) >= 0.75 * len(found) > 0, path.name
    for path in sorted((data_dir / "clips" / "no_face").glob("*.mp4")):
        found = [bool(detect(face_finding.shrink(frame, 320)[0])) for frame in frames(path)]
        assert sum(found) <= 0.25 * len(found), path.name
