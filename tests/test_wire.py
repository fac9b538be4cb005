from __future__ import annotations

import dataclasses
import json
import typing
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realtime import messages, wire
from realtime.errors import WireError
from realtime.messages import Features, Message, Picture, Segment
from tests.conftest import make_features, make_segment, make_started, make_transcript

SCALARS: dict[Any, Any] = {
    str: "naïve \u2028 \U0001f600",
    str | None: None,
    int: 2**40,
    int | None: 3,
    float: 0.25,
    bool: True,
    messages.Modality: "audio",
    messages.Vector: np.zeros(0, np.float32),
    tuple[Picture, ...]: (),
}


def example(cls: type[Any]) -> Any:
    hints = typing.get_type_hints(cls)
    values = {field.name: SCALARS[hints[field.name]] for field in dataclasses.fields(cls)}
    if cls is Features:
        values["vector"] = np.array([1.5, -0.0, 3e-39], np.float32)
    return cls(**values)


def same(a: Message, b: Message) -> bool:
    if type(a) is not type(b):
        return False
    names = [field.name for field in dataclasses.fields(a)]
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in names)


@pytest.mark.parametrize("cls", typing.get_args(messages.Message), ids=lambda cls: cls.__name__)
def test_every_message_returns_unchanged(cls: type[Any]) -> None:
    message = example(cls)
    fields = wire.encode(message)
    assert fields["v"] == b"1"
    assert same(wire.decode(fields), message)
    as_read = {key.encode(): value for key, value in fields.items()}  # what Redis gives back
    assert same(wire.decode(as_read), message)


def test_the_entry_is_readable_by_other_languages() -> None:
    fields = wire.encode(make_features(dim=3))
    assert fields["type"] == b"features"
    assert json.loads(fields["head"])["extractor"] == "stub/1"
    assert fields["vector"] == b"\x00\x00\x00\x00\x00\x00\x80\x3f\x00\x00\x00\x40"


def test_a_segment_returns_with_its_media() -> None:
    before = make_segment(pictures=(Picture(b"\xff\xd8one", 100), Picture(b"", 2**32 - 1)))
    fields, blobs = wire.encode_segment(before)
    assert wire.media_sizes(fields) == {kind: len(blob) for kind, blob in blobs.items()}
    assert same(wire.decode_segment(fields, blobs["pcm"], blobs["pictures"]), before)


def test_a_segment_without_its_blobs_is_empty_not_wrong() -> None:
    fields, blobs = wire.encode_segment(make_segment(pictures=(Picture(b"jpeg", 1),)))
    bare = wire.decode(fields)
    assert isinstance(bare, Segment)
    assert (len(bare.pcm), bare.pictures) == (0, ())
    assert wire.decode_segment(fields, blobs["pcm"], None).pictures == ()


def test_pcm_is_clipped_to_16_bits() -> None:
    loud = dataclasses.replace(make_segment(), pcm=np.array([-2.0, -1.0, 1.0, 2.0], np.float32))
    _, blobs = wire.encode_segment(loud)
    assert wire.decode_pcm(blobs["pcm"]).tolist() == [-1.0, -1.0, 32767 / 32768, 32767 / 32768]


def test_unknown_head_fields_are_ignored_and_optional_ones_may_lack() -> None:
    fields = wire.encode(make_features())
    head = json.loads(fields["head"])
    del head["text"], head["language"], head["faces"]
    fields["head"] = json.dumps(head | {"from_the_future": [1, {}]}).encode()
    message = wire.decode(fields)
    assert isinstance(message, Features)
    assert message.text is None
    assert message.faces is None


def broken() -> dict[str, dict[str, Any]]:
    good = wire.encode(make_features())

    def head(**changes: Any) -> dict[str, Any]:
        return good | {"head": json.dumps(json.loads(good["head"]) | changes).encode()}

    return {
        "no fields": {},
        "version": good | {"v": b"2"},
        "type": good | {"type": b"segmentation"},
        "head is cut": good | {"head": good["head"][:-1]},
        "head is a list": good | {"head": b"[]"},
        "head is deep": good | {"head": b"[" * 100_000},
        "head has a huge number": good | {"head": b'{"took_ms":' + b"9" * 5000 + b"}"},
        "not utf-8": good | {"head": b"\xff"},
        "a field lacks": good | {"head": b"{}"},
        "null": head(session_id=None),
        "bool for int": head(took_ms=True),
        "float for int": head(took_ms=1.5),
        "int too large": head(took_ms=2**60),
        "string for float": head(quality="1"),
        "no faces at all": head(faces=0),
        "bool for faces": head(faces=True),
        "quality out of range": head(quality=1.5),
        "NaN": good | {"head": good["head"].replace(b'"quality":0.5', b'"quality":NaN')},
        "unknown modality": head(modality="smell"),
        "lone surrogate": head(text="\ud800"),
        "no vector": {key: value for key, value in good.items() if key != "vector"},
        "vector cut": good | {"vector": b"\0\0\0"},
        "vector not finite": good | {"vector": b"\0\0\xc0\x7f"},
    }


