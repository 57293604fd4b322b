"""Numbers with intervals, where cases are few runs or repeated timings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from engram_transformers.evaluation.metrics import Measure

_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
      2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086)  # fmt: skip
"97.5 % quantiles of Student's t with 1, 2, ... degrees of freedom."


def over_runs(values: Sequence[float]) -> Measure:
    """The mean of a few runs with Student's interval; a single run has none, and shows none."""
    n = len(values)
    if n == 0:
        return Measure(math.nan, math.nan, math.nan, 0)
    mean = float(np.mean(values))
    if n == 1:
        return Measure(mean, mean, mean, 1)
    half = (_T[n - 2] if n - 2 < len(_T) else 1.96) * float(np.std(values, ddof=1)) / math.sqrt(n)
    return Measure(mean, mean - half, mean + half, n)


def share_over_runs(values: Sequence[float]) -> Measure:
    """The same of shares: an interval from the t distribution knows no bounds, and a share has."""
    found = over_runs(values)
    return replace(found, low=max(0.0, found.low), high=min(1.0, found.high))


def median(values: Sequence[float], *, seed: int = 0) -> Measure:
    """The median of repeated timings with its percentile bootstrap interval."""
    cases = np.asarray(values, dtype=np.float64)
    if len(cases) == 0:
        return Measure(math.nan, math.nan, math.nan, 0)
    draws = np.random.default_rng(seed).integers(len(cases), size=(2000, len(cases)))
    low, high = np.percentile(np.median(cases[draws], axis=1), [2.5, 97.5])
    return Measure(float(np.median(cases)), float(low), float(high), len(cases))


def slope(xs: Sequence[float], ys: Sequence[float]) -> float:
    """Of the straight line through these points, by least squares."""
    return float(np.polyfit(np.asarray(xs, np.float64), np.asarray(ys, np.float64), 1)[0])


def exponent(xs: Sequence[float], ys: Sequence[float]) -> float:
    """The power of x that y grows with: 0 for what is constant, 1 for what is proportional."""
    return slope(np.log(xs).tolist(), np.log(ys).tolist())
