"""Joining answers: in order, on time, revised once what was late has come, never twice final."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cmath_stream.assembler import Assembled, Assembler, AssemblerConfig, present
from realtime.messages import Answer, Features, FeaturesMissing, Modality, UtteranceEnded

CONFIG = AssemblerConfig(deadline_s=1.5, final_s=4.0)


def ended(n: int) -> UtteranceEnded:
    return UtteranceEnded("s", "p", f"p.{n}", n, n * 1000, n * 1000 + 500, False, 0, 300, 0)


def features(n: int, modality: Modality, value: float = 1.0) -> Features:
    return Features("s", f"p.{n}", modality, "x/1", np.full(2, value, np.float32), 1.0, 5)


def missing(n: int, modality: Modality) -> FeaturesMissing:
    return FeaturesMissing("s", f"p.{n}", modality, "no_video", 0)


def feed(assembler: Assembler, answers: list[Answer], now_s: float) -> list[Assembled]:
    return [out for answer in answers for out in assembler.answer(answer, now_s)]


def ids(assembled: list[Assembled]) -> list[tuple[str, int, bool]]:
    return [(a.utterance.utterance_id, a.revision, a.is_final) for a in assembled]


def test_complete_utterance_leaves_at_once() -> None:
    assembler = Assembler(CONFIG)
    assert assembler.announce(ended(0), 0.0) == []
    (out,) = feed(assembler, [features(0, "text"), missing(0, "visual"), features(0, "audio")], 0.1)
    assert ids([out]) == [("p.0", 0, True)]
    assert present(out.answers) == ("text", "audio")
    assert assembler.idle


def test_answers_may_come_before_the_announcement() -> None:
    assembler = Assembler(CONFIG)
    assert feed(assembler, [features(0, "text"), features(0, "audio"), missing(0, "visual")], 0.0) == []
    assert assembler.owes("p.0")
    assert ids(assembler.announce(ended(0), 0.1)) == [("p.0", 0, True)]
    assert not assembler.owes("p.0")


def test_a_slow_utterance_holds_later_ones_until_its_deadline_only() -> None:
    assembler = Assembler(CONFIG)
    assembler.announce(ended(0), 0.0)
    assembler.announce(ended(1), 0.5)
    assert feed(assembler, [features(1, "text"), features(1, "audio"), missing(1, "visual")], 0.6) == []
    feed(assembler, [features(0, "text")], 0.6)
    out = assembler.expire(1.5)
    assert ids(out) == [("p.0", 0, False), ("p.1", 0, True)]
    late = out[0].answers["audio"]
    assert isinstance(late, FeaturesMissing) and late.reason == "pending"


def test_a_late_modality_makes_one_final_revision() -> None:
    assembler = Assembler(CONFIG)
    assembler.announce(ended(0), 0.0)
    feed(assembler, [features(0, "text"), missing(0, "visual")], 0.1)
    assert ids(assembler.expire(1.5)) == [("p.0", 0, False)]
    assert ids(feed(assembler, [features(0, "audio")], 2.0)) == [("p.0", 1, True)]
    assert assembler.expire(9.0) == [] and assembler.idle


def test_what_never_comes_is_missing_for_good() -> None:
    assembler = Assembler(CONFIG)
    assembler.announce(ended(0), 0.0)
    feed(assembler, [features(0, "text")], 0.1)
    assembler.expire(1.5)
    (out,) = assembler.expire(4.0)
    assert ids([out]) == [("p.0", 1, True)]
    assert {m: a.reason for m, a in out.answers.items() if isinstance(a, FeaturesMissing)} == {
        "audio": "deadline", "visual": "deadline",
    }  # fmt: skip
    assert feed(assembler, [features(0, "audio")], 5.0) == [] and not assembler.owes("p.0")


def test_a_correction_counts_until_the_end() -> None:
    assembler = Assembler(CONFIG)
    assembler.announce(ended(0), 0.0)
    feed(assembler, [missing(0, "text"), features(0, "text", 7.0), features(0, "audio")], 0.1)
    (out,) = feed(assembler, [missing(0, "visual")], 0.2)
    text = out.answers["text"]
    assert isinstance(text, Features) and text.vector[0] == 7.0


def test_an_extractor_that_does_not_run_is_not_waited_for() -> None:
    assembler = Assembler(AssemblerConfig(modalities=("text",)))
    assembler.announce(ended(0), 0.0)
    (out,) = feed(assembler, [features(0, "text")], 0.1)
    audio = out.answers["audio"]
    assert out.is_final and isinstance(audio, FeaturesMissing) and audio.reason == "no_worker"


def test_strays_do_not_grow_without_bound() -> None:
    assembler = Assembler(CONFIG)
    for n in range(1000):
        assembler.answer(features(n, "text"), 0.0)
    assert sum(assembler.owes(f"p.{n}") for n in range(1000)) == 256
    assembler.expire(61.0)
    assert not any(assembler.owes(f"p.{n}") for n in range(1000))


def test_config_refuses_nonsense() -> None:
    with pytest.raises(ValueError):
        AssemblerConfig(deadline_s=5.0, final_s=1.0)


# ---- answers to a segment that was sent early


def attempt(answer: Answer, number: int) -> Answer:
    return replace(answer, attempt=number)


def all_of(n: int, number: int) -> list[Answer]:
    given: list[Answer] = [features(n, "text", number), missing(n, "visual"), features(n, "audio", number)]
    return [attempt(answer, number) for answer in given]


def values(assembled: Assembled) -> set[float]:
    return {float(a.vector[0]) for a in assembled.answers.values() if isinstance(a, Features)}


def test_answers_to_a_void_attempt_are_no_part_of_anything() -> None:
    assembler = Assembler(CONFIG)
    assert feed(assembler, all_of(0, 0), 0.0) == []
    assert assembler.announce(replace(ended(0), attempt=1), 0.1) == []
    assert feed(assembler, all_of(0, 0), 0.2) == []  # and none that comes late
    (out,) = feed(assembler, all_of(0, 1), 0.3)
    assert ids([out]) == [("p.0", 0, True)] and values(out) == {1.0}


def test_the_latest_attempt_waits_for_its_announcement_in_whatever_order_answers_come() -> None:
    assembler = Assembler(CONFIG)
    void, valid = all_of(0, 0), all_of(0, 1)
    assert feed(assembler, [void[0], valid[1], void[2], valid[0], void[1], valid[2]], 0.0) == []
    (out,) = assembler.announce(replace(ended(0), attempt=1), 0.1)
    assert ids([out]) == [("p.0", 0, True)] and values(out) == {1.0}


def test_a_void_answer_makes_no_revision() -> None:
    assembler = Assembler(CONFIG)
    assembler.announce(replace(ended(0), attempt=2), 0.0)
    feed(assembler, all_of(0, 2)[:2], 0.1)
    assert ids(assembler.expire(1.5)) == [("p.0", 0, False)]
    assert feed(assembler, all_of(0, 1), 2.0) == []
    (out,) = feed(assembler, all_of(0, 2)[2:], 2.1)
    assert ids([out]) == [("p.0", 1, True)] and values(out) == {2.0}


def test_an_early_start_whose_ingest_died_leaves_nothing() -> None:
    assembler = Assembler(CONFIG)
    feed(assembler, all_of(0, 0), 0.0)
    feed(assembler, all_of(0, 1), 2.0)
    assert assembler.idle and assembler.owes("p.0")
    assert assembler.expire(62.0) == [] and not assembler.owes("p.0")


# ---- an utterance whose speaker may still go on


def open_end(n: int, number: int = 0) -> UtteranceEnded:
    return replace(ended(n), attempt=number, may_resume=True)


def test_a_whole_answer_is_provisional_until_it_is_settled() -> None:
    assembler = Assembler(CONFIG)
    feed(assembler, all_of(0, 0), 0.0)
    (first,) = assembler.announce(open_end(0), 0.1)
    assert ids([first]) == [("p.0", 0, False)] and not first.confirms
    assert assembler.expire(60.0) == [] and not assembler.idle  # the clock does not settle it
    (last,) = assembler.settle("p.0", 60.0)
    assert ids([last]) == [("p.0", 1, True)] and last.confirms and last.answers == first.answers
    assert assembler.settle("p.0", 61.0) == []
    assert assembler.idle


def test_settled_before_its_answers_it_is_final_at_once() -> None:
    assembler = Assembler(CONFIG)
    assembler.announce(open_end(0), 0.0)
    assert assembler.settle("p.0", 0.5) == []
    assert ids(feed(assembler, all_of(0, 0), 0.6)) == [("p.0", 0, True)]


def test_taken_up_again_it_is_answered_anew() -> None:
    assembler = Assembler(CONFIG)
    feed(assembler, all_of(0, 0), 0.0)
    assembler.announce(open_end(0), 0.1)
    assert feed(assembler, all_of(0, 1)[:2], 1.0) == []  # its features come before it has ended anew
    assert assembler.announce(open_end(0, 1), 1.1) == []
    (revised,) = feed(assembler, all_of(0, 1)[2:], 1.2)
    assert ids([revised]) == [("p.0", 1, False)] and values(revised) == {1.0} and not revised.confirms
    (last,) = assembler.settle("p.0", 2.0)
    assert ids([last]) == [("p.0", 2, True)] and last.confirms and values(last) == {1.0}


def test_taken_up_again_before_its_turn_it_is_answered_once() -> None:
    assembler = Assembler(CONFIG)
    assembler.announce(open_end(0), 0.0)
    feed(assembler, all_of(0, 0)[:2], 0.1)
    assembler.announce(open_end(0, 1), 0.9)
    assert feed(assembler, all_of(0, 0)[2:], 1.0) == []
    assert ids(feed(assembler, all_of(0, 1), 1.1)) == [("p.0", 0, False)]


def test_taken_up_again_it_holds_the_others_no_longer() -> None:
    assembler = Assembler(CONFIG)
    assembler.announce(open_end(0), 0.0)
    feed(assembler, all_of(1, 0), 0.0)
    assembler.announce(ended(1), 0.2)
    assembler.announce(open_end(0, 1), 1.4)
    assert ids(assembler.expire(1.5)) == [("p.0", 0, False), ("p.1", 0, True)]


def test_what_the_new_end_lacks_is_missing_after_its_own_time() -> None:
    assembler = Assembler(CONFIG)
    feed(assembler, all_of(0, 0), 0.0)
    assembler.announce(open_end(0), 0.0)
    assembler.announce(replace(ended(0), attempt=1), 8.0)
    assert feed(assembler, all_of(0, 1)[:1], 8.1) == []
    assert ids(assembler.expire(9.5)) == [("p.0", 1, False)]
    assert ids(assembler.expire(12.0)) == [("p.0", 2, True)]


def test_a_correction_while_the_speaker_may_go_on_is_a_revision() -> None:
    assembler = Assembler(CONFIG)
    feed(assembler, all_of(0, 0), 0.0)
    assembler.announce(open_end(0), 0.1)
    (out,) = feed(assembler, [features(0, "text", 7.0)], 0.4)
    assert ids([out]) == [("p.0", 1, False)] and values(out) == {0.0, 7.0}


def test_final_answers_keep_the_order_of_the_conversation_too() -> None:
    assembler = Assembler(CONFIG)

    def whole(n: int) -> list[Answer]:
        return [features(n, "text"), features(n, "audio"), missing(n, "visual")]

    assembler.announce(replace(ended(0), may_resume=True), 0.0)
    assembler.announce(replace(ended(1), may_resume=True), 0.0)
    assert ids(feed(assembler, whole(0) + whole(1), 0.1)) == [("p.0", 0, False), ("p.1", 0, False)]
    assert assembler.settle("p.1", 0.5) == []  # the first may still go on
    assert ids(assembler.settle("p.0", 0.6)) == [("p.0", 1, True), ("p.1", 1, True)]

    assembler.announce(replace(ended(2), may_resume=True), 1.0)
    feed(assembler, whole(2), 1.0)
    assembler.announce(ended(3), 1.1)
    assert ids(feed(assembler, whole(3), 1.2)) == [("p.3", 0, False)]
    assert ids(assembler.expire(2.5)) == [("p.3", 1, True)]  # nobody waits longer than a deadline
    assert ids(assembler.settle("p.2", 3.0)) == [("p.2", 1, True)]