@pytest.mark.parametrize("fields", broken().values(), ids=broken().keys())
def test_what_is_wrong_is_refused_in_one_sentence(fields: dict[str, Any]) -> None:
    with pytest.raises(WireError) as caught:
        wire.decode(fields)
    assert "\n" not in str(caught.value)
    assert 0 < len(str(caught.value)) < 120


@pytest.mark.parametrize(
    ("pcm", "pictures"),
    [(b"\0\0", None), (None, b"x"), (b"", None)],
    ids=["pcm short", "pictures short", "pcm empty"],
)
def test_a_blob_of_another_length_is_refused(pcm: bytes | None, pictures: bytes | None) -> None:
    fields, _ = wire.encode_segment(make_segment(pictures=(Picture(b"jpeg", 1),)))
    with pytest.raises(WireError, match="blob has"):
        wire.decode_segment(fields, pcm, pictures)


@given(blob=st.binary(max_size=40))
@settings(max_examples=200, deadline=None)
def test_a_garbled_pictures_blob_raises_nothing_else(blob: bytes) -> None:
    fields, _ = wire.encode_segment(make_segment())
    head = json.loads(fields["head"]) | {"pictures_bytes": len(blob)}
    fields["head"] = json.dumps(head).encode()
    try:
        pictures = wire.decode_segment(fields, None, blob).pictures
    except WireError:
        return
    assert sum(8 + len(picture.jpeg) for picture in pictures) == len(blob)


def test_only_segments_have_media() -> None:
    with pytest.raises(WireError, match="expected a segment"):
        wire.decode_segment(wire.encode(make_started("u")), None, None)


@pytest.mark.parametrize("text", ["\ud800", "\udfff tail"])
def test_text_that_utf8_cannot_carry_is_refused_at_the_source(text: str) -> None:
    with pytest.raises(WireError):
        wire.encode(make_transcript(text=text))


TYPES = [wire.encode(example(cls))["type"] for cls in typing.get_args(messages.Message)]
NAMES = sorted({f.name for cls in typing.get_args(messages.Message) for f in dataclasses.fields(cls)})
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=3),
    max_leaves=4,
)
HEAD = st.dictionaries(st.sampled_from([*NAMES, "pcm_bytes", "pictures_bytes"]), JSON).map(json.dumps)


@given(
    fields=st.fixed_dictionaries(
        {},
        optional={
            b"v": st.just(b"1") | st.binary(max_size=3),
            b"type": st.sampled_from(TYPES) | st.binary(max_size=8),
            b"head": HEAD.map(str.encode) | st.binary(max_size=30),
            b"vector": st.binary(max_size=12),
        },
    )
    | st.dictionaries(
        st.binary(max_size=5) | st.text(max_size=5), st.binary(max_size=9) | st.text(max_size=9)
    )
)
@settings(max_examples=400, deadline=None)
def test_random_fields_decode_or_raise_wire_error(fields: dict[Any, Any]) -> None:
    for read in (wire.decode, wire.media_sizes):
        try:
            read(fields)
        except WireError as error:
            assert str(error)


@given(cls=st.sampled_from(typing.get_args(messages.Message)), data=st.data())
@settings(max_examples=150, deadline=None)
def test_a_damaged_head_decodes_whole_or_raises_wire_error(cls: type[Any], data: st.DataObject) -> None:
    fields = wire.encode(example(cls))
    head = json.loads(fields["head"])
    head[data.draw(st.sampled_from(sorted(head)))] = data.draw(JSON)
    fields["head"] = json.dumps(head).encode()
    try:
        message = wire.decode(fields)
    except WireError:
        return
    wire.encode(message)  # what was accepted can be sent on
