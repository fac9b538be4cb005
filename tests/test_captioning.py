"""A caption belongs to the utterance it overlaps most, whenever it comes."""

from __future__ import annotations

from realtime.captioning import CaptionTrack
from realtime.messages import Caption


def track() -> CaptionTrack:
    return CaptionTrack(grace_s=0.8)


def test_captions_that_came_in_time_are_joined_in_order() -> None:
    captions = track()
    captions.begin("a.0", 1.0)
    assert captions.add(Caption(1.6, 2.4, "there", "en"), "a.0") is None
    assert captions.add(Caption(1.0, 1.5, "hello"), "a.0") is None
    assert captions.end("a.0", 2.4, 2.7) == ([], ("hello there", "en"))
    assert captions.expire(99.0) == []


def test_a_caption_before_its_utterance_opened_still_belongs() -> None:
    captions = track()
    captions.add(Caption(1.0, 1.2, "mm"), "")
    captions.begin("a.0", 1.0)
    assert captions.end("a.0", 1.3, 1.6)[1][0] == "mm"


def test_a_late_caption_corrects_its_utterance() -> None:
    captions = track()
    captions.begin("a.0", 1.0)
    assert captions.end("a.0", 2.0, 2.3) == ([], (None, None))
    captions.begin("a.1", 3.0)
    assert captions.add(Caption(1.1, 1.9, "late"), "a.1") == "a.0"
    assert captions.text_of("a.0")[0] == "late"
    assert captions.expire(99.0) == []  # it has its words now


def test_greatest_overlap_decides_between_neighbours() -> None:
    captions = track()
    captions.begin("a.0", 0.0)
    captions.end("a.0", 2.0, 2.3)
    captions.begin("a.1", 2.4)
    captions.add(Caption(1.8, 4.0, "second"), "a.1")
    assert captions.end("a.1", 4.0, 4.3)[1][0] == "second"
    assert captions.text_of("a.0") == (None, None)


def test_no_caption_within_the_grace_time_is_said_once() -> None:
    captions = track()
    captions.begin("a.0", 1.0)
    captions.end("a.0", 2.0, 2.3)
    assert captions.expire(3.0) == []
    assert captions.expire(3.2) == ["a.0"]
    assert captions.expire(9.0) == []


def test_words_about_nothing_heard_go_nowhere() -> None:
    captions = track()
    captions.begin("a.0", 10.0)
    captions.add(Caption(1.0, 2.0, "ghost"), "a.0")
    assert captions.end("a.0", 11.0, 11.3) == ([], (None, None))


def test_words_that_seemed_to_be_of_the_open_utterance_go_back_to_the_one_before() -> None:
    captions = track()
    captions.begin("a.0", 7.0)
    captions.end("a.0", 10.0, 10.3)
    captions.begin("a.1", 10.5)
    assert captions.add(Caption(9.0, 12.0, "yes and no"), "a.1") is None  # a.1 may still last
    assert captions.end("a.1", 10.9, 11.2) == (["a.0"], (None, None))
    assert captions.text_of("a.0")[0] == "yes and no"


def test_asking_for_the_words_so_far_changes_nothing() -> None:
    captions = track()
    captions.begin("a.0", 1.0)
    assert captions.so_far("a.0", 2.0) == (None, None)
    captions.add(Caption(1.0, 1.9, "hello", "en"), "a.0")
    captions.add(Caption(2.6, 3.0, "later"), "a.0")
    assert captions.so_far("a.0", 2.0) == captions.so_far("a.0", 2.0) == ("hello", "en")
    assert captions.end("a.0", 3.0, 3.3) == ([], ("hello later", "en"))
