"""Arbitrary events, valid under the schema: odd words, gaps, several revisions, fields of a later schema."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

Event = dict[str, Any]

# What has broken a text format before, besides what hypothesis thinks of by itself.
NASTY = (
    "", " ", "-->", "a --> b", "&amp;", "<v x>", "</script>", "]]>", '"', "'", "=1+1", "+1", "-1", "@x",
    "'=1", "\t=1", "a;=1+1", "a,b", "two\n\nlines", "one\r\ntwo", "\r", "NOTE x", "\0", "\x1b", "\u2028",
    "\ufeff", "\ud800", "日本語", "  blanks  ", "{{ x }}", "rest", "&lt;", "%", "a\\u003eb", "﹦",
    "<c.emotion>joy</c>",
)  # fmt: skip
EMOTIONS = ("neutral", "surprise", "fear", "sadness", "joy", "disgust", "anger")

text = st.sampled_from(NASTY) | st.text(max_size=20)
some = st.sampled_from([word for word in NASTY if word]) | st.text(min_size=1, max_size=12)
ms = st.integers(0, 20_000_000)
small = st.integers(0, 400)
probability = st.floats(0, 1) | st.sampled_from([0, 1, 0.0, 1.0, 1e-9])
json_value = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | text,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(text, inner, max_size=2),
    max_leaves=4,
)
# A field of a later schema, which consumers ignore and must not lose.
unknown = st.dictionaries(st.sampled_from(["traceparent", "note", "x-é", "zero"]), json_value, max_size=1)


def _fields(required: dict[str, Any], optional: dict[str, Any] | None = None) -> st.SearchStrategy[Event]:
    known = st.fixed_dictionaries(required, optional=optional or {})
    return st.builds(lambda more, fields: {**more, **fields}, unknown, known)


@st.composite
def distributions(draw: st.DrawFn) -> list[Event]:
    """Seven emotions as the model has them, or whatever the schema allows, twice the same name too."""
    names = draw(st.just(list(EMOTIONS)) | st.lists(some, min_size=2, max_size=4))
    return [{"name": name, "probability": draw(probability)} for name in names]


used = _fields(
    {"used": st.just(True), "quality": probability, "emotions": distributions()},
    {"lost_ms": small, "faces": st.integers(1, 4)},
)
unused = _fields({"used": st.just(False), "reason": some}, {"lost_ms": small})
modality = used | unused
SESSIONS = st.sampled_from(["s", "s-2", "=s"])
PARTICIPANTS = st.sampled_from(["anna", "ben", "anna-3f9a", "<b>&", "a  b", "emotion@anna"]) | some
UTTERANCES = st.sampled_from(["u.0", "u.1", "u.2"]) | some

_REQUIRED: dict[str, dict[str, Any]] = {
    "emotion.utterance": {
        "participant_id": PARTICIPANTS,
        "utterance_id": UTTERANCES,
        "revision": st.integers(0, 3),
        "is_final": st.booleans(),
        "index": small,
        "start_ms": ms,
        "end_ms": ms,
        "clock": st.sampled_from(["rtcp_ntp", "arrival", "media"]),
        "label": st.none() | st.sampled_from(EMOTIONS) | text,
        "emotions": distributions(),
        "abstained": st.booleans(),
        "modalities": _fields({"text": modality, "audio": modality, "visual": modality}),
        "context": _fields({"window": st.integers(1, 16), "speakers": st.integers(1, 4)}),
        "model": _fields(dict.fromkeys(("name", "version", "labels", "engine", "precision"), text)),
    },
    "utterance.started": {"participant_id": PARTICIPANTS, "utterance_id": UTTERANCES, "start_ms": ms},
    "utterance.ended": {
        "participant_id": PARTICIPANTS,
        "utterance_id": UTTERANCES,
        "index": small,
        "start_ms": ms,
        "end_ms": ms,
    },
    "utterance.dropped": {"participant_id": PARTICIPANTS, "utterance_id": UTTERANCES, "reason": some},
    "participant.joined": {"participant_id": PARTICIPANTS, "at_ms": ms},
    "participant.left": {"participant_id": PARTICIPANTS, "at_ms": ms, "reason": some},
    "participant.state": {
        "participant_id": PARTICIPANTS,
        "at_ms": ms,
        "label": some,
        "emotions": distributions(),
        "utterances": st.integers(1, 9),
        "half_life_ms": st.integers(1, 30_000),
    },
    "session.started": {
        "room": some,
        "purpose": st.none() | text,
        "clock": st.sampled_from(["rtcp_ntp", "arrival", "media"]),
    },
    "session.closed": {
        "at_ms": ms,
        "reason": some,
        "totals": _fields(dict.fromkeys(("started", "emotions", "dropped"), small)),
    },
}
_MOMENTS = st.sampled_from(["2026-11-23T16:09:12.300Z", "1969-01-01T00:00:00Z"])
_LATENCY = st.fixed_dictionaries(
    {"endpoint": st.integers(), "total": st.integers(0, 10**6)}, optional={"queue": small, "text": small}
)
_OPTIONAL: dict[str, dict[str, Any]] = {
    "emotion.utterance": {
        "continues": st.booleans(),
        "started_at": _MOMENTS | text,
        "text": text,
        "language": text,
        "latency_ms": _LATENCY,
    },
    "participant.joined": {"consent": st.none() | _fields({"notice": some, "at_ms": ms})},
    "session.started": {"started_at": _MOMENTS},
}


@st.composite
def events(draw: st.DrawFn, session: st.SearchStrategy[str] = SESSIONS) -> Event:
    """One event of any type."""
    kind = draw(st.sampled_from(["emotion.utterance", "emotion.utterance", *_REQUIRED]))
    base = {
        "schema": "emotion-event/1",
        "type": kind,
        "event_id": str(draw(st.uuids())),
        "seq": draw(st.integers(1, 10**6)),
        "session_id": draw(session),
    }
    return {**draw(_fields(_REQUIRED[kind], _OPTIONAL.get(kind))), **base}


conversations = st.lists(events(st.just("s")), max_size=8)  # of one session
feeds = st.lists(events(), max_size=8)  # of several
