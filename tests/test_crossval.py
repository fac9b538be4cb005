"""Folds keep groups whole, the bootstrap tells luck from skill, the baselines are fair."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from cmath_stream.training.crossval import concat_mlp, folds_by_group, held_out, majority, paired_bootstrap
from cmath_stream.training.data import UNLABELLED, synthetic
from cmath_stream.training.evaluate import metrics

RNG = np.random.default_rng(0)
GROUPS = [f"g{g:02}" for g in np.repeat(np.arange(62), RNG.integers(9, 56, size=62))]
LABEL = RNG.integers(0, 2, size=len(GROUPS))


def test_folds_keep_groups_whole_and_are_of_a_size() -> None:
    fold = folds_by_group(GROUPS, 5, seed=1)
    pairs = set(zip(GROUPS, fold.tolist(), strict=True))
    assert len(pairs) == 62
    sizes = np.bincount(fold)
    assert len(sizes) == 5
    assert sizes.max() - sizes.min() < 20
    assert fold.tolist() == folds_by_group(GROUPS, 5, seed=1).tolist()
    assert fold.tolist() != folds_by_group(GROUPS, 5, seed=2).tolist()


def test_the_order_of_rows_does_not_matter() -> None:
    order = RNG.permutation(len(GROUPS))
    fold = folds_by_group(GROUPS, 5, seed=3)
    assert folds_by_group([GROUPS[i] for i in order], 5, seed=3).tolist() == fold[order].tolist()


def test_a_part_is_held_out_in_whole_groups() -> None:
    held = held_out(GROUPS, 0.125, seed=0)
    assert 0.09 < held.mean() < 0.16
    assert not {g for g, h in zip(GROUPS, held, strict=True) if h} & {
        g for g, h in zip(GROUPS, held, strict=True) if not h
    }
    assert held_out(["a", "b", "a"], 0.1, seed=0).any()  # two groups: one of them
    with pytest.raises(ValueError, match="1 groups"):
        held_out(["a", "a"], 0.1, seed=0)


def flipped(share: float, seed: int) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    wrong = np.random.default_rng(seed).random(len(LABEL)) < share
    return np.asarray(np.where(wrong, 1 - LABEL, LABEL), dtype=np.int64)


@pytest.mark.parametrize("metric", ("accuracy", "weighted_f1"))
def test_the_bootstrap_sees_a_difference_and_its_sign(metric: str) -> None:
    good, bad = flipped(0.2, 1), flipped(0.3, 2)
    difference, low, high = paired_bootstrap(good, bad, LABEL, GROUPS, metric)  # type: ignore[arg-type]
    assert 0.0 < low < difference < high < 0.2
    back = paired_bootstrap(bad, good, LABEL, GROUPS, metric)  # type: ignore[arg-type]
    assert back == pytest.approx((-difference, -high, -low))
    eye = np.eye(2)
    figures = [getattr(metrics(eye[said], LABEL), metric) for said in (good, bad)]
    assert difference == pytest.approx(figures[0] - figures[1])


def test_equal_skill_shows_no_difference() -> None:
    difference, low, high = paired_bootstrap(flipped(0.25, 3), flipped(0.25, 4), LABEL, GROUPS)
    assert low < 0.0 < high
    assert low < difference < high
    assert paired_bootstrap(LABEL, LABEL, LABEL, GROUPS) == (0.0, 0.0, 0.0)


def test_groups_that_err_together_widen_the_interval() -> None:
    number = np.array([int(g[1:]) for g in GROUPS])
    whole = np.where(number % 4 == 0, 1 - LABEL, LABEL)  # wrong on every fourth group
    _, low, high = paired_bootstrap(whole, LABEL, LABEL, GROUPS)
    _, row_low, row_high = paired_bootstrap(whole, LABEL, LABEL, [str(i) for i in range(len(LABEL))])
    assert high - low > 2 * (row_high - row_low)


def test_seeds_are_averaged_and_probabilities_taken() -> None:
    a = np.stack([flipped(0.2, seed) for seed in range(5)])
    b = np.stack([flipped(0.3, seed + 9) for seed in range(5)])
    difference, low, high = paired_bootstrap(np.eye(2)[a], np.eye(2)[b], LABEL, GROUPS, "weighted_f1")
    each = [paired_bootstrap(x, y, LABEL, GROUPS, "weighted_f1")[0] for x, y in zip(a, b, strict=True)]
    assert difference == pytest.approx(np.mean(each))
    assert low > 0.0


def test_majority_says_the_shares() -> None:
    examples = synthetic(20, (3,), 4)
    shares = majority(examples[:15], examples[15:], 4)
    assert len(shares) == sum(len(each.label) for each in examples[15:])
    label = np.concatenate([each.label for each in examples[:15]])
    np.testing.assert_allclose(shares[0], np.bincount(label, minlength=4) / len(label))


def test_the_mlp_learns_repeats_itself_and_minds_no_garbage() -> None:
    torch.set_num_threads(1)
    examples = synthetic(60, (6, 4), 3, absent=0.2)
    parts = examples[:40], examples[40:50], examples[50:]
    label = np.concatenate([each.label for each in parts[2]])
    said = concat_mlp(*parts, 3, seed=0, epochs=6)
    assert metrics(said, label).accuracy > 0.8
    rotten = [
        replace(
            each,
            features=tuple(
                np.where(each.presence[:, [m]], rows, np.nan) for m, rows in enumerate(each.features)
            ),
        )
        for each in examples
    ]
    again = concat_mlp(rotten[:40], rotten[40:50], rotten[50:], 3, seed=0, epochs=6)
    np.testing.assert_array_equal(said, again)
    assert not np.array_equal(said, concat_mlp(*parts, 3, seed=1, epochs=6))
    assert not np.array_equal(said, concat_mlp(*parts, 3, seed=0, epochs=6, balance=1.0))


def test_unlabelled_rows_teach_and_answer_nothing() -> None:
    examples = synthetic(30, (5,), 3, absent=0.0)
    blank = [replace(each, label=np.full_like(each.label, UNLABELLED)) for each in examples[:2]]
    said = concat_mlp(examples[:20] + blank, examples[20:25], examples[25:] + blank, 3, 0, epochs=2)
    assert len(said) == sum(len(each.label) for each in examples[25:])
    assert len(majority(examples, blank, 3)) == 0
