"""Is A*B to B*A what B*A is to A*B? A cosine is the same both ways; neighbourhoods are not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engram_transformers.introspection.permutation import ALPHA, sign_flip
from engram_transformers.introspection.relations import COMMUTATIVE, Relations
from engram_transformers.introspection.similarity import Neighbours


@dataclass(frozen=True)
class Swapped:
    """Two facts with their operands swapped; `one` is the first of them in the set."""

    one: int
    other: int
    similarity: float
    rank_forth: int
    "The place of `other` among the neighbours of `one`, from 1."
    rank_back: int
    "The place of `one` among the neighbours of `other`."
    logprob_difference: float | None
    "Log-probability of the answer after `one` less that after `other`; None if it was not read."


@dataclass(frozen=True)
class Asymmetry:
    """What swapping operands changes, over all pairs that differ by it."""

    pairs: tuple[Swapped, ...]
    score: float
    "Mean difference of the two places, as a share of all places: 0 if always equal, 1 at most."
    rank_shift: float
    "Mean of place forth less place back."
    rank_p: float
    "Two-sided, by flipping signs: is one direction nearer on the whole?"
    logprob_shift: float | None
    "Mean log-probability difference; positive: the facts that come first are known better."
    logprob_gap: float | None
    "Mean size of that difference."
    logprob_p: float | None

    @property
    def verdict(self) -> str:
        """What can be said about a direction."""
        p = [x for x in (self.rank_p, self.logprob_p) if x is not None]
        if min(p) >= ALPHA / len(p):
            return "no direction is preferred"
        return "one direction is preferred"


def asymmetry(
    similarities: NDArray[np.float64],
    near: Neighbours,
    relations: Relations,
    *,
    logprobs: Sequence[float] | None = None,
    draws: int = 10_000,
    seed: int = 0,
) -> Asymmetry | None:
    """Compare both directions of every swapped pair; None for facts without such pairs."""
    pairs = relations.pairs.get(COMMUTATIVE)
    if pairs is None:
        return None
    found = tuple(
        Swapped(
            int(i),
            int(j),
            float(similarities[i, j]),
            int(near.ranks[i, j]),
            int(near.ranks[j, i]),
            None if logprobs is None else float(logprobs[i] - logprobs[j]),
        )
        for i, j in pairs
    )
    shifts = [float(one.rank_forth - one.rank_back) for one in found]
    gaps = [one.logprob_difference for one in found if one.logprob_difference is not None]
    return Asymmetry(
        pairs=found,
        score=float(np.abs(shifts).mean() / max(1, relations.count - 2)),
        rank_shift=float(np.mean(shifts)),
        rank_p=sign_flip(shifts, draws=draws, seed=seed),
        logprob_shift=float(np.mean(gaps)) if gaps else None,
        logprob_gap=float(np.abs(gaps).mean()) if gaps else None,
        logprob_p=sign_flip(gaps, draws=draws, seed=seed) if gaps else None,
    )
