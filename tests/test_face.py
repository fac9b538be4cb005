from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from realtime.errors import ModelUnavailable
from realtime.messages import FeaturesMissing, Picture
from tests.conftest import make_segment, make_transcript
from workers import face
from workers.face import Box, FaceConfig, FaceExtractor, Rgb


def jpeg(rgb: Rgb) -> bytes:
    done, data = cv2.imencode(".jpg", np.ascontiguousarray(rgb[..., ::-1]))
    assert done
    return data.tobytes()


def plain(height: int = 240, width: int = 320) -> Rgb:
    return np.full((height, width, 3), 90, np.uint8)


def extractor(detect: Callable[[Rgb], list[Box]] | None = None) -> FaceExtractor:
    """A loaded extractor, with another detector if given."""
    result = FaceExtractor(FaceConfig())
    result.load()
    if detect is not None:
        result._detect = detect
    result.warm_up()
    return result


def reason(source: FaceExtractor, *pictures: bytes, visual_reason: str | None = None) -> str:
    kept = tuple(Picture(data, index) for index, data in enumerate(pictures))
    (answer,) = source.extract([make_segment(pictures=kept, visual_reason=visual_reason)])
    assert isinstance(answer, FeaturesMissing)
    assert answer.modality == "visual"
    return answer.reason


def test_without_pictures_the_reason_of_the_segment_is_repeated() -> None:
    source = extractor()
    assert reason(source, visual_reason="no_video") == "no_video"
    assert reason(source) == "no_frames"
    assert reason(source, b"", b"no picture") == "no_frames"
    assert source.extract([make_transcript()]) == [None]
    assert source.spec is None


def test_a_picture_without_a_face() -> None:
    assert reason(extractor(), jpeg(plain())) == "no_face"


def test_a_face_in_any_picture_counts() -> None:
    bright = extractor(lambda rgb: [Box(100, 80, 60, 60)] if rgb.mean() > 150 else [])
    assert reason(bright, jpeg(plain())) == "no_face"
    assert reason(bright, jpeg(plain()), jpeg(plain() + np.uint8(100))) == "no_encoder"


def test_the_large_and_central_face_is_chosen() -> None:
    middle, corner, small = Box(130, 90, 60, 60), Box(0, 0, 62, 62), Box(150, 110, 20, 20)
    assert face.choose([corner, small, middle], 320, 240) == middle
    assert face.choose([small, Box(0, 0, 120, 120)], 320, 240) == Box(0, 0, 120, 120)
    assert face.choose([], 320, 240) is None


@pytest.mark.parametrize("box", [Box(10, 10, 50, 80), Box(-20, -20, 60, 60), Box(300, 200, 90, 90)])
def test_a_crop_is_48_grey_even_at_the_edge(box: Box) -> None:
    piece = face.crop(plain(), box)
    assert piece is not None
    assert piece.shape == (48, 48)
    assert piece.dtype == np.uint8


def test_a_box_outside_the_picture_gives_nothing() -> None:
    assert face.crop(plain(), Box(400, 10, 20, 20)) is None


def test_large_pictures_are_searched_small_and_cropped_large() -> None:
    sizes: list[tuple[int, ...]] = []

    def detect(rgb: Rgb) -> list[Box]:
        sizes.append(rgb.shape)
        return [Box(80, 40, 40, 40)]

    source = FaceExtractor(FaceConfig(search_px=320))
    source._detect = detect
    picture = plain(720, 1280)
    picture[160:320, 320:480] = 250
    piece = source.face(picture)
    assert sizes == [(180, 320, 3)]
    assert piece is not None
    assert piece.min() >= 249  # just the square that was found, at four times the scale


def test_a_detector_file_that_is_not_there_or_not_one(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match="does not exist"):
        face.load_detector(FaceConfig(yunet=str(tmp_path / "yunet.onnx")))
    (tmp_path / "bad.onnx").write_bytes(b"bad")
    with pytest.raises(ModelUnavailable, match="does not load"):
        face.load_detector(FaceConfig(yunet=str(tmp_path / "bad.onnx")))


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


@pytest.mark.parametrize("kind", ["haar", "yunet"])
def test_real_faces_are_found_and_their_absence_too(data_dir: Path, kind: str) -> None:
    yunet = data_dir / "models" / "yunet_n_640_640.onnx"
    source = FaceExtractor(FaceConfig(yunet=str(yunet) if kind == "yunet" else None))
    source.load()
    for path in sorted((data_dir / "clips" / "talkers").glob("*.mp4")):
        found = [source.face(frame) is not None for frame in frames(path)]
        assert sum(found) >= 0.75 * len(found) > 0, path.name
    for path in sorted((data_dir / "clips" / "no_face").glob("*.mp4")):
        found = [source.face(frame) is not None for frame in frames(path)]
        assert sum(found) <= 0.25 * len(found), path.name
