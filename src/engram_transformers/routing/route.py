"""When a memory may act at all: a route opens or closes it, for a whole prompt at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Ids = NDArray[np.int64]


@dataclass(frozen=True)
class Routing:
    """One decision about one prompt: may a memory act on it, and why."""

    open: bool
    score: float
    "What was compared with the threshold, from 0 to 1."
    threshold: float
    reason: str


class Route(Protocol):
    """Decides about prompts."""

    def decide(self, prompt: Ids) -> Routing:
        """May a memory act on a prompt of these ids (tokens,)?

        The answer depends on the ids alone, so that it is the same in a batch, in a beam, and
        when the prompt is read again.
        """
        ...


class BareHost(Protocol):
    """Reads a prompt as the host does when no memory acts."""

    def state(self, prompt: Ids, layer: int) -> Tensor:
        """(hidden,) in float32: the state of the prompt's last token behind a block."""
        ...

    def written(self, prompt: Ids, *, tokens: int, stop: int | None) -> list[float]:
        """The probability of each token that it writes greedily, `tokens` at most, `stop` last."""
        ...
