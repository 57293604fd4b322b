"""Slow twins of the fingerprint, the search and the memory; imported by tests only."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence


def mask(
    activation: Sequence[float],
    *,
    background: Sequence[float],
    permutation: Sequence[int],
    top_k: int,
) -> list[int]:
    """TopHash by its definition: sort all distances from the background."""
    distances = [abs(a - b) for a, b in zip(activation, background, strict=True)]
    order = sorted(range(len(distances)), key=lambda i: (-distances[i], i))
    chosen = {permutation[i] for i in order[:top_k]}
    return [int(i in chosen) for i in range(len(distances))]


def similarity(metric: str, first: set[int], second: set[int]) -> float:
    """How alike two masks are, as sets of their active features."""
    shared = len(first & second)
    if not first or not second:
        return 0.0 if metric != "l2" else 1 / (1 + math.sqrt(2))
    if metric == "overlap":
        return shared / max(len(first), len(second))
    cosine = shared / math.sqrt(len(first) * len(second))
    return 1 / (1 + math.sqrt(max(2 - 2 * cosine, 0))) if metric == "l2" else cosine


def nearest(
    query: set[int], stored: Mapping[str, set[int]], *, metric: str, threshold: float, top_k: int
) -> list[tuple[str, float]]:
    """Every stored mask compared, oldest first; best first, and the oldest among equals."""
    scores = [(id, similarity(metric, one, query)) for id, one in stored.items()]
    able = [each for each in scores if each[1] >= threshold]
    return sorted(able, key=lambda each: -each[1])[:top_k]


def residual(
    activation: Sequence[float],
    edits: Sequence[Mapping[int, Sequence[float]]],
    *,
    open_columns: set[int],
    hidden: int,
) -> list[float]:
    """``Wm (m * a)``, summed edit by edit and column by column."""
    out = [0.0] * hidden
    for edit in edits:
        for column, values in edit.items():
            if column in open_columns:
                for i in range(hidden):
                    out[i] += values[i] * activation[column]
    return out
