"""Few vectors for the many states of a text: what is put before a question in the text's place."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from engram_transformers.errors import BadInput


def raw(states: Tensor, slots: int) -> Tensor:
    """(tokens, hidden): every state as it is; `slots` is not asked."""
    return _checked(states)


def chunks(states: Tensor, slots: int) -> Tensor:
    """(slots, hidden): means of stretches of like length.

    Raises:
        BadInput: there are fewer states than slots, so that some would be means of nothing.
    """
    count = len(_checked(states))
    if not 1 <= slots <= count:
        raise BadInput(f"a text of {count} tokens has no {slots} chunks; use 1 to {count} slots")
    return torch.stack([part.mean(dim=0) for part in states.tensor_split(slots)])


def last(states: Tensor, slots: int) -> Tensor:
    """(1, hidden): the state of the last token."""
    return _checked(states)[-1:]


def mean(states: Tensor, slots: int) -> Tensor:
    """(1, hidden): the mean of all states."""
    return _checked(states).mean(dim=0, keepdim=True)


POOLED: dict[str, Callable[[Tensor, int], Tensor]] = {
    "raw": raw,
    "chunks": chunks,
    "last": last,
    "mean": mean,
}
"Ways to few vectors by name; each takes states (tokens, hidden) and a number of slots."


def to_norm(vectors: Tensor, norm: float) -> Tensor:
    """Vectors (n, hidden) scaled together, so that their mean length is `norm`."""
    length = float(_checked(vectors).norm(dim=-1).mean())
    return vectors * (norm / max(length, 1e-12))


def _checked(states: Tensor) -> Tensor:
    if len(states) == 0:
        raise BadInput("a text without tokens has no states; give it some text")
    if not torch.isfinite(states).all():
        raise BadInput("the states of this text are no numbers (NaN); check the host's weights")
    return states
