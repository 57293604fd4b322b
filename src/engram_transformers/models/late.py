"""Run only the late blocks of a host, on what the blocks below gave them before.

Where only late blocks change, as in training a memory that acts there, everything below gives the
same states every time. They are kept from one full pass; from then on the blocks below are called
but compute nothing. The call is the host's own, so masks, positions and rotary embeddings are too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from engram_transformers.models.adapter import Adapter

CLOSE = 1e-3
"How far a late pass may be from a full one, relative to the largest state."


@dataclass(frozen=True)
class Below:
    """What the blocks below one gave it, for one batch."""

    first: int
    "Index of the first block that is still run."
    states: Tensor
    "(batch, time, hidden): output of the block before it, hooks not counted."
    extras: int | None
    "How many further things that block returned in a tuple; None where it returned a tensor."


class LatePass:
    """Runs a host's decoder from block `first` on; everything from the start where that fails.

    Whether it works is tried out: the first batch is run both ways and compared, so that a host
    whose late blocks read more than the stream (shared keys, states of earlier blocks) is still
    computed right, only not faster.
    """

    def __init__(self, adapter: Adapter, first: int) -> None:
        self.adapter, self.first = adapter, first
        self.works = first > 0
        self._tried = False

    def keep(self, call: Mapping[str, Any]) -> Below | None:
        """What the blocks below give for this call; None where it will have to be run whole."""
        if not self.works:
            return None
        with torch.no_grad():
            below, whole = _watched(self.adapter, self.first, call)
            if not self._tried:
                self._tried, self.works = True, self._equal(below, whole, call)
        return below if self.works else None

    def __call__(self, call: Mapping[str, Any], below: Below | None) -> Tensor:
        """(batch, time, hidden): the decoder's output for a call, given what was kept for it."""
        if below is None:
            return _run(self.adapter, call)
        with standing_in(self.adapter, below):
            return _run(self.adapter, call)

    def _equal(self, below: Below, whole: Tensor, call: Mapping[str, Any]) -> bool:
        try:
            late = self(call, below)
        except (TypeError, ValueError, RuntimeError, LookupError, AttributeError):
            # A host that reads more from its early blocks than their states.
            return False
        return bool((late - whole).abs().max() <= CLOSE * whole.abs().max())


@contextmanager
def standing_in(adapter: Adapter, below: Below) -> Iterator[None]:
    """While this lasts, the blocks below `below.first` give its states and compute nothing.

    The host is changed for all threads; afterwards it is exactly what it was.
    """
    blocks = list(adapter.layers[: below.first])
    stand_in, own = _StandIn(below), [block.__dict__.get("forward") for block in blocks]
    try:
        for block in blocks:
            block.__dict__["forward"] = stand_in.forward
        yield
    finally:
        for block, before in zip(blocks, own, strict=True):
            _put_back(block, before)


class _StandIn:
    def __init__(self, below: Below) -> None:
        self.below = below

    def forward(self, *_: Any, **__: Any) -> Any:
        # Whatever came before and was made of it: the kept states are what comes out last.
        states, extras = self.below.states, self.below.extras
        return states if extras is None else (states, *[None] * extras)


def _put_back(block: nn.Module, forward: Any) -> None:
    if forward is None:
        block.__dict__.pop("forward", None)
    else:
        block.__dict__["forward"] = forward


def _watched(adapter: Adapter, first: int, call: Mapping[str, Any]) -> tuple[Below, Tensor]:
    """One full pass: what block `first - 1` gave, and what the decoder gave."""
    seen: list[Any] = []
    # In front of all other hooks, which will act on the kept states again.
    hook = adapter.layers[first - 1].register_forward_hook(
        lambda module, args, output: seen.append(output), prepend=True
    )
    try:
        whole = _run(adapter, call)
    finally:
        hook.remove()
    [output] = seen
    if isinstance(output, tuple):
        return Below(first, output[0], len(output) - 1), whole
    return Below(first, output, None), whole


def _run(adapter: Adapter, call: Mapping[str, Any]) -> Tensor:
    states: Tensor = adapter.decoder(**call, use_cache=False)[0]
    return states
