"""The benchmark of the model: figures have the right names and hang together. No speed is tested."""

from __future__ import annotations

import pytest
from rich.console import Console

from cmath_stream.benchmarks import model as bench
from cmath_stream.benchmarks.figures import Figures
from cmath_stream.benchmarks.model import Asked


@pytest.fixture(scope="module")
def result() -> Figures:
    """Eager alone: compiling takes minutes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench, "RUNTIMES", ("eager",))
        patch.setattr(bench, "BATCHES", (1, 2))
        patch.setattr(bench, "_CALLS", 2)
        patch.setattr(bench, "_TURNS", (3, 40))
        patch.setattr(bench, "_ROUND_S", 0.0)
        return bench.measure(Asked(width=32, window=4, rounds=1), Console(quiet=True))


def test_every_way_is_timed_at_every_batch(result: Figures) -> None:
    timed = {(row["way"], row["batch"]): row["ms"] for row in result["step_ms"]}
    ways = ("every row", "window", "remember", "ask", "step")
    assert set(timed) == {(way, batch) for way in ways for batch in (1, 2)}
    assert all(ms > 0.0 for ms in timed.values())
    for batch in (1, 2):
        both = timed["remember", batch] + timed["ask", batch]
        assert timed["step", batch] == pytest.approx(both, abs=2e-4)
    assert (result["width"], result["window"], result["threads"]) == (32, 4, 1)


def test_floors_count_what_a_program_must_do(result: Figures) -> None:
    rows = {(row["way"], row["batch"]): row for row in result["floors"]["rows"]}
    assert rows["remember", 2]["gflop"] == pytest.approx(2 * rows["remember", 1]["gflop"], rel=0.02)
    assert rows["window", 1]["gflop"] > rows["remember", 1]["gflop"] + rows["ask", 1]["gflop"]
    weights = [rows[way, 1]["weight_ms"] for way in ("remember", "ask", "window")]
    assert weights[0] + weights[1] == pytest.approx(weights[2], abs=2e-4)


def test_the_fusion_is_set_beside_the_model_called_one_by_one(result: Figures) -> None:
    fusion = result["fusion"]
    expected = fusion["eager_full_window_ms_per_utterance"] / fusion["engine_ms_per_utterance"]
    assert fusion["ratio"] == pytest.approx(expected, rel=0.05)
    assert fusion["turns"]["at"] == [3, 40]
