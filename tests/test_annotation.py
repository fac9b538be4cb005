"""The truth beside the events: whose end is whose, how long it took, who was cut off."""

from __future__ import annotations

from pathlib import Path

import pytest

from cmath_stream import annotation
from cmath_stream.annotation import Line, Report
from cmath_stream.inputs import Source
from cmath_stream.watch import Entry
from realtime.errors import MediaError
from realtime.messages import Caption

OFFSET_MS, START_UNIX_S = 500, 1000.0
REPORTS: list[Report] = [
    {"participant": name, "session_offset_ms": OFFSET_MS, "media_start_unix_s": START_UNIX_S}
    for name in ("ann", "bob")
]


def heard(
    uid: str, start_ms: int, end_ms: int, at_ms: float = 0, *, revision: int = 0, continues: bool = False
) -> Entry:
    """An emotion of the file times given, written `at_ms` after file time zero."""
    event = {
        "type": "emotion.utterance",
        "participant_id": uid.partition(".")[0],
        "utterance_id": uid,
        "revision": revision,
        "start_ms": start_ms + OFFSET_MS,
        "end_ms": end_ms + OFFSET_MS,
        "continues": continues,
    }
    return f"{round(START_UNIX_S * 1000 + at_ms)}-0", event


def test_latency_counts_from_the_last_annotated_end_in_the_utterance() -> None:
    lines = [Line("ann", 100, 900), Line("ann", 1000, 2000), Line("bob", 0, 1900)]
    entries = [heard("ann.0", 0, 2150, 2600), ("1-0", {"type": "utterance.started"})]
    assert annotation.latencies_ms(entries, REPORTS, lines) == [600.0]


def test_an_end_counts_once_for_the_last_utterance_that_it_may_belong_to() -> None:
    lines = [Line("ann", 0, 2000)]
    entries = [heard("ann.0", 0, 1800, 2100), heard("ann.1", 1850, 2100, 2500)]
    (one,) = annotation.timed(entries, REPORTS, lines)
    assert (one.event["utterance_id"], one.end_ms, one.latency_ms) == ("ann.1", 2000, 500.0)


def test_revisions_and_utterances_without_an_end_are_left_out() -> None:
    lines = [Line("ann", 0, 5000)]
    entries = [heard("ann.0", 0, 2000, 2500), heard("ann.0", 0, 5100, 5600, revision=1)]
    assert annotation.timed(entries, REPORTS, lines) == []


@pytest.mark.parametrize(
    ("end_ms", "continues", "early"),
    [
        (1880, False, True),
        (1900, False, False),
        (2150, False, False),
        (1500, True, False),
        (150, False, False),
    ],
)
def test_cut_early_is_speech_that_goes_on_after_its_utterance(
    end_ms: int, continues: bool, early: bool
) -> None:
    lines = [Line("ann", 0, 2000), Line("bob", 0, 4000)]
    entries = [heard("ann.0", 0, end_ms, continues=continues)]
    assert annotation.cut_early(entries, REPORTS, lines) == (["ann.0"] if early else [])


def test_cut_early_goes_by_the_last_revision() -> None:
    lines = [Line("ann", 0, 2000)]
    entries = [heard("ann.0", 0, 1000), heard("ann.0", 0, 2100, revision=1)]
    assert annotation.cut_early(entries, REPORTS, lines) == []


def test_captions_are_the_truth_where_there_is_no_other() -> None:
    people = [Source("ann", Path("ann.opus"), (Caption(0.5, 1.25, "hello"),))]
    assert annotation.captioned(people) == [Line("ann", 500, 1250)]


RTTM = """\
SPEAKER call 1 1.000 2.000 <NA> <NA> ann <NA> <NA>
SPEAKER call 1 2.500 0.250 <NA> <NA> bob <NA> <NA>
SPEAKER call 1 4.000 1.000 <NA> <NA> bob <NA> <NA>
"""


def test_turns_go_to_their_speakers_and_of_a_mix_are_joined(tmp_path: Path) -> None:
    path = tmp_path / "call.rttm"
    path.write_text(RTTM)
    two = [Source("ann", Path("ann.opus")), Source("Bob", Path("bob.opus"))]
    assert annotation.read([path], two) == [
        Line("ann", 1000, 3000), Line("Bob", 2500, 2750), Line("Bob", 4000, 5000),
    ]  # fmt: skip
    mix = [Source("call", Path("call.opus"))]
    assert annotation.read([path], mix) == [Line("call", 1000, 3000), Line("call", 4000, 5000)]


def test_stm_is_an_annotation_and_a_stranger_is_none(tmp_path: Path) -> None:
    path = tmp_path / "call.stm"
    path.write_text("call 1 ann 0.5 1.5 hello\ncall 1 carl 2 3 hi\n")
    with pytest.raises(MediaError, match="'carl' fits none"):
        annotation.read([path], [Source("ann", Path("a.opus")), Source("bob", Path("b.opus"))])
    assert len(annotation.read([path], [Source("ann", Path("a.opus"))])) == 2
    with pytest.raises(MediaError, match=r"one of \.rttm"):
        annotation.read([tmp_path / "call.txt"], [Source("ann", Path("a.opus"))])
