"""Scores and their intervals."""

from __future__ import annotations

import math
import re
import string
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

import numpy as np

_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_WORD_END = re.compile(r"\w(?!\w|[^\w\s]\w)")
"Not in front of a sign within a word or a number, as in 4.5 or Aix-en-Provence."
_PUNCTUATION = str.maketrans("", "", string.punctuation)


@dataclass(frozen=True)
class Share:
    """A share of n cases with its 95 % interval, all from 0 to 1."""

    value: float
    low: float
    high: float

    def as_dict(self) -> dict[str, float]:
        return {name: round(value, 5) for name, value in asdict(self).items()}


@dataclass(frozen=True)
class Measure:
    """A measured number of n cases with its 95 % interval."""

    value: float
    low: float
    high: float
    n: int

    def as_dict(self) -> dict[str, float]:
        return {name: round(value, 6) for name, value in asdict(self).items()}


def normalise(text: str) -> str:
    """Lower case without punctuation, articles and surplus space, as SQuAD compares answers."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact(said: str, wanted: str) -> bool:
    """Whether an answer equals the wanted one after normalisation."""
    # Normalisation empties answers such as "A" or "+": those are compared as they are.
    return said.strip() == wanted.strip() or normalise(said) == normalise(wanted) != ""


def begins(said: str, wanted: str) -> bool:
    """Whether an answer begins with the wanted one, as whole words after normalisation."""
    last = wanted.strip()[-1:]
    # What ends in a sign, or in a script without spaces, has no end to be seen.
    if not (last.isascii() and last.isalnum()) and said.strip().startswith(wanted.strip()):
        return True
    return any(exact(said[: end.end()], wanted) for end in _WORD_END.finditer(said))


def contains(said: str, wanted: str) -> bool:
    """Whether an answer holds the wanted one, as whole words after normalisation."""
    words = normalise(wanted)
    return f" {words} " in f" {normalise(said)} " if words else wanted.strip() in said


def rate(hits: Iterable[bool]) -> Measure:
    """The share of hits with its Wilson interval."""
    flags = list(hits)
    return rate_of(sum(flags), len(flags))


def rate_of(hits: float, n: int) -> Measure:
    """`rate` of cases that are counted already; a mean of several counts need not be whole."""
    found = wilson(hits, n)
    return Measure(found.value, found.low, found.high, n)


def mean(values: Iterable[float], *, draws: int = 2000, seed: int = 0) -> Measure:
    """The mean with its percentile bootstrap interval (Efron, 1979)."""
    cases = np.asarray(list(values), dtype=np.float64)
    if len(cases) == 0:
        return Measure(math.nan, math.nan, math.nan, 0)
    generator = np.random.default_rng(seed)
    means = cases[generator.integers(len(cases), size=(draws, len(cases)))].mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return Measure(float(cases.mean()), float(low), float(high), len(cases))


def ratio(tops: Sequence[float], bottoms: Sequence[float], *, seed: int = 0) -> Measure:
    """The sum of the first over the sum of the second, with its percentile bootstrap interval."""
    cases = np.asarray([tops, bottoms], dtype=np.float64)
    n = cases.shape[1]
    if n == 0:
        return Measure(math.nan, math.nan, math.nan, 0)
    top, bottom = cases
    rows = np.random.default_rng(seed).integers(n, size=(2000, n))
    low, high = np.percentile(top[rows].sum(axis=1) / bottom[rows].sum(axis=1), [2.5, 97.5])
    return Measure(float(top.sum() / bottom.sum()), float(low), float(high), n)


def wilson(hits: float, n: int, *, z: float = 1.96) -> Share:
    """The share of hits with its Wilson score interval; (0, 0, 1) for no cases at all."""
    if n == 0:
        return Share(0.0, 0.0, 1.0)
    p = hits / n
    scale = 1 + z * z / n
    centre = (p + z * z / (2 * n)) / scale
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / scale
    return Share(p, max(0.0, centre - half), min(1.0, centre + half))


def share(hits: int, n: int) -> dict[str, float]:
    """`wilson` as JSON-ready data."""
    return wilson(hits, n).as_dict()
