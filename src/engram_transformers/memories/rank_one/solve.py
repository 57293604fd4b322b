"""The change of a projection that gives new values to some keys and leaves other keys alone.

With keys ``K`` (n, inputs), what is to be added to their outputs ``V`` (n, outputs) and a metric
``M`` (inputs, inputs), all three methods are

    D = V' A K M,      G = K M K'

    rome         M = C^-1     A = diag(G)^-1        each fact alone (Meng et al. 2022)
    memit        M = C^-1     A = (G + ridge I)^-1  all facts by least squares (Meng et al. 2023)
    alphaedit    M ~ P        A = (G + ridge I)^-1  in the null space of C (Fang et al. 2025)

where ``C = E[k k']`` are the keys of ordinary text and ``P`` projects onto the directions that
these hardly have, times what gives ``M C`` the trace that it has in the other two: then a ridge is
the same share of what ordinary keys ask for, whatever the metric. ``memit`` is the published
``V' K (ridge C + K'K)^-1`` turned about, so that what has to be inverted has the size of the facts
and not of the layer; so is ``alphaedit``.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from engram_transformers.memories.rank_one.config import Method

ROUNDING = 1e-4
"Of the mean of C's diagonal, added to it: a sample of keys does not reach every direction."
SPARE = 1.0
"Of the mean of G's diagonal over spared keys, added to it; the less, the more they are spared."
Moving = Callable[[Tensor], Tensor]
"What a metric does to keys."
FELT = 0.1
"Of the mean of F's diagonal, added to it: a sample of slopes does not reach every direction."
SWEEPS = 200
"Over the rows of a small problem."
EQUAL = 1e-12
"Of the mean of the normal equations' diagonal, added to it."
EVEN = 1e-2
"Of the mean of G's diagonal, added to it: wordings that are almost alike are one."


class Metric:
    """What `M` does to keys; derived from the second moment of ordinary keys.

    Args:
        moment: (inputs, inputs), C.
        null: share of C's trace that the null space may hold.
    """

    def __init__(self, moment: Tensor, method: Method, *, null: float) -> None:
        exact = moment.double()
        # What C has besides in every direction.
        rounding = ROUNDING * exact.diagonal().mean()
        if method == "alphaedit":
            space = null_space(exact, null)
            heard = (space.T @ exact @ space).trace() + rounding * space.shape[1]
            self._factor, self.space = None, space * (len(exact) / heard).sqrt()
        else:
            self._factor = torch.linalg.cholesky(exact + rounding * torch.eye(len(exact)).to(exact))

    def __call__(self, keys: Tensor) -> Tensor:
        """(n, inputs) ``K M`` of keys (n, inputs), in float64."""
        keys = keys.double()
        if self._factor is None:
            seen: Tensor = keys @ self.space @ self.space.T
            return seen
        moved: Tensor = torch.cholesky_solve(keys.T, self._factor).T
        return moved

    def sparing(self, spared: Tensor) -> Moving:
        """The same for a C that also holds these keys (m, inputs), by Woodbury's identity."""
        if not len(spared):
            return self
        exact = spared.double()
        moved = self(exact)
        gram = moved @ exact.T
        gram.diagonal().add_(SPARE * gram.diagonal().mean())
        held = torch.linalg.solve(gram, moved)

        def move(keys: Tensor) -> Tensor:
            out = self(keys)
            less: Tensor = out - (out @ exact.T) @ held
            return less

        return move


def gentle(slopes: Tensor) -> Tensor:
    """(hidden, hidden) in float32: ``F^-1/2`` of the second moment F of slopes."""
    exact = slopes.double()
    exact.diagonal().add_(FELT * exact.diagonal().mean())
    values, vectors = torch.linalg.eigh(exact)
    found: Tensor = (vectors * values.clamp(min=1e-30).rsqrt()) @ vectors.T
    return found.float()


def null_space(moment: Tensor, share: float) -> Tensor:
    """(inputs, m): the most directions that together hold at most a share of the moment's trace."""
    values, vectors = torch.linalg.eigh(moment)
    held = values.clamp(min=0).cumsum(0) <= share * values.clamp(min=0).sum()
    space: Tensor = vectors[:, held]
    return space


def balanced(keys: Tensor, metric: Moving) -> Tensor:
    """(inputs,): one key for several of one fact, to which all of them answer alike, in float64.

    The published methods take the mean. It is a weighted mean here, with weights ``G^-1 1``: the
    direction ``M k`` of the least size that says the same to every wording, so that what was found
    for all of them reaches each of them whole.

    Args:
        keys: (n, inputs), of a fact's wordings.
    """
    exact = keys.double()
    gram = exact @ metric(exact).T
    gram.diagonal().add_(EVEN * gram.diagonal().mean())
    weights = torch.linalg.solve(gram, gram.new_ones(len(gram)))
    key: Tensor = weights @ exact / weights.sum()
    return key


def shortest(rows: Tensor, need: Tensor) -> Tensor:
    """(numbers,): the shortest u with ``rows u >= need``, by Hildreth's method.

    It is a mean of rows with weights that are not negative; these are found one by one, again and
    again (Hildreth 1957).

    Args:
        rows: (n, numbers), few of them.
        need: (n,)
    """
    exact = rows.double()
    gram, weights = (exact @ exact.T).cpu(), torch.zeros(len(rows), dtype=torch.double)
    for _ in range(SWEEPS):
        for i, row in enumerate(gram):
            lack = (need[i].cpu().double() - row @ weights) / row[i].clamp(min=1e-30)
            weights[i] = (weights[i] + lack).clamp(min=0.0)
    found: Tensor = weights.to(rows) @ rows
    return found


def solve(keys: Tensor, moved: Tensor, *, method: Method, ridge: float) -> Tensor:
    """(n, inputs): ``A K M``, how much of each value an input calls for; in float64.

    With values V (n, outputs) the change of the weight is ``V' A K M``.

    Args:
        keys: (n, inputs), K.
        moved: (n, inputs), K M.
        ridge: in units of G.
    """
    keys, moved = keys.double(), moved.double()
    gram = moved @ keys.T
    if method == "rome":
        return moved / gram.diagonal()[:, None]
    reads: Tensor = _weights(gram, ridge) @ moved
    return reads


def _weights(gram: Tensor, ridge: float) -> Tensor:
    """(n, n): A, the least ``|A G - I|^2 + ridge tr(A S A')``, with S the positive part of G.

    Of a symmetric G that is ``(G + ridge I)^-1``. Where facts spare keys of their own each has a
    metric of its own, and G is not: its inverse then grows without bound as facts become many.
    """
    values, vectors = torch.linalg.eigh((gram + gram.T) / 2)
    cost = (vectors * values.clamp(min=0)) @ vectors.T
    normal = gram @ gram.T + ridge * cost
    # Keys that are equal count as one.
    normal.diagonal().add_(EQUAL * normal.diagonal().mean())
    weights: Tensor = torch.linalg.solve(normal, gram).T
    return weights
