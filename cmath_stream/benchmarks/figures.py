"""Measured values as figures: pure functions, and what machine they were measured on."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

Figures = dict[str, Any]  # JSON-ready


def summary(values: Sequence[float]) -> Figures:
    """n, p50, p95 and max, to a tenth; None where there is nothing to sum up."""
    if not values:
        return {"n": 0, "p50": None, "p95": None, "max": None}
    p50, p95 = np.percentile(values, [50, 95])
    return {
        "n": len(values),
        "p50": round(float(p50), 1),
        "p95": round(float(p95), 1),
        "max": round(float(max(values)), 1),
    }


def histogram(values: Sequence[float], edges: Sequence[float]) -> Figures:
    """Counts between the edges; the first and the last also hold what lies beyond them."""
    inside = np.clip(np.asarray(values, np.float64), edges[0], edges[-1])
    counts, _ = np.histogram(inside, edges)
    return {"edges": list(edges), "counts": [int(count) for count in counts]}


def bucket_quantile(bounds: Sequence[float], cumulative: Sequence[float], q: float) -> float | None:
    """Quantile of a Prometheus histogram, linear inside its bucket; None of an empty one.

    `bounds` ascend and end in infinity, of which no more is known than the last finite bound.
    """
    if not cumulative or cumulative[-1] <= 0:
        return None
    rank = q * cumulative[-1]
    at = next(n for n, count in enumerate(cumulative) if count >= rank)
    if at == len(bounds) - 1:
        return bounds[at - 1]
    low, before = (bounds[at - 1], cumulative[at - 1]) if at else (0.0, 0.0)
    inside = cumulative[at] - before
    return low + (bounds[at] - low) * ((rank - before) / inside if inside else 1.0)


def shown(value: float | None, unit: str = "") -> str:
    """For a table."""
    return "-" if value is None else f"{value:g}{unit}"


def machine() -> Figures:
    """What is measured on, and how busy it is with other things now."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "load_average": [round(load, 2) for load in os.getloadavg()],
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
