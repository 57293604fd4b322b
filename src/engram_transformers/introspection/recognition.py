"""What a store would recognise at other thresholds than its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engram_transformers.evaluation.metrics import Measure, rate

THRESHOLDS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)


@dataclass(frozen=True)
class Recognised:
    """How surely a store takes a prompt for a wording of a fact it holds, and whether it is one."""

    probability: float
    wording: bool


@dataclass(frozen=True)
class Point:
    """What is recognised from a threshold on."""

    threshold: float
    wordings: Measure
    "Of the prompts that are wordings of a fact."
    others: Measure
    "Of all other prompts: swapped, near, asked for, control prompts."


def curve(seen: Sequence[Recognised]) -> list[Point]:
    """The shares at each of `THRESHOLDS`; nothing where no store was asked.

    A store speaks where the probability of its best candidate is at least its threshold, so these
    are what it would do, and not an estimate.
    """
    return [
        Point(
            threshold,
            rate(one.probability >= threshold for one in seen if one.wording),
            rate(one.probability >= threshold for one in seen if not one.wording),
        )
        for threshold in (THRESHOLDS if seen else ())
    ]
