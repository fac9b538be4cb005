"""The token bucket: how many at once, how many after, and that no crowd of addresses makes it grow."""

from __future__ import annotations

import pytest

from realtime.rate_limit import RateLimit


def test_a_burst_then_the_rate() -> None:
    limit = RateLimit(per_s=2.0, burst=3)
    assert [limit.wait_s("a", 10.0) for _ in range(4)] == [0.0, 0.0, 0.0, pytest.approx(0.5)]
    assert limit.wait_s("a", 10.4) == pytest.approx(0.1)  # a refusal costs nothing
    assert limit.wait_s("a", 10.5) == 0.0
    assert limit.wait_s("a", 10.5) > 0
    assert [limit.wait_s("a", 99.0) for _ in range(4)][:3] == [0.0] * 3  # saved up to the burst, no more
    assert limit.wait_s("a", 99.0) > 0


def test_clients_do_not_pay_for_each_other() -> None:
    limit = RateLimit(per_s=1.0, burst=1)
    assert limit.wait_s("a", 0.0) == 0.0
    assert limit.wait_s("a", 0.0) > 0
    assert limit.wait_s("b", 0.0) == 0.0


def test_a_crowd_shares_one_bucket_and_memory_stays() -> None:
    limit = RateLimit(per_s=1.0, burst=1, max_clients=10)
    taken = sum(limit.wait_s(f"client {n}", 0.0) == 0.0 for n in range(1000))
    assert taken == 11 and len(limit) == 11  # ten with a bucket of their own, and the one of all others
    assert limit.wait_s("client 3", 0.0) > 0
    assert limit.wait_s("late", 5.0) == 0.0 and len(limit) == 1  # the full ones are forgotten
