"""The picture of a session: judged by its pixels where that is possible, by the eye elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from numpy.typing import NDArray

from cmath_stream.plot import COLOURS, timeline

LABELS = ("neutral", "surprise", "fear", "sadness", "joy", "disgust", "anger")


def event(number: int, label: str | None, **changes: Any) -> dict[str, Any]:
    """One emotion.utterance; `label` has probability 0.94, or nothing stands out where it is None."""
    probabilities = [0.94 if name == label else 0.01 for name in LABELS] if label else [1 / 7] * 7
    return {
        "type": "emotion.utterance",
        "utterance_id": f"u{number}",
        "revision": 0,
        "participant_id": ("anna", "ben")[number % 2],
        "start_ms": number * 2500,
        "end_ms": number * 2500 + 2000,
        "text": "words enough to fill more than one line of a bar",
        "label": label,
        "abstained": label is None,
        "emotions": [{"name": n, "probability": p} for n, p in zip(LABELS, probabilities, strict=True)],
        "modalities": {"text": {"used": True}, "audio": {"used": True}, "visual": {"used": False}},
    } | changes


def pixels(path: Path) -> NDArray[np.uint8]:
    with av.open(str(path)) as container:
        picture = next(container.decode(video=0)).to_ndarray(format="rgb24")
    return np.asarray(picture, np.uint8)  # [H, W, 3]


def share(picture: NDArray[np.uint8], label: str) -> float:
    colour = np.array(to_rgb(COLOURS[label])) * 255
    return float(np.mean(np.abs(picture - colour).max(axis=2) < 3))


def test_what_is_said_in_joy_is_drawn_in_the_colour_of_joy(tmp_path: Path) -> None:
    timeline([event(n, "joy") for n in range(6)], tmp_path / "a.png", "joy")
    timeline([event(n, "anger") for n in range(6)], tmp_path / "b.png", "anger")
    joyful, angry = pixels(tmp_path / "a.png"), pixels(tmp_path / "b.png")
    assert joyful.shape[1] >= 1600
    assert share(joyful, "joy") > 10 * share(angry, "joy")
    assert share(angry, "anger") > 10 * share(joyful, "anger")


def test_only_the_highest_revision_and_only_utterances_are_drawn(tmp_path: Path) -> None:
    final = [event(0, "joy", revision=1), event(1, "fear")]
    noise: list[dict[str, Any]] = [event(0, "anger"), {"type": "session.started", "session_id": "s"}]
    timeline(final, tmp_path / "a.png", "t")
    timeline([*noise, *final], tmp_path / "b.png", "t")
    np.testing.assert_array_equal(pixels(tmp_path / "a.png"), pixels(tmp_path / "b.png"))


def test_the_same_events_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        timeline([event(0, "joy")], tmp_path / name, "t")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


@pytest.mark.parametrize(
    "events",
    [
        [],
        [event(0, None)],
        [event(0, "joy", text="costs $5 or $6_x$ 日本語"), event(1, "joy", participant_id="x" * 40)],
        [event(0, "joy", start_ms=0, end_ms=50), event(1, "joy", start_ms=29_000, end_ms=61_000)],
        [event(0, "joy", start_ms=0, end_ms=100_000_000)],
        [event(0, "joy") | {"label": "positive", "emotions": [{"name": "positive", "probability": 1.0}]}],
    ],
    ids=["none", "undecided", "odd words", "very short and across strips", "a day", "other labels"],
)
def test_odd_sessions_are_drawn_too(tmp_path: Path, events: list[dict[str, Any]]) -> None:
    timeline(events, tmp_path / "a.png", "odd $session$")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_a_long_session_is_a_picture_of_bounded_height(tmp_path: Path) -> None:
    timeline([event(n, "joy") for n in range(0, 1500, 10)], tmp_path / "a.png", "an hour")
    assert pixels(tmp_path / "a.png").shape[0] < 7000
