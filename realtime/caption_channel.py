"""The words on the data channel `captions`: JSON text messages, both ways (PROTOCOL §1).

    client → server   {"start_ms": 1200, "end_ms": 2750, "text": "…", "language": "en"}
    server → client   {"type": "clock", "session_offset_ms": 310}
                      {"type": "error", "detail": "…"}

Caption times count from the participant's media start; adding `session_offset_ms` gives session time.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

from realtime.messages import Caption

LABEL = "captions"
MAX_MESSAGE_BYTES = 4096
MAX_TEXT_CHARS = 2000
MAX_TIME_MS = 24 * 3600 * 1000

_LANGUAGE = re.compile(r"[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*")  # shape of a BCP 47 tag
_KEYS = ("start_ms", "end_ms", "text", "language")


def parse_caption(message: str | bytes, offset_s: float) -> Caption:
    """A client's message → the caption on the session clock; ValueError says what is wrong with it."""
    if not isinstance(message, str):
        raise ValueError("captions are JSON text messages, not binary")
    if len(message) > MAX_MESSAGE_BYTES or len(message.encode(errors="replace")) > MAX_MESSAGE_BYTES:
        raise ValueError(f"a caption message is at most {MAX_MESSAGE_BYTES} bytes")
    try:
        fields = json.loads(message)
    except (ValueError, RecursionError):
        raise ValueError("not valid JSON") from None
    if not isinstance(fields, dict):
        raise ValueError("a caption is a JSON object")
    if not fields.keys() <= set(
        _KEYS
    ):  # whose name may be anything, words too: it is not told back, and so in no log
        raise ValueError(f"a caption has no other fields than {', '.join(_KEYS)}")
    start_ms, end_ms = _time_ms(fields, "start_ms"), _time_ms(fields, "end_ms")
    if end_ms < start_ms:
        raise ValueError("end_ms lies before start_ms")
    text = fields.get("text")
    if not isinstance(text, str) or not text.strip():
        raise ValueError("text must be a string that is not blank")
    if len(text) > MAX_TEXT_CHARS:
        raise ValueError(f"text is at most {MAX_TEXT_CHARS} characters")
    try:
        text.encode()
    except UnicodeEncodeError:  # JSON may name half of a surrogate pair
        raise ValueError("text is not valid Unicode") from None
    language = fields.get("language")
    if language is not None and not (isinstance(language, str) and _LANGUAGE.fullmatch(language)):
        raise ValueError("language must be a BCP 47 tag such as en or pt-BR")
    return Caption(start_ms / 1000 + offset_s, end_ms / 1000 + offset_s, text.strip(), language)


def caption_message(caption: Caption) -> str:
    """A caption (times since media start, seconds) as the client sends it."""
    fields: dict[str, Any] = {
        "start_ms": round(caption.start_s * 1000),
        "end_ms": round(caption.end_s * 1000),
        "text": caption.text,
    }
    if caption.language is not None:
        fields["language"] = caption.language
    return json.dumps(fields, ensure_ascii=False)


def clock_message(offset_s: float) -> str:
    """Session time of the participant's media start."""
    return json.dumps({"type": "clock", "session_offset_ms": round(offset_s * 1000)})


def error_message(detail: str) -> str:
    """Why a caption was refused."""
    return json.dumps({"type": "error", "detail": detail})


def _time_ms(fields: dict[str, Any], key: str) -> float:
    value = fields.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{key} must be a number of milliseconds since the media start")
    if isinstance(value, float) and not math.isfinite(value) or not 0 <= value <= MAX_TIME_MS:
        raise ValueError(f"{key} must lie between 0 and 24 hours")
    return float(value)
