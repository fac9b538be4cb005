"""What every format that is read back has in common: it gives the same events again, whatever they are."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings

from cmath_stream.events import schema, to_json
from cmath_stream.exports.about import About
from cmath_stream.exports.canon import checked
from cmath_stream.exports.formats import FORMATS
from cmath_stream.exports.said import last_words
from realtime.errors import MediaError
from tests.event_strategies import Event, conversations, feeds
from tests.sessions import short_call

TABLES = ("jsonl", "csv", "parquet")
TIMED = ("vtt", "eaf", "emotionml")
VALID = jsonschema.Draft202012Validator(schema())
quickly = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def written(name: str, events: list[Event], folder: Path) -> Path:
    path = folder / f"call.{name}"
    with path.open("wb") as file:
        FORMATS[name].write(events, file, About("call"))
    return path


def reread(name: str, events: list[Event]) -> list[Event]:
    read = FORMATS[name].read
    assert read is not None
    with TemporaryDirectory() as folder:
        return list(read(written(name, events, Path(folder))))


def exactly(events: list[Event]) -> str:
    """Tells 1 from 1.0 and from true, and does not care about the order of keys."""
    return json.dumps(events, sort_keys=True)


@pytest.mark.parametrize("name", TABLES)
@given(events=feeds)
@quickly
def test_tables_carry_every_event_whole(name: str, events: list[Event]) -> None:
    for event in events:
        VALID.validate(event)
    assert exactly(reread(name, events)) == exactly(events)


@pytest.mark.parametrize("name", TIMED)
@given(events=conversations)
@quickly
def test_time_lines_carry_every_event_of_a_session_whole(name: str, events: list[Event]) -> None:
    assert exactly(reread(name, events)) == exactly(events)


@given(events=conversations)
@quickly
def test_pictures_are_made_of_anything(events: list[Event]) -> None:
    with TemporaryDirectory() as folder:
        page = written("html", events, Path(folder)).read_text("utf-8")
        assert page.count('<tr role="row" id="u') == len(last_words(events))


@pytest.mark.parametrize("name", [*TABLES, *TIMED])
def test_the_same_events_are_the_same_lines_by_whatever_way(name: str, tmp_path: Path) -> None:
    events = short_call()
    shuffled = [dict(reversed(event.items())) for event in events]
    lines = written("jsonl", [checked(event, "") for event in events], tmp_path).read_bytes()
    (tmp_path / "again").mkdir()
    assert written("jsonl", reread(name, shuffled), tmp_path / "again").read_bytes() == lines


def test_events_as_they_are_published_are_canonical() -> None:
    assert [to_json(checked(event, "")) for event in short_call()] == [
        to_json(event) for event in short_call()
    ]


@pytest.mark.parametrize("name", [*TIMED, "rttm", "html", "png"])
def test_two_sessions_are_no_time_line(name: str, tmp_path: Path) -> None:
    events = short_call()
    with pytest.raises(MediaError, match="2 sessions.* --session, of .*, another"):
        written(name, [*events, {**events[0], "session_id": "another"}], tmp_path)


@pytest.mark.parametrize("name", [name for name, each in FORMATS.items() if each.read])
def test_nothing_is_a_file_too(name: str) -> None:
    if name == "rttm":
        with pytest.raises(MediaError, match="0 recordings"):
            reread(name, [])
    else:
        assert reread(name, []) == []


class _Endless:
    """Many events, each made when it is asked for."""

    def __iter__(self) -> Iterator[Event]:
        call = short_call()
        for number in range(6000):
            yield {**call[number % len(call)], "seq": number + 1, "note": "x" * 1000}


@pytest.mark.slow
@pytest.mark.parametrize("name", TABLES)
def test_a_long_call_is_never_in_memory(name: str, tmp_path: Path) -> None:
    form: Any = FORMATS[name]
    path = written(name, short_call(), tmp_path)  # what a library allocates once is not counted
    list(form.read(path))
    tracemalloc.start()
    try:
        with path.open("wb") as file:
            form.write(_Endless(), file, About("call"))
        assert sum(1 for _ in form.read(path)) == 6000
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 16e6  # all of them are about 40 MB
