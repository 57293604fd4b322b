"""One Engram layer: rows that tokens read, a gate that looks at the host's state, a projection.

    e     = rows of the last tokens, side by side, and behind them, with `similar`,
            rows r with the largest r . W_Q h, times softmax(r . W_Q h / sqrt(width))
    s     = norm_h(h) . norm_k(W_K e) / sqrt(hidden)
    alpha = sigmoid(sign(s) sqrt(max(|s|, 1e-6)))            plain: sigmoid(s); fixed: a constant
    v     = W_V (alpha e)
    y     = x + v [+ silu(conv(norm_v(v)))]

Everything is computed in float32, whatever the host's type.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from engram_transformers.errors import UnsupportedCall
from engram_transformers.memories.engram.config import EngramConfig
from engram_transformers.memories.engram.plan import Plan
from engram_transformers.memories.engram.reading import depths
from engram_transformers.memories.shared.touched import Touched, look_up
from engram_transformers.memory import Row, Signal

EPS = 1e-6
"Below the root of every norm."
PRODUCTS = 1 << 24
"Numbers that are held at once in looking for rows by content."
DRAWN = 1 << 20
"Numbers that are drawn at once to be thrown away; torch draws sixteen together."
LEAST = 1e-6
"Of what the signed root is taken; its slope is bounded by that."


@dataclass(frozen=True)
class Tail:
    """What a layer with a convolution remembers of one text."""

    weights: Tensor
    "(tokens so far, 1 or slots): what the gate let through; enough to compute the rest again."
    normed: Tensor | None
    "(reach, hidden): the last inputs of the convolution; None where the text was cut."

    def cut(self, tokens: int) -> Tail:
        """The same after the text's first `tokens` tokens."""
        return Tail(self.weights[:tokens], None)


