"""What an event says of each modality: used, by how many faces; or why not."""

from __future__ import annotations

from typing import Any

import jsonschema
import numpy as np
import pytest

from cmath_stream import events
from cmath_stream.assembler import Assembled
from cmath_stream.prediction import EngineInfo, Prediction
from realtime.messages import Answer, Features, FeaturesMissing, UtteranceEnded

VALID = jsonschema.Draft202012Validator(events.schema(), format_checker=jsonschema.FormatChecker())
LABELS = ("neutral", "joy")
INFO = EngineInfo(LABELS, "two", "1", "eager", "fp32")


def event(visual: Answer) -> dict[str, Any]:
    ended = UtteranceEnded("s", "anna", "anna.0", 0, 0, 600, False, 20, 300, 1)
    text = Features("s", "anna.0", "text", "words/1", np.ones(2, np.float32), 0.9, 7, "hello", "en")
    audio = FeaturesMissing("s", "anna.0", "audio", "silent", 0)
    alone: dict[str, tuple[float, ...]] = {"text": (0.5, 0.5), "visual": (0.2, 0.8)}
    if isinstance(visual, FeaturesMissing):
        del alone["visual"]
    assembled = Assembled(ended, {"text": text, "audio": audio, "visual": visual}, 0, True)
    return events.emotion(
        assembled, Prediction((0.4, 0.6), alone, False), INFO, session=None, context=(1, 1), latency_ms=None
    )


def face(faces: int | None) -> Features:
    vector = np.ones(3, np.float32)
    return Features("s", "anna.0", "visual", "face-cnn/1", vector, 0.75, 12, faces=faces)


def test_the_number_of_faces_is_said() -> None:
    told = event(face(3))
    VALID.validate(told | {"seq": 1})
    assert told["modalities"]["visual"]["faces"] == 3
    assert "faces" not in told["modalities"]["text"]
    assert "faces" not in event(face(None))["modalities"]["visual"]  # an extractor that does not count


def test_a_number_of_faces_that_cannot_be_is_no_event() -> None:
    told = event(face(1)) | {"seq": 1}
    told["modalities"]["visual"]["faces"] = 0
    with pytest.raises(jsonschema.ValidationError):
        VALID.validate(told)


@pytest.mark.parametrize("reason", ["no_face", "blurred", "no_video"])
def test_why_there_is_no_face_is_said(reason: str) -> None:
    told = event(FeaturesMissing("s", "anna.0", "visual", reason, 3))
    VALID.validate(told | {"seq": 1})
    assert told["modalities"]["visual"] == {"used": False, "reason": reason}
