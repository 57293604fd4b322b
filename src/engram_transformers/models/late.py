"""Run only the late blocks of a host, on what the blocks below gave them before.

Where only late blocks change, as in training a memory that acts there, everything below gives the
same states every time. They are kept from one full pass; from then on the blocks below are called
but compute nothing. What all texts begin with goes through the late blocks once a call and not
once a row. All calls are the host's own, so masks, positions and rotary embeddings are too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from engram_transformers.models.adapter import Adapter
from engram_transformers.models.passes import branched

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
    """Runs a host's decoder on texts from block `first` on.

    Whether that works is tried out: the first batch is also run whole, and compared, so that a
    host whose late blocks read more than the stream (shared keys, states of earlier blocks) is
    still computed right, only not faster.

    Args:
        first: 0 runs all blocks.
        prefix: ids that all texts begin with; they are left out of what is passed in later.
        settled: nothing that changes acts on the prefix, so it is read once for all passes.
        like: an earlier one with a settled prefix, for the same host and block; what that one
            found out is not tried again, unless a window may end elsewhere.
    """

    def __init__(
        self,
        adapter: Adapter,
        first: int,
        *,
        prefix: Sequence[int] = (),
        settled: bool = False,
        like: LatePass | None = None,
    ) -> None:
        self.adapter, self.first, self.settled = adapter, first, settled
        self.prefix = torch.tensor([list(prefix)], dtype=torch.long, device=adapter.device)
        self.late, self.shared = first > 0, len(prefix) > 0
        "Whether the blocks below are left out, and whether the prefix is read once for all rows."
        self._tried = False
        if like is not None and like._tried and settled and not adapter.windowed:
            self.late, self.shared = like.late, like.shared and self.shared
            self._tried = True
        self._below: Below | None = None
        self._sizes: list[tuple[Tensor, Tensor]] = []
        self._read: Any = None
        "The cache of a settled prefix."

    @torch.no_grad()
    def keep(self, ids: Tensor, mask: Tensor, positions: Tensor | None = None) -> Below | None:
        """What the blocks below give for a batch (batch, time); None where all blocks are run."""
        self._settle(ids, mask, positions)
        return self._keep(ids, mask, positions)

    def __call__(
        self, ids: Tensor, mask: Tensor, below: Below | None, positions: Tensor | None = None
    ) -> Tensor:
        """(batch, time, hidden): the decoder's output for a batch, given what was kept for it.

        Its gradient reaches everything that acts in the late blocks.

        Args:
            positions: (batch, time) of rows that hold several texts, each counted from 0; the
                host then tells them apart by that, and not by the mask.
        """
        self._settle(ids, mask, positions)
        past = self._prefix_past(len(ids), below) if self.shared else None
        with left_out(self.adapter, below):
            return self._run(ids, mask, positions, past)

    def whole(self, ids: Tensor, mask: Tensor, positions: Tensor | None = None) -> Tensor:
        """(batch, time, hidden): the same by one ordinary call; slow and sure."""
        if positions is not None:
            call = self.adapter.decoder(input_ids=ids, position_ids=positions, use_cache=False)
            return call[0]  # type: ignore[no-any-return]
        before = self.prefix.expand(len(ids), -1)
        ids, mask = torch.cat([before, ids], 1), torch.cat([torch.ones_like(before), mask], 1)
        states = self.adapter.decoder(input_ids=ids, attention_mask=mask, use_cache=False)[0]
        return states[:, before.shape[1] :]  # type: ignore[no-any-return]

    @torch.no_grad()
    def _settle(self, ids: Tensor, mask: Tensor, positions: Tensor | None) -> None:
        """Find out, once, what this host can do without."""
        if not self._tried:
            self._tried = True
            self._try(ids, mask, positions)

    def _try(self, ids: Tensor, mask: Tensor, positions: Tensor | None) -> None:
        expected = self.whole(ids, mask, positions)[mask.bool()]
        ways = [(late, shared) for late in (True, False) for shared in (True, False)]
        for late, shared in ways:
            if late <= self.late and shared <= self.shared and (late or shared):
                try:
                    same = self._same(expected, ids, mask, positions, late=late, shared=shared)
                except (TypeError, ValueError, RuntimeError, LookupError, AttributeError):
                    continue  # a host that reads more from its early blocks than their states
                if same:
                    return
        self.late = self.shared = False

    def _same(
        self,
        expected: Tensor,
        ids: Tensor,
        mask: Tensor,
        positions: Tensor | None,
        *,
        late: bool,
        shared: bool,
    ) -> bool:
        prefix = self.prefix[0].tolist()
        tried = LatePass(self.adapter, self.first * late, prefix=prefix, settled=self.settled)
        tried.shared, tried._tried = shared, True
        if shared:
            tried._read_prefix()
        below = tried._keep(ids, mask, positions)
        found = tried(ids, mask, below, positions)[mask.bool()]
        if (found - expected).abs().max() > CLOSE * expected.abs().max():
            return False
        self.late, self.shared = late, shared
        self._below, self._sizes, self._read = tried._below, tried._sizes, tried._read
        return True

    def _run(self, ids: Tensor, mask: Tensor, positions: Tensor | None, past: Any) -> Tensor:
        if past is None:
            return self.whole(ids, mask, positions)
        before = mask.new_ones(len(ids), self.prefix.shape[1])
        states: Tensor = self.adapter.decoder(
            input_ids=ids,
            attention_mask=torch.cat([before, mask], 1),
            past_key_values=past,
            use_cache=True,
        )[0]
        return states

    def _keep(self, ids: Tensor, mask: Tensor, positions: Tensor | None) -> Below | None:
        if not self.late:
            return None
        past = self._past(len(ids)) if self.shared else None
        with watched(self.adapter, self.first) as seen:
            self._run(ids, mask, positions, past)
        return below_of(self.first, seen[0])

    # -- the prefix ------------------------------------------------------------------------

    def _read_prefix(self) -> None:
        """Run the prefix whole once, for its states and for the sizes of its keys and values."""
        if self.late:
            with watched(self.adapter, self.first) as seen:
                past = self._past(1)
            self._below = below_of(self.first, seen[0])
            self._sizes = [_zeros(layer, self.prefix) for layer in past.layers[: self.first]]

    def _past(self, rows: int) -> Any:
        """A cache of the prefix for so many rows."""
        past = self._settled() if self.settled else self._once()
        if rows > 1:
            past.batch_repeat_interleave(rows)
        return past

    def _once(self) -> Any:
        return self.adapter.decoder(input_ids=self.prefix, use_cache=True).past_key_values

    @torch.no_grad()
    def _settled(self) -> Any:
        if self._read is None:
            self._read = self._once()
        # Whoever goes on after a cache appends to it.
        return branched(self._read)

    def _prefix_past(self, rows: int, below: Below | None) -> Any:
        """The same by the late blocks alone, where no others will read it; gradients flow through.

        A batch of which nothing was kept runs through all blocks, and all have to know the prefix.
        """
        if below is None or self.settled:
            return self._past(rows)
        with left_out(self.adapter, self._below):
            past = self._past(rows)
        for layer, (keys, values) in enumerate(self._sizes):
            # Nobody reads them, but a cache tells its length by its first block.
            past.update(*(each.expand(rows, -1, -1, -1) for each in (keys, values)), layer)
        return past


def left_out(adapter: Adapter, below: Below | None) -> AbstractContextManager[None]:
    return nullcontext() if below is None else standing_in(adapter, below)


@contextmanager
def standing_in(adapter: Adapter, below: Below) -> Iterator[None]:
    """While this lasts, the blocks below `below.first` give its states and compute nothing.

    The host is changed for all threads; afterwards it is exactly what it was.
    """
    own = {block: block.__dict__.get("forward") for block in adapter.layers[: below.first]}
    stand_in = _StandIn(below, own)
    try:
        for block in own:
            block.__dict__["forward"] = stand_in.forward
        yield
    finally:
        for block, before in own.items():
            _put_back(block, before)


@contextmanager
def all_blocks(adapter: Adapter) -> Iterator[None]:
    """While this lasts every block computes, also amid a pass that leaves some out."""
    stand_in = getattr(adapter.layers[0].__dict__.get("forward"), "__self__", None)
    if not isinstance(stand_in, _StandIn):
        yield
        return
    for block, before in stand_in.own.items():
        _put_back(block, before)
    try:
        yield
    finally:
        for block in stand_in.own:
            block.__dict__["forward"] = stand_in.forward


class _StandIn:
    def __init__(self, below: Below, own: Mapping[nn.Module, Any]) -> None:
        self.below, self.own = below, own

    def forward(self, *_: Any, **__: Any) -> Any:
        # Whatever came before and was made of it: the kept states are what comes out last.
        states, extras = self.below.states, self.below.extras
        return states if extras is None else (states, *[None] * extras)


def _put_back(block: nn.Module, forward: Any) -> None:
    if forward is None:
        block.__dict__.pop("forward", None)
    else:
        block.__dict__["forward"] = forward


@contextmanager
def watched(adapter: Adapter, first: int) -> Iterator[list[Any]]:
    """Collects what block `first - 1` gives, call by call."""
    seen: list[Any] = []
    # In front of all other hooks, which will act on the kept states again.
    hook = adapter.layers[first - 1].register_forward_hook(
        lambda module, args, output: seen.append(output), prepend=True
    )
    try:
        yield seen
    finally:
        hook.remove()


def below_of(first: int, output: Any) -> Below:
    if isinstance(output, tuple):
        return Below(first, output[0], len(output) - 1)
    return Below(first, output, None)


def _zeros(layer: Any, prefix: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and values of a prefix with nothing in them; a sliding window keeps fewer itself."""
    sizes = [
        (*kept.shape[:-2], prefix.shape[1], kept.shape[-1]) for kept in (layer.keys, layer.values)
    ]
    return layer.keys.new_zeros(sizes[0]), layer.values.new_zeros(sizes[1])