class Layer(nn.Module):
    """Adds what the last tokens read to the input of a block.

    Args:
        plan: how it reads.
        end: the token behind which another text begins, for the convolution.
        key: names this layer in what a cache carries.
    """

    def __init__(
        self,
        config: EngramConfig,
        plan: Plan,
        *,
        hidden: int,
        end: int | None,
        key: Hashable,
        noise: torch.Generator,
    ) -> None:
        super().__init__()
        self.reader, self.distance, self.end, self.key = plan.reader, plan.distance, end, key
        self.gate, self.gate_value = config.gate, config.gate_value
        self.touched: Touched | None = None
        "Where the table's gradient goes while it is kept by row."
        self.similar, slots = config.similar, plan.slots + config.similar
        self.weights = slots if config.gate == "content" else 1
        read, width = slots * plan.width, plan.width

        def drawn(*shape: int, size: float) -> nn.Parameter:
            if not size:
                _pass_over(math.prod(shape), noise)
                return nn.Parameter(torch.zeros(shape))
            return nn.Parameter(torch.randn(shape, generator=noise) * size)

        # Rows of nothing: an n-gram that was never trained adds exactly nothing.
        zero_rows = config.zero == "rows"
        self.table = drawn(plan.rows, width, size=0.0 if zero_rows else 1.0)
        self.value = drawn(hidden, read, size=read**-0.5 if zero_rows else 0.0)
        if self.gate in ("learned", "plain"):
            self.key_weight = drawn(hidden, read, size=read**-0.5)
            self.norm_k = nn.Parameter(torch.ones(hidden))
            self.norm_h = nn.Parameter(torch.ones(hidden))
        elif self.gate == "content":
            self.key_weight = drawn(width, width, size=width**-0.5)
            self.query_weight = drawn(width, hidden, size=hidden**-0.5)
        if self.similar:
            self.asking = drawn(width, hidden, size=hidden**-0.5)
        self.taps = config.kernel if config.conv else 0
        if self.taps:
            self.conv = nn.Parameter(torch.zeros(hidden, self.taps))
            self.norm_v = nn.Parameter(torch.ones(hidden))
        if plan.layout is not None:
            self.register_buffer("multipliers", torch.tensor(plan.layout.multipliers))
            self.register_buffer("moduli", torch.tensor(plan.layout.moduli))

    @property
    def reach(self) -> int:
        """Tokens before a token whose values its convolution reads."""
        return max(0, self.taps - 1) * self.distance

    def forward(self, x: Tensor, y: Tensor, signal: Signal) -> Tensor:
        """`y` (batch, time, hidden) with what the new tokens read added to it."""
        rows = signal.rows
        addresses = self.reader.read(rows)
        reads = (addresses >= 0).any(dim=1)
        speaks = np.flatnonzero(reads.numpy() | (self.similar > 0))
        if not len(speaks) and not self.taps:
            return y
        spots = _spots(rows, time=x.shape[1])
        everywhere = len(speaks) == len(spots)
        h = _picked(x, spots if everywhere else spots[speaks])
        e = self.read(h, addresses if everywhere else addresses[speaks])
        weights = self.weigh(h, e)
        v = self.valued(e, weights)
        if not self.taps:
            return _added(y, spots[speaks], v)
        if not everywhere:
            v, weights = _spread(v, speaks, len(spots)), _spread(weights, speaks, len(spots))
        return _added(y, spots, v + self._convolved(v, weights, signal))

    @torch.no_grad()
    def scale(self, size: float) -> None:
        """Let a row of a given length add as much to states of this size as to states of size 1.

        States of late blocks are twenty times as large as those of early ones, and a row moves by
        the same step wherever it is.
        """
        self.value.mul_(max(1.0, size))

    @torch.no_grad()
    def grow(self, rows: int) -> None:
        """Have so many rows: new ones are zero, and what is beyond goes."""
        kept = self.table[:rows]
        more = self.table.new_zeros(rows - len(kept), self.table.shape[1])
        if rows != len(self.table):
            self.table = nn.Parameter(torch.cat([kept, more]))

    def read(self, h: Tensor, addresses: Tensor) -> Tensor:
        """(n, slots, width): the rows at these addresses (n, slots), and rows that are like `h`."""
        if not self.similar:
            return self.looked_up(addresses)
        nothing = (addresses < 0)[..., None].to(h.device)
        found = self.looked_up(addresses.clamp_min(0)).masked_fill(nothing, 0.0)
        return torch.cat([found, self.alike(h)], dim=1)

    def alike(self, h: Tensor) -> Tensor:
        """(n, similar, width): the rows with the largest products, each by its share of them."""
        asked = h @ self.asking.T
        rows = self.looked_up(nearest(asked.detach(), self.table.detach(), self.similar))
        scores = (rows @ asked[..., None])[..., 0] / rows.shape[-1] ** 0.5
        return rows * torch.softmax(scores, dim=-1)[..., None]

    def looked_up(self, addresses: Tensor) -> Tensor:
        """(n, slots, width): the rows at these addresses (n, slots)."""
        addresses = addresses.to(self.table.device)
        if self.touched is not None:
            return look_up(self.table, addresses, self.touched)
        return functional.embedding(addresses, self.table)

    def weigh(self, h: Tensor, e: Tensor) -> Tensor:
        """(n, 1), or (n, slots) of a `content` gate: how much of the rows is let through."""
        if self.gate == "fixed":
            return h.new_full((len(h), 1), self.gate_value)
        if self.gate == "content":
            # The third seed's content addressing, but divided by the root of the width.
            asked = h @ self.query_weight.T
            keys = e @ self.key_weight.T
            scores = (keys @ asked[..., None])[..., 0] / keys.shape[-1] ** 0.5
            return torch.softmax(scores, dim=-1)
        key = _normed(e.flatten(-2) @ self.key_weight.T, self.norm_k)
        s = (key * _normed(h, self.norm_h)).sum(-1, keepdim=True) / h.shape[-1] ** 0.5
        if self.gate == "learned":
            s = s.abs().clamp_min(LEAST).sqrt() * s.sign()
        return torch.sigmoid(s)

    def valued(self, e: Tensor, weights: Tensor) -> Tensor:
        """(n, hidden): what weighted rows add to the stream."""
        return (e * weights[..., None]).flatten(-2) @ self.value.T

    # -- the convolution -------------------------------------------------------------------

    def _convolved(self, v: Tensor, weights: Tensor, signal: Signal) -> Tensor:
        """(n, hidden): the convolution of all rows' values; what it needs next is carried."""
        rows, sizes = signal.rows, [len(row.columns) for row in signal.rows]
        before = signal.carried.get(self.key) or [None] * len(rows)
        tails = [self._tail(row, state) for row, state in zip(rows, before, strict=True)]
        new = torch.split(_normed(v, self.norm_v), sizes)
        lines = [torch.cat([tail.normed, each]) for tail, each in zip(tails, new, strict=True)]  # type: ignore[list-item]
        signal.carried[self.key] = [
            Tail(torch.cat([tail.weights, each]), line[len(line) - self.reach :])
            for tail, each, line in zip(tails, torch.split(weights, sizes), lines, strict=True)
        ]
        return functional.silu(self._tapped(torch.cat(lines), rows, sizes))

    def _tapped(self, line: Tensor, rows: Sequence[Row], sizes: Sequence[int]) -> Tensor:
        """(n, hidden): the sum of the taps; `line` is each row's past and new inputs in turn."""
        starts = np.repeat(np.arange(1, len(sizes) + 1) * self.reach, sizes)
        at = torch.from_numpy(starts + np.arange(sum(sizes))).to(line.device)
        depth = np.concatenate([depths(row, most=self.reach, end=self.end) for row in rows])
        total = line.new_zeros(len(at), line.shape[1])
        for back in range(self.taps):
            tokens = back * self.distance
            tap = line[at - tokens] * self.conv[:, self.taps - 1 - back]
            # A tap that would reach into another text finds nothing there.
            inside = torch.from_numpy(depth >= tokens).to(line.device)
            total = total + tap * inside[:, None]
        return total

    def _tail(self, row: Row, state: Tail | None) -> Tail:
        """What was carried of a row, whole."""
        if state is None:
            if row.start:
                raise UnsupportedCall(
                    f"the cache holds {row.start} tokens that were read before this memory was "
                    "attached, and its convolution needs their values; start from an empty cache"
                )
            state = Tail(self.table.new_zeros(0, self.weights), self._nothing(self.reach))
        if state.normed is not None:
            return state
        return Tail(state.weights, self._again(row, state.weights))

    def _again(self, row: Row, weights: Tensor) -> Tensor:
        """(reach, hidden): the last inputs of the convolution, from the gate's weights alone."""
        read = len(weights)
        some = min(read, self.reach)
        begins = None if row.begins is None else row.begins[:read]
        past = Row(row.ids[:read], read - some, np.arange(some), begins=begins)
        addresses = self.reader.read([past])
        nothing = (addresses[:, :1] < 0).to(weights.device)
        v = self.valued(self.looked_up(addresses.clamp_min(0)), weights[read - some :])
        normed = _normed(v.masked_fill(nothing, 0.0), self.norm_v)
        return torch.cat([self._nothing(self.reach - some), normed])

    def _nothing(self, tokens: int) -> Tensor:
        return self.table.new_zeros(tokens, self.value.shape[0])


