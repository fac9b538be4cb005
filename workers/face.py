"""Visual extractor: the speaker's face in the pictures of an utterance, as one vector of its expression.

Joins detector, encoder and pooling. The whole picture is searched once a second; between, the
neighbourhood of the last face, which is quicker and stays with the same person. The faces of all jobs go
through the encoder as one batch. Pictures are decoded here and nowhere kept.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from realtime.messages import Answer, Features, FeaturesMissing, Job, Modality, Segment
from workers.extractor import FeatureSpec
from workers.face_finding import (
    FACE_PX,
    Box,
    Detector,
    Grey,
    Rgb,
    choose,
    crop,
    decode_jpeg,
    load_detector,
    scaled,
    shrink,
)
from workers.face_pooling import Sight, missing, pool, sharpness

if TYPE_CHECKING:
    from workers.face_encoder import FaceEncoder, Faces

SEARCH_EVERY_MS = 1000
_NEAR = 2.0  # sides of the last face that its neighbourhood is wide
_NEAR_PX = 128  # side of the neighbourhood as it is searched: a face of about 64 pixels


@dataclass(frozen=True, slots=True)
class FaceConfig:
    """How faces are looked for, and which encoder sees them."""

    yunet: str | None = None  # file of the YuNet detector (ONNX); None = the Haar cascade of OpenCV
    search_px: int = 320  # longest side of the picture that is searched
    smallest_px: int = 24  # of a face in it
    weights: str | None = None  # a face.safetensors with its JSON; None = the shipped one
    threads: int = 1


class Found(NamedTuple):
    """A face in a picture, and what the last search of a whole picture said of its surroundings."""

    box: Box  # pixels of the picture
    share: float  # of the area of all faces
    faces: int
    searched_ms: int


class _Looked(NamedTuple):
    """The pictures of one job, seen through."""

    pictures: int  # that could be decoded
    faces: list[Grey]
    sights: list[Sight]
    took_s: float


class FaceExtractor:
    """Mean expression over the pictures of an utterance, float32 [embedding + 8 posteriors]."""

    modality: Modality = "visual"
    needs_pcm = False
    needs_pictures = True

    def __init__(self, config: FaceConfig) -> None:
        self._config = config
        self._detect: Detector | None = None
        self._encoder: FaceEncoder | None = None
        self._spec: FeatureSpec | None = None

    @property
    def spec(self) -> FeatureSpec | None:
        """Known after `load`."""
        return self._spec

    def load(self) -> None:
        """Read the detector and the encoder. Raises ModelUnavailable."""
        import cv2
        import torch

        from workers.face_encoder import load, shipped

        cv2.setNumThreads(self._config.threads)
        torch.set_num_threads(self._config.threads)
        self._detect = load_detector(self._config.yunet, self._config.smallest_px)
        self._encoder, meta = load(Path(self._config.weights) if self._config.weights else shipped())
        self._spec = FeatureSpec(meta.name, meta.version, meta.config.dim + len(meta.labels))

    def warm_up(self) -> None:
        """Search one grey picture, and encode one grey face."""
        self.find(np.full((240, 320, 3), 128, np.uint8), 0, None)
        self._encode([np.full((FACE_PX, FACE_PX), 128, np.uint8)])

    def extract(self, jobs: Sequence[Job]) -> list[Answer | None]:
        """Features, or "no_video", "no_frames", "no_face" or "blurred"; None for a Transcript."""
        looked = [self._look(job) if isinstance(job, Segment) else None for job in jobs]
        began_s = time.perf_counter()
        faces = [face for each in looked if each is not None for face in each.faces]
        encoded = self._encode(faces)
        each_s = (time.perf_counter() - began_s) / max(1, len(faces))
        answers: list[Answer | None] = []
        first = 0
        for job, seen in zip(jobs, looked, strict=True):
            if not isinstance(job, Segment) or seen is None:
                answers.append(None)
                continue
            rows = slice(first, first := first + len(seen.faces))
            answers.append(self._answer(job, seen, encoded, rows, each_s))
        return answers

    def find(self, rgb: Rgb, at_ms: int, before: Found | None) -> Found | None:
        """The face that matters in a picture; `before` is the one in the picture before it."""
        if before is not None and 0 <= at_ms - before.searched_ms < SEARCH_EVERY_MS:
            near = self._near(rgb, before.box)
            if near is not None:
                return before._replace(box=near)
        assert self._detect is not None, "load() comes first"
        small, scale = shrink(rgb, self._config.search_px)
        boxes = self._detect(small)
        box = choose(boxes, small.shape[1], small.shape[0])
        if box is None:
            return None
        area = sum(each.width * each.height for each in boxes)
        return Found(scaled(box, 1.0 / scale), box.width * box.height / area, len(boxes), at_ms)

    def _near(self, rgb: Rgb, last: Box) -> Box | None:
        """A face about as large as the last one, and about where it was."""
        assert self._detect is not None
        half = _NEAR * max(last.width, last.height) / 2
        x, y = last.x + last.width / 2, last.y + last.height / 2
        left, top = max(0, round(x - half)), max(0, round(y - half))
        piece = rgb[top : max(0, round(y + half)), left : max(0, round(x + half))]
        if piece.size == 0:
            return None
        small, scale = shrink(np.ascontiguousarray(piece), _NEAR_PX)
        box = choose(self._detect(small), small.shape[1], small.shape[0])
        if box is None:
            return None
        here = scaled(box, 1.0 / scale)
        # A piece of the face, or of its surroundings, that looks like a face: search the whole picture.
        if not 0.6 < max(here.width, here.height) / max(last.width, last.height) < 1.6:
            return None
        return here._replace(x=here.x + left, y=here.y + top)

    def _look(self, segment: Segment) -> _Looked:
        """Decode, find and cut out; nothing here waits for the encoder."""
        began_s = time.perf_counter()
        looked = _Looked(0, [], [], 0.0)
        pictures, found = 0, None
        for picture in segment.pictures:
            rgb = decode_jpeg(picture.jpeg)
            if rgb is None:
                continue
            pictures += 1
            found = self.find(rgb, picture.at_ms, found)
            face = None if found is None else crop(rgb, found.box)
            if found is not None and face is not None:
                looked.faces.append(face)
                looked.sights.append(sight(face, found, rgb.shape[1], rgb.shape[0]))
        return looked._replace(pictures=pictures, took_s=time.perf_counter() - began_s)

    def _encode(self, faces: Sequence[Grey]) -> Faces:
        from workers.face_encoder import encode

        assert self._encoder is not None, "load() comes first"
        return encode(self._encoder, np.array(faces, np.uint8).reshape(-1, FACE_PX, FACE_PX))

    def _answer(self, segment: Segment, seen: _Looked, encoded: Faces, rows: slice, each_s: float) -> Answer:
        ids = (segment.session_id, segment.utterance_id, self.modality)
        took_ms = round((seen.took_s + each_s * len(seen.faces)) * 1000)
        if not seen.pictures:
            return FeaturesMissing(*ids, segment.visual_reason or "no_frames", took_ms)
        reason = missing(seen.sights)
        if reason is not None:
            return FeaturesMissing(*ids, reason, took_ms)
        assert self._spec is not None
        pooled = pool(encoded.embedding[rows], encoded.posterior[rows], seen.sights, seen.pictures)
        return Features(*ids, self._spec.id, pooled.vector, pooled.quality, took_ms, faces=pooled.faces)


def sight(face: Grey, found: Found, width: int, height: int) -> Sight:
    """How a face was seen in a picture of this size."""
    box = found.box
    off_x = (box.x + box.width / 2) / width - 0.5
    off_y = (box.y + box.height / 2) / height - 0.5
    return Sight(
        side_px=max(box.width, box.height),
        sharpness=sharpness(face),
        centrality=max(0.0, 1.0 - float(np.hypot(off_x, off_y)) / 0.7071),
        turned=box.turned,
        share=found.share,
        faces=found.faces,
    )
