"""Tests that need no distribution: what is seen against what relabelling would show.

Pure functions on numbers; all p-values count the observed case, so none is ever 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
ALPHA = 0.05
"What a p-value has to be below, to be called significant."
EXACT = 12
"Differences up to which all ways to flip their signs are counted, rather than drawn."
_ROOM = 4_000_000
"Numbers that are drawn at once."


@dataclass(frozen=True)
class Shifts:
    """How much more alike related pairs are than unrelated ones, by layer and relation."""

    relations: tuple[str, ...]
    shift: Array
    "(layers, relations): mean of related pairs less that of unrelated pairs."
    p: Array
    "(layers, relations): one-sided, corrected for the number of relations."
    p_all: Array
    "(layers, relations): corrected for the number of layers too."


def relation_shifts(
    similarities: Array,
    related: Mapping[str, NDArray[np.int64]],
    unrelated: NDArray[np.int64],
    *,
    draws: int = 2000,
    seed: int = 0,
) -> Shifts:
    """Are related facts more alike? A Mantel test: facts change places, relations stay.

    p-values are corrected by the largest statistic of each relabelling (Westfall and Young,
    1993), each relation's being measured in its own standard deviations.

    Args:
        similarities: (layers, facts, facts), symmetric.
        related: pairs of facts (n, 2) by relation; no pair twice.
        unrelated: (n, 2), at least one.
    """
    names = tuple(related)
    layers, count = similarities.shape[:2]
    orders = _orders(count, draws, seed=seed)
    total = sum(_sums(similarities, pairs, orders[:1]) for pairs in (*related.values(), unrelated))
    sums = np.stack([_sums(similarities, related[name], orders) for name in names], axis=2)
    sizes = np.array([len(related[name]) for name in names])
    rest = (np.asarray(total)[:, :, None] - sums.sum(axis=2, keepdims=True)) / len(unrelated)
    shifts = sums / sizes - rest  # (layers, 1 + draws, relations); the first as observed
    spread = shifts[:, 1:].std(axis=1, keepdims=True)
    scores = (shifts - shifts[:, 1:].mean(axis=1, keepdims=True)) / np.maximum(spread, 1e-12)
    p = _share_above(scores[:, 0], scores.max(axis=2)[:, :, None])
    p_all = _share_above(scores[:, 0], scores.max(axis=(0, 2))[None, :, None].repeat(layers, 0))
    return Shifts(names, shifts[:, 0], p, p_all)


def sign_flip(differences: Sequence[float], *, draws: int = 10_000, seed: int = 0) -> float:
    """Two-sided p-value of a mean that is 0 if each difference might as well have the other sign.

    1.0 for no differences at all.
    """
    found = np.asarray(differences, dtype=np.float64)
    if len(found) == 0:
        return 1.0
    if len(found) <= EXACT:
        ways = (np.arange(2 ** len(found))[:, None] >> np.arange(len(found))) & 1
        signs = 1.0 - 2.0 * ways
    else:
        generator = np.random.default_rng(seed)
        signs = generator.choice([-1.0, 1.0], size=(draws + 1, len(found)))
        signs[0] = 1.0
    means = np.abs(signs @ found)
    # What differs by rounding alone is as large.
    return float((means >= means[0] - 1e-9 * max(1.0, means[0])).mean())


def _orders(count: int, draws: int, *, seed: int) -> NDArray[np.int64]:
    """(1 + draws, count): the facts as they are, and in random orders."""
    generator = np.random.default_rng(seed)
    drawn = generator.permuted(np.tile(np.arange(count), (draws, 1)), axis=1)
    return np.concatenate([np.arange(count)[None], drawn])


def _sums(similarities: Array, pairs: NDArray[np.int64], orders: NDArray[np.int64]) -> Array:
    """(layers, orders): the similarities of pairs, summed, after facts changed places."""
    step = max(1, _ROOM // max(1, len(pairs) * len(similarities)))
    parts: list[Array] = [
        similarities[:, orders[i : i + step, pairs[:, 0]], orders[i : i + step, pairs[:, 1]]].sum(2)
        for i in range(0, len(orders), step)
    ]
    sums: Array = np.concatenate(parts, axis=1)
    return sums


def _share_above(observed: Array, drawn: Array) -> Array:
    """(layers, relations): share of drawn (layers, 1 + draws, 1) no smaller than observed."""
    above = (drawn[:, 1:] >= observed[:, None, :] - 1e-12).sum(axis=1)
    shares: Array = (above + 1.0) / drawn.shape[1]
    return shares
