"""The report: one HTML file that opens anywhere, without a network. It is not read back.

Everything is in the file but the recordings, which it may point to. The template escapes every value, and the
file's own policy (CSP) lets nothing run or load but the style and the script whose hashes it names, so that
words and names, which may come from anyone, stay words and names.
"""

from __future__ import annotations

import base64
import hashlib
import mimetypes
import os
from collections.abc import Iterable
from importlib.resources import files
from typing import BinaryIO
from urllib.parse import quote

from cmath_stream.events import Event
from cmath_stream.exports.about import About
from cmath_stream.exports.report_view import view
from cmath_stream.exports.said import one_session


def write(events: Iterable[Event], file: BinaryIO, about: About) -> None:
    """Write the report of one session. Raises MediaError for several."""
    import jinja2

    shown = view(one_session(events))
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["place"] = _place
    template, style, script = (_text(f"report.{suffix}") for suffix in ("html", "css", "js"))
    page = environment.from_string(template).stream(
        title=about.name,
        report=shown,
        media=[(quote(os.fsencode(path)), _kind(path), os.path.basename(path)) for path in about.media],
        style=style,
        script=script,
        policy=_policy(style, script, with_media=bool(about.media)),
    )
    page.dump(file, "utf-8", "replace")


def _policy(style: str, script: str, *, with_media: bool) -> str:
    rules = ["default-src 'none'", f"style-src {_hash(style)}", f"script-src {_hash(script)}"]
    rules += ["media-src 'self' file:"] if with_media else []
    return "; ".join([*rules, "base-uri 'none'", "form-action 'none'"])


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _text(name: str) -> str:
    return files("cmath_stream.exports").joinpath("web", name).read_text("utf-8")


def _kind(path: str) -> str:
    return "video" if (mimetypes.guess_type(path)[0] or "").startswith("video") else "audio"


def _place(number: float) -> str:
    """A number of a picture, no longer than the eye needs."""
    return f"{number:.3f}".rstrip("0").rstrip(".")