def nearest(asked: Tensor, table: Tensor, count: int) -> Tensor:
    """(n, count): the rows of a table whose products with each vector (n, width) are largest."""
    some = max(1, PRODUCTS // len(table))
    parts = torch.split(asked, some)
    return torch.cat([(part @ table.T).topk(count).indices for part in parts])


def _pass_over(count: int, noise: torch.Generator) -> None:
    """Draw as many numbers as a tensor has, and keep none: what is drawn next is as ever."""
    blocks = max(1, count // DRAWN)
    for block in range(blocks):
        torch.randn(DRAWN if block < blocks - 1 else count - block * DRAWN, generator=noise)


def _normed(x: Tensor, gain: Tensor) -> Tensor:
    return functional.rms_norm(x, x.shape[-1:], gain, EPS)


def _spots(rows: Sequence[Row], *, time: int) -> NDArray[np.int64]:
    """(new tokens of all rows,): where each stands in a batch that is laid out as one line."""
    return np.concatenate([b * time + row.columns for b, row in enumerate(rows)])


def _picked(x: Tensor, spots: NDArray[np.int64]) -> Tensor:
    """(n, hidden) in float32: the states at these spots."""
    flat = x.reshape(-1, x.shape[-1])
    if len(spots) == len(flat):
        return flat.float()
    return flat[torch.from_numpy(spots).to(x.device)].float()


def _added(y: Tensor, spots: NDArray[np.int64], more: Tensor) -> Tensor:
    """`y` with `more` (n, hidden) added at these spots."""
    more = more.to(y)
    if len(spots) == y.shape[0] * y.shape[1]:
        return y + more.view_as(y)
    flat = y.reshape(-1, y.shape[-1])
    return flat.index_add(0, torch.from_numpy(spots).to(y.device), more).view_as(y)


def _spread(part: Tensor, at: NDArray[np.int64], count: int) -> Tensor:
    """(count, ...): `part` at these places, zero elsewhere."""
    places = torch.from_numpy(at).to(part.device)
    return part.new_zeros(count, *part.shape[1:]).index_copy(0, places, part)
