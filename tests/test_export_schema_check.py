"""Our quick check of an event agrees with a JSON Schema validator, on what is valid and on what is not."""

from __future__ import annotations

import copy
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cmath_stream.events import schema
from cmath_stream.exports.canon import checked, decoded
from cmath_stream.exports.schema_check import problem
from realtime.errors import MediaError
from tests.event_strategies import Event, events, json_value
from tests.sessions import copied, short_call

VALID = jsonschema.Draft202012Validator(schema())
OTHER: st.SearchStrategy[Any] = (
    st.sampled_from([None, True, 0, 1.0, 1.5, -1, "", "x", [], {}, [{}, {}], {"used": True}]) | json_value
)


@st.composite
def spoiled(draw: st.DrawFn) -> Event:
    """An event of which one value, somewhere, is another or gone."""
    event = copy.deepcopy(draw(events()))
    node: Any = event
    while True:
        key = draw(st.sampled_from(sorted(node) if isinstance(node, dict) else range(len(node))))
        inner = node[key]
        if isinstance(inner, dict | list) and inner and draw(st.booleans()):
            node = inner
            continue
        if isinstance(node, dict) and draw(st.booleans()):
            del node[key]
        else:
            node[key] = draw(OTHER)
        return event


@given(event=spoiled() | events())
@settings(max_examples=150, deadline=None)
def test_it_says_what_a_validator_says(event: Event) -> None:
    assert (problem(event) is None) == VALID.is_valid(event)


def named(name: str) -> Event:
    return copied([event for event in short_call() if event["type"] == name])[0]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"start_ms": -1}, "start_ms is below 0"),
        ({"start_ms": "490"}, "start_ms is no integer"),
        ({"label": 3}, "label is no string or null"),
        ({"clock": "sundial"}, "clock is none of rtcp_ntp, arrival, media"),
        ({"participant_id": ""}, "participant_id is empty"),
        ({"schema": "emotion-event/2"}, "schema is not 'emotion-event/1'"),
        ({"emotions": []}, "emotions has fewer than 2 entries"),
        ({"emotions": [{"name": "joy", "probability": 2}] * 2}, r"emotions\[0\].probability is above 1"),
        ({"modalities": {"text": {"used": False}}}, "modalities"),
        ({"type": "emotion.moment"}, "no emotion-event/1 event: its type is 'emotion.moment'"),
        ({"type": ["x"]}, "no emotion-event/1 event"),
    ],
)
def test_what_is_wrong_is_said_in_a_few_words(change: Event, said: str) -> None:
    with pytest.raises(MediaError, match=rf"^call, line 3: .*{said}"):
        checked({**named("emotion.utterance"), **change}, "call, line 3")


def test_a_lacking_field_is_named() -> None:
    event = named("emotion.utterance")
    del event["model"]["version"]
    assert problem(event) == "model has no version"
    assert problem(17) == "not a JSON object"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b'{"a":', "not JSON: Expecting value"),
        (b'{"a":NaN}', "NaN is no number of JSON"),
        (b"\xff\xfe\xfd", "not UTF-8"),
        (b"[" * 100_000, "not JSON"),
    ],
)
def test_what_is_no_json_is_said(text: bytes, said: str) -> None:
    with pytest.raises(MediaError, match=f"^here: .*{said}"):
        decoded(text, "here")
