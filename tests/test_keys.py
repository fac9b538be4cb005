from __future__ import annotations

import re
from collections import Counter

from redis.crc import key_slot

from realtime.keys import Keys

KEYS = Keys()


def test_names_are_those_of_the_protocol() -> None:
    assert KEYS.segments(3) == "emo:work:{segments:3}"
    assert KEYS.inbox(0) == "emo:work:{features:0}"
    assert KEYS.dead(KEYS.segments(3)) == "emo:work:{segments:3}:dlq"
    assert KEYS.blob("s", "u", 2, "pcm") == "emo:blob:{s}:u:2:pcm"
    assert KEYS.events("s") == "emo:{s}:events"
    assert KEYS.feed == "emo:feed"
    assert Keys(prefix="x:").held("s") == "x:{s}:held"


def test_a_shard_is_the_same_in_every_process() -> None:
    assert [Keys(shards=8).shard_of(name) for name in ("a", "b", "session")] == [3, 1, 4]


def test_sessions_spread_over_the_shards() -> None:
    counts = Counter(KEYS.shard_of(f"session-{number}") for number in range(4000))
    assert set(counts) == set(range(4))
    assert min(counts.values()) > 800


def test_the_keys_of_a_session_lie_in_one_slot() -> None:
    names = [KEYS.events("s1"), KEYS.state("s1"), KEYS.done("s1"), KEYS.blob("s1", "u1", 0, "pcm")]
    names += [KEYS.held("s1"), KEYS.close("s1")]
    assert len({key_slot(name.encode()) for name in names}) == 1


def test_a_stream_lies_beside_its_dead_letters() -> None:
    stream = KEYS.segments(1)
    assert key_slot(stream.encode()) == key_slot(KEYS.dead(stream).encode())


def test_every_name_has_the_prefix_and_its_own_form() -> None:
    names = [KEYS.segments(0), KEYS.inbox(0), KEYS.blob("s", "u", 0, "k"), KEYS.events("s"), KEYS.state("s")]
    names += [KEYS.done("s"), KEYS.feed, KEYS.held("s"), KEYS.close("s")]
    assert len(set(names)) == len(names)
    assert all(re.match(r"emo:", name) for name in names)
