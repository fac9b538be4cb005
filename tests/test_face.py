"""Faces in pictures become one vector an utterance, or an honest reason why not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from realtime.errors import ModelUnavailable
from realtime.messages import Answer, Features, FeaturesMissing, Job, Picture
from tests.conftest import make_segment, make_transcript
from tests.encoders import FACE, face_weights
from tests.test_face_finding import frames, jpeg, plain
from workers.extractor import FeatureSpec
from workers.face import FaceConfig, FaceExtractor
from workers.face_encoder import LABELS
from workers.face_finding import Box, Rgb


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return face_weights(tmp_path_factory.mktemp("face"))


@pytest.fixture
def extractor(weights: Path) -> FaceExtractor:
    """Loaded; its detector finds one face in bright pictures and none in dark ones."""
    result = FaceExtractor(FaceConfig(weights=str(weights)))
    assert result.spec is None
    result.load()
    result.warm_up()
    result._detect = bright
    return result


def bright(rgb: Rgb) -> list[Box]:
    return [Box(40, 30, 60, 60)] if rgb.mean() > 100 else []


def noisy(seed: int = 0) -> Rgb:
    return np.random.default_rng(seed).integers(60, 255, (240, 320, 3)).astype(np.uint8)


def pictures(*rgbs: Rgb, step_ms: int = 200) -> tuple[Picture, ...]:
    return tuple(Picture(jpeg(rgb), index * step_ms) for index, rgb in enumerate(rgbs))


def only(answers: list[Answer | None]) -> Answer:
    (answer,) = answers
    assert answer is not None
    return answer


def test_a_face_gives_features(extractor: FaceExtractor) -> None:
    answer = only(extractor.extract([make_segment(pictures=pictures(noisy(), noisy(1)))]))
    assert isinstance(answer, Features)
    assert extractor.spec == FeatureSpec("face-small", "2", FACE.dim + len(LABELS))
    assert answer.extractor == extractor.spec.id
    assert answer.vector.shape == (extractor.spec.dim,)
    assert answer.vector[FACE.dim :].sum() == pytest.approx(1.0, abs=1e-5)
    assert 0.3 < answer.quality <= 1.0
    assert answer.faces == 1


def test_several_faces_are_said(extractor: FaceExtractor) -> None:
    extractor._detect = lambda rgb: [Box(130, 90, 60, 60), Box(0, 0, 40, 40), Box(250, 0, 40, 40)]
    answer = only(extractor.extract([make_segment(pictures=pictures(noisy()))]))
    assert isinstance(answer, Features)
    assert answer.faces == 3


def test_large_pictures_are_searched_small(weights: Path) -> None:
    sizes: list[tuple[int, int]] = []
    source = FaceExtractor(FaceConfig(search_px=320, weights=str(weights)))
    source._detect = recorder(sizes, lambda rgb: [Box(80, 40, 40, 40)])
    found = source.find(plain(720, 1280), 0, None)
    assert sizes == [(320, 180)]
    assert found is not None
    assert found.box[:4] == (320, 160, 160, 160)  # in the picture as it was sent


def test_reasons(extractor: FaceExtractor) -> None:
    blurred = np.full((240, 320, 3), 200, np.uint8)
    jobs = [
        make_segment(visual_reason="no_video"),
        make_segment(visual_reason=None),
        make_segment(pictures=(Picture(b"no picture", 0),)),
        make_segment(pictures=pictures(plain(), plain())),
        make_segment(pictures=pictures(blurred)),
    ]
    reasons = [answer.reason for answer in extractor.extract(jobs) if isinstance(answer, FeaturesMissing)]
    assert reasons == ["no_video", "no_frames", "no_frames", "no_face", "blurred"]
    assert extractor.extract([make_transcript()]) == [None]
    assert extractor.extract([]) == []


def test_jobs_together_say_what_they_say_alone(extractor: FaceExtractor) -> None:
    jobs: list[Job] = [
        make_segment("u0", pictures=pictures(noisy(), noisy(1))),
        make_transcript("u1"),
        make_segment("u2", pictures=pictures(plain())),
        make_segment("u3", pictures=pictures(noisy(2))),
    ]
    together = extractor.extract(jobs)
    for job, answer in zip(jobs, together, strict=True):
        (alone,) = extractor.extract([job])
        assert type(answer) is type(alone)
        if isinstance(answer, Features) and isinstance(alone, Features):
            assert answer.utterance_id == job.utterance_id
            np.testing.assert_allclose(answer.vector, alone.vector, atol=1e-5)
            assert answer.quality == alone.quality


def test_pictures_without_the_face_cost_quality(extractor: FaceExtractor) -> None:
    twice, once = pictures(noisy(), noisy(), step_ms=1000), pictures(noisy(), plain(), step_ms=1000)
    seen, half = (only(extractor.extract([make_segment(pictures=each)])) for each in (twice, once))
    assert isinstance(seen, Features) and isinstance(half, Features)
    assert half.quality == pytest.approx(seen.quality / 2)
    np.testing.assert_allclose(half.vector, seen.vector, atol=1e-5)


def recorder(sizes: list[tuple[int, int]], find: Callable[[Rgb], list[Box]]) -> Callable[[Rgb], list[Box]]:
    def detect(rgb: Rgb) -> list[Box]:
        sizes.append((rgb.shape[1], rgb.shape[0]))
        return find(rgb)

    return detect


def test_whole_pictures_are_searched_once_a_second(extractor: FaceExtractor) -> None:
    sizes: list[tuple[int, int]] = []
    # The face fills the middle of what is searched, as it would be of a face that stays.
    extractor._detect = recorder(
        sizes, lambda rgb: [Box(rgb.shape[1] / 2 - 30, rgb.shape[0] / 2 - 30, 60, 60)]
    )
    found = None
    for at_ms in range(0, 1600, 400):
        found = extractor.find(noisy(), at_ms, found)
        assert found is not None
        assert found.box[:4] == (130, 90, 60, 60)
    assert sizes == [(320, 240), (120, 120), (120, 120), (320, 240)]


def test_a_face_that_left_its_place_is_searched_everywhere(extractor: FaceExtractor) -> None:
    sizes: list[tuple[int, int]] = []
    extractor._detect = recorder(sizes, lambda rgb: [Box(10, 10, 60, 60)] if rgb.shape[1] == 320 else [])
    found = extractor.find(noisy(), 200, extractor.find(noisy(), 0, None))
    assert found is not None
    assert found.searched_ms == 200
    assert [size[0] for size in sizes] == [320, 100, 320]


def test_among_several_the_large_central_one_is_taken_and_counted(extractor: FaceExtractor) -> None:
    extractor._detect = lambda rgb: [Box(130, 90, 60, 60), Box(0, 0, 30, 30)]
    found = extractor.find(noisy(), 0, None)
    assert found is not None
    assert found.box[:4] == (130, 90, 60, 60)
    assert found.faces == 2
    assert found.share == pytest.approx(0.8)


def test_weights_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match="No such file"):
        FaceExtractor(FaceConfig(weights=str(tmp_path / "face.safetensors"))).load()


@pytest.mark.parametrize("kind", ["haar", "yunet"])
def test_real_talkers_give_features_and_empty_rooms_none(data_dir: Path, kind: str) -> None:
    yunet = str(data_dir / "models" / "yunet_n_640_640.onnx") if kind == "yunet" else None
    extractor = FaceExtractor(FaceConfig(yunet=yunet))
    extractor.load()
    for path in sorted((data_dir / "clips" / "talkers").glob("*.mp4")):
        answer = only(extractor.extract([make_segment(pictures=pictures(*frames(path), step_ms=400))]))
        assert isinstance(answer, Features), path.name
        assert answer.quality > 0.3
    for path in sorted((data_dir / "clips" / "no_face").glob("*.mp4")):
        shown = [cv2.resize(frame, (640, 360)).astype(np.uint8) for frame in frames(path)]
        answer = only(extractor.extract([make_segment(pictures=pictures(*shown))]))
        assert isinstance(answer, FeaturesMissing), path.name
        assert answer.reason == "no_face"
