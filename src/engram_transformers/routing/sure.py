"""A route that leaves a host alone where it is sure of its answer already.

A memory that was taught a fact which the host knew can only spoil it: the third seed's capitals
fell from two of nine to none. How sure the host is, is the geometric mean of the probabilities of
the tokens with which its own answer begins, written without any memory. That is what the route
costs: so many tokens a prompt, once, before it is read. The first token alone would be cheaper and
tells next to nothing: in a chat it is often `The` (benchmarks/LOG.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engram_transformers.errors import BadInput
from engram_transformers.routing.route import BareHost, Ids, Routing

SURE = 0.75
"From which mean probability a host counts as sure, where nobody calibrated it."
WRITTEN = 16
"Tokens of the host's own answer that are looked at."


@dataclass(frozen=True)
class UnsureRoute:
    """Open where the host alone is not sure of its answer.

    Calibrate the threshold (`cutoff`) on questions asked in the form in which it will be used.

    Args:
        stop: the token that ends an answer; what comes behind it does not count.
    """

    host: BareHost
    threshold: float = SURE
    tokens: int = WRITTEN
    stop: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.threshold <= 1:
            raise BadInput(f"a threshold of {self.threshold} is no probability; use 0 to 1")
        if self.tokens < 1:
            raise BadInput(f"an answer's first {self.tokens} tokens tell nothing; use 1 or more")

    def decide(self, prompt: Ids) -> Routing:
        """May a memory act on a prompt of these ids?"""
        mean = self.sureness(prompt)
        reason = f"the host gives the tokens of its own answer a mean probability of {mean:.3f}"
        return Routing(mean < self.threshold, mean, self.threshold, reason)

    def sureness(self, prompt: Ids) -> float:
        """The geometric mean probability of the tokens that the bare host would begin with."""
        written = self.host.written(prompt, tokens=self.tokens, stop=self.stop)
        return float(np.exp(np.mean(np.log(written))))


@dataclass(frozen=True)
class Cutoff:
    """How sure a host has to be before it is left alone, and what that was on the questions."""

    threshold: float
    n: int
    "Questions."
    right: int
    "That the host alone answers rightly."
    bypassed: int
    "On which it is at least so sure."
    bypassed_right: int


def cutoff(sureness: Sequence[float], right: Sequence[bool], *, wanted: float = 0.95) -> Cutoff:
    """The lowest threshold from which on a host alone is right often enough.

    Args:
        sureness: of the host's answer to each question, from 0 to 1.
        right: whether it alone answers that question rightly.
        wanted: share of the bypassed questions that it has to answer rightly.

    Where no threshold does, it is 1 and next to nothing is bypassed.
    """
    if len(sureness) != len(right) or not sureness:
        raise BadInput(f"{len(sureness)} numbers for {len(right)} answers; give one each")
    values, hits = np.asarray(sureness, float), np.asarray(right, bool)
    order = np.argsort(-values, kind="stable")
    share = np.cumsum(hits[order]) / np.arange(1, len(order) + 1)
    # Equal values are bypassed together, so only the last of them may end a group.
    last = np.append(np.diff(values[order]) != 0, True)
    good = np.flatnonzero((share >= wanted) & last)
    threshold = float(values[order][good[-1]]) if len(good) else 1.0
    over = values >= threshold
    return Cutoff(threshold, len(order), int(hits.sum()), int(over.sum()), int(hits[over].sum()))
