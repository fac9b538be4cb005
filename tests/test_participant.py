"""A participant's running average: by length, by age, whatever the order, and without flicker."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations

import numpy as np
import pytest

from cmath_stream.participant import HALF_LIFE_S, RunningEmotion

SAID = [(0, 2000, (0.8, 0.2)), (30_000, 31_000, (0.1, 0.9)), (50_000, 54_000, (0.4, 0.6))]


def averaged(said: Sequence[tuple[int, int, tuple[float, ...]]]) -> RunningEmotion:
    average = RunningEmotion()
    for start_ms, end_ms, probabilities in said:
        average.add(start_ms, end_ms, probabilities)
    return average


def test_it_is_the_weighted_mean_that_it_is_said_to_be() -> None:
    weight = np.array([(e - s) * 2 ** (-(54_000 - e) / 1000 / HALF_LIFE_S) for s, e, _ in SAID])
    mean = weight @ np.array([p for *_, p in SAID]) / weight.sum()
    average = averaged(SAID)
    assert average.probabilities == pytest.approx(tuple(mean))
    assert (average.utterances, average.at_ms) == (3, 54_000)


def test_the_order_in_which_they_come_does_not_matter() -> None:
    means = [averaged(order).probabilities for order in permutations(SAID)]
    assert all(mean == pytest.approx(means[0]) for mean in means)


def test_the_label_does_not_flicker() -> None:
    average = averaged([(0, 1000, (0.6, 0.4))])
    for n in range(1, 6):
        average.add(n * 1000, n * 1000 + 1000, (0.47, 0.53))
    assert average.probabilities[1] > average.probabilities[0]
    assert average.leading == 0
    average.add(7000, 12_000, (0.1, 0.9))
    assert average.leading == 1


def test_a_silence_of_any_length_leaves_it_as_it_was() -> None:
    average = averaged([(0, 1000, (0.6, 0.4))])
    average.add(10**9, 10**9 + 500, (0.2, 0.8))
    assert average.probabilities == pytest.approx((0.2, 0.8))
