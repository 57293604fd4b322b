"""Which members of a set turn up in more lists than chance would put them into: hubs."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from engram_transformers.introspection.permutation import ALPHA


@dataclass(frozen=True)
class Attractor:
    """How often a member turns up in the lists of the others."""

    member: int
    count: int
    lists: int
    "In how many lists it could have turned up."
    expected: float
    "How often it would if the lists were drawn at random."
    p: float
    "Of at least so many, one-sided, corrected for the number of members."

    @property
    def significant(self) -> bool:
        return self.p < ALPHA


def attractors(
    lists: Sequence[Iterable[int]], owners: Sequence[int], members: int
) -> list[Attractor]:
    """All members by how often they turn up in lists.

    Radovanović et al. (2010) call this k-occurrence; its mean is the lists' length whatever
    the members are, so only its excess says anything.

    Args:
        owners: for each list the member that it belongs to, which is never in it.
    """
    drawn = [list(dict.fromkeys(each)) for each in lists]
    if members < 2 or not drawn:
        return []
    counts, own = Counter(member for each in drawn for member in each), Counter(owners)
    chance = min(1.0, sum(map(len, drawn)) / len(drawn) / (members - 1))
    found = []
    for member in range(members):
        could = len(drawn) - own[member]
        p = min(1.0, members * binomial_tail(counts[member], could, chance))
        found.append(Attractor(member, counts[member], could, could * chance, p))
    return sorted(found, key=lambda one: (-one.count, one.member))


def binomial_tail(least: int, n: int, p: float) -> float:
    """The chance of at least so many hits in n tries."""
    if least <= 0 or p >= 1.0:
        return 1.0
    if p <= 0.0:
        return 0.0
    logs = [
        math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
        + k * math.log(p) + (n - k) * math.log1p(-p)
        for k in range(least, n + 1)
    ]  # fmt: skip
    return min(1.0, math.fsum(map(math.exp, logs)))
