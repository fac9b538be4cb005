"""What the events call things, and what people call them: as the live page does, realtime/web/words.js."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

SENSES = {"text": "Words", "audio": "Voice", "visual": "Face"}
REASONS = {
    "no_video": "no camera",
    "text_only": "by words alone",
    "no_frames": "no pictures",
    "no_face": "no face in view",
    "blurred": "picture too blurred",
    "no_audio": "no microphone",
    "too_short": "too short",
    "silent": "too quiet",
    "no_caption": "no captions",
    "no_model": "not recognised here",
    "no_speech": "no words recognised",
    "low_quality": "too unsure of the words",
    "media_expired": "came too late",
    "deadline": "took too long",
    "not_in_model": "not part of the model",
    "extractor_mismatch": "not fit for the model",
    "closed": "session closed",
}
HUES = (
    "neutral",
    "surprise",
    "fear",
    "sadness",
    "joy",
    "disgust",
    "anger",
)  # emotions with a colour of their own


def reason(code: str) -> str:
    """Why something is missing."""
    return REASONS.get(code, code.replace("_", " "))


def clock(ms: float) -> str:
    """Minutes and seconds, hours where there are any."""
    seconds = max(0, round(ms / 1000))
    minutes = f"{seconds // 60 % 60}:{seconds % 60:02d}"
    return f"{seconds // 3600}:{minutes.zfill(5)}" if seconds >= 3600 else minutes


def length(ms: float) -> str:
    """A duration in words."""
    seconds = round(ms / 1000)
    parts = [(seconds // 3600, "h"), (seconds // 60 % 60, "min"), (seconds % 60, "s")]
    return " ".join(f"{value} {unit}" for value, unit in parts if value) or "0 s"


def percent(share: float) -> str:
    """A share, without decimals."""
    return f"{share:.0%}".replace("%", " %")


def hues(emotions: Sequence[str]) -> dict[str, str]:
    """The class that colours each emotion; those of another model share the seven colours."""
    return {
        name: f"e-{name}" if name in HUES else f"e-other-{place % len(HUES)}"
        for place, name in enumerate(emotions)
    }


def names(ids: Iterable[str]) -> dict[str, str]:
    """What to call participants: `anna-3f9a` is anna, unless there is another."""
    short = {each: re.sub("-[0-9a-f]{4}$", "", each).replace("_", " ") for each in ids}
    counted = Counter(short.values())
    return {each: name if counted[name] == 1 and name.strip() else each for each, name in short.items()}
