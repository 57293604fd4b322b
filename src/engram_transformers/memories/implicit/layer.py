"""One place of an implicit memory: slots that are read by every token and written by every chunk.

With n a norm without gain, h = n(x) the states before a block and c a short causal convolution:

    q_t = norm(W_Q c(h)_t)   k_t = norm(W_K c(h)_{t-1})   v_t = W_V h_t   g_t = sigmoid(w h_t + b)
    read    y_t = x_t + gain W_O sum_s p_ts V_s
            p_t = softmax(q_t K / (sqrt(width) T) + log F, null)

Slots K, V with strengths F are those at the beginning of the token's chunk. `null` is a learned
logit with the value zero, so that a token which finds nothing adds next to nothing; empty slots
(F = 0) are never read. After a chunk:

    slots       the strongest of what was there, with d F, and of the `writes` tokens with the
                largest g, with (k, v) and rate g
    linformer   E (g k), E (g v) are `writes` new slots with F = rate; the oldest give way
    original    A = softmax(h M / (sqrt(hidden) T) + 1e-8), U_s = norm(sum_t A_ts g_t h_t),
                M'_s = norm(M_s + 0.01 rate U_s / (1 + |U_s|)); read: y_t = x_t + W_O (h_t M)

Everything is computed in float32, whatever the host's type.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from engram_transformers.errors import BadInput, TrainingDiverged, UnsupportedCall
from engram_transformers.memories.implicit.config import ImplicitConfig
from engram_transformers.memories.implicit.slots import Kept, Slots, finite
from engram_transformers.memory import Row, Signal

EPS = 1e-6
"Below the root of every norm."
SEED_RATE = 0.01
"Of the original's update, before its own division."


@dataclass(frozen=True)
class Windows:
    """That rows of a call are consecutive windows of texts."""

    each: int
    "How many of them make up one text."
    others: int = 0
    "How many texts away the one stands whose slots are read."


@dataclass
class Usage:
    """What was read and written, in real weights, while somebody watched."""

    reads: list[Tensor]
    "(rows, tokens, slots) of each chunk that found slots."
    writes: list[Tensor]
    "(rows, slots) of each chunk: the strength of what was written there; 0: nothing was."
    after: list[Slots]
    "The slots after each chunk."
    means: list[Tensor]
    "(rows, hidden) of each chunk: the mean of its normalised states."


class ImplicitLayer(nn.Module):
    """Adds to the input of a block what its tokens read from slots, and writes these.

    Args:
        key: names this layer in what a cache carries.
    """

    size: Tensor
    start: Tensor

    def __init__(
        self, config: ImplicitConfig, *, hidden: int, key: Hashable, noise: torch.Generator
    ) -> None:
        super().__init__()
        self.config, self.hidden, self.key = config, hidden, key
        self.windows: Windows | None = None
        self.held: Slots | None = None
        "What every sequence begins with: one row, or None."
        self.gathers = False
        "Whether the slots at the end of a call are held from then on."
        self.usage: Usage | None = None
        self.register_buffer("size", torch.ones(()))

        def drawn(*shape: int, size: float) -> nn.Parameter:
            return nn.Parameter(torch.randn(shape, generator=noise) * size)

        if config.update == "importance":
            # All alike to begin with: what is never written could not be found important.
            self.important = nn.Parameter(torch.zeros(hidden))
            self.importance = nn.Parameter(torch.full((), 2.0))
        if config.form == "original":
            start = 0.01 * torch.randn(config.slots, hidden, generator=noise)
            self.register_buffer("start", start)
            self.out = nn.Parameter(torch.zeros(hidden, config.slots))
            return
        self.query = drawn(config.width, hidden, size=hidden**-0.5)
        # Keys are what queries were a token before, from the first step on: what is found is what
        # stood behind words like the last ones.
        self.key_weight = nn.Parameter(self.query.detach().clone())
        self.taps = nn.Parameter(torch.full((config.kernel, hidden), config.kernel**-0.5))
        # What stood there is read as it stood there; only how much of it counts is learned first.
        self.value = nn.Parameter(torch.eye(hidden))
        self.out = nn.Parameter(torch.eye(hidden))
        self.gain = nn.Parameter(torch.zeros(hidden))
        self.null = nn.Parameter(torch.zeros(()))
        if config.form == "linformer":
            self.project = nn.Parameter(_segments(config.writes, config.chunk, noise))

    @torch.no_grad()
    def scale(self, size: float) -> None:
        """Let what is read add as much to states of this size as to states of size 1."""
        self.size.fill_(max(1.0, size))

    def forward(self, x: Tensor, y: Tensor, signal: Signal) -> Tensor:
        """`y` (batch, time, hidden) with what the new tokens read added to it."""
        if self.windows is not None:
            return y + self._over_windows(x, signal.rows, self.windows).to(y)
        before = signal.carried.get(self.key) or [None] * len(signal.rows)
        after, added = [], []
        for index, (row, kept) in enumerate(zip(signal.rows, before, strict=True)):
            kept = self._begun(row, kept)
            at = torch.from_numpy(row.columns).to(x.device)
            spans = _texts(row)
            for span in spans:
                kept = self._fresh() if span is not spans[0] else kept
                read, kept = self._read_on(x[index, at[span]].float(), kept)
                added += [(index, at[span], read)] if read is not None else []
            after.append(kept)
        signal.carried[self.key] = after
        if self.gathers:
            self.held = self._closed(after).detached()
        if not added:
            return y
        total = y.clone()
        for index, at, read in added:
            total[index] = total[index].index_add(0, at, read.to(y))
        return total

    # -- one sequence ----------------------------------------------------------------------

    def _fresh(self) -> Kept:
        return Kept((self.held,), (self.out.new_zeros(0, self.hidden),))

    def _begun(self, row: Row, kept: Kept | None) -> Kept:
        if kept is None and row.start:
            raise UnsupportedCall(
                f"the cache holds {row.start} tokens that were read before this memory was "
                "attached, and it has not seen their states; start from an empty cache"
            )
        return kept or self._fresh()

    def _read_on(self, x: Tensor, kept: Kept) -> tuple[Tensor | None, Kept]:
        """What new tokens (time, hidden) read, None if there is nothing; and what is kept then."""
        slots, states = list(kept.slots), list(kept.states)
        parts, found = [], False
        while len(x):
            room = self.config.chunk - len(states[-1])
            new, x = x[:room], x[room:]
            parts.append(self._looked_up(new[None], slots[-1], before=states[-1][None])[0])
            found = found or slots[-1] is not None
            states[-1] = torch.cat([states[-1], new])
            if len(states[-1]) == self.config.chunk:
                slots.append(self.written(states[-1][None], slots[-1]))
                states.append(states[-1][:0])
        # Nothing is added to the stream before there is something to read.
        read = torch.cat(parts) if found else None
        return read, Kept(tuple(slots), tuple(states))

    def _closed(self, after: Sequence[Kept]) -> Slots:
        """The slots of the only sequence of a call, with what is left of its last chunk written."""
        if len(after) != 1:
            raise BadInput(f"one text is read at a time, not {len(after)}")
        slots, rest = after[0].slots[-1], after[0].states[-1]
        if len(rest):
            slots = self.written(rest[None], slots)
        assert slots is not None  # a text that is read has a token
        return slots

    # -- many sequences of windows ---------------------------------------------------------

    def _over_windows(self, x: Tensor, rows: Sequence[Row], windows: Windows) -> Tensor:
        """(batch, time, hidden): what is read where each text stands in consecutive rows."""
        batch, time, hidden = x.shape
        if batch % windows.each or any(len(r.columns) < time or r.start for r in rows):
            raise BadInput(
                f"{batch} rows of {time} tokens are not whole windows, {windows.each} a text; pass "
                "rows without padding or cache, all windows of a text one after another"
            )
        states = x.float().view(-1, windows.each, time, hidden)
        held = self.held and self.held.rows(len(states))
        slots, parts = held, []
        for window in states.unbind(1):
            others = slots.rolled(windows.others) if slots and windows.others else slots
            for at in range(0, time, self.config.chunk):
                chunk = window[:, at : at + self.config.chunk]
                parts.append(self._looked_up(chunk, others))
                slots = self.written(chunk, slots)
                others = slots.rolled(windows.others) if windows.others else slots
        return torch.cat(parts, 1).view(batch, time, hidden)

    # -- reading and writing ---------------------------------------------------------------

    def _looked_up(self, x: Tensor, slots: Slots | None, before: Tensor | None = None) -> Tensor:
        """(rows, time, hidden): what states (rows, time, hidden) of one chunk add to themselves.

        Args:
            before: states of the same chunk that stand before these.
        """
        if slots is None:
            return torch.zeros_like(x)
        h = _unit(x)
        if self.config.form == "original":
            products = self._normed(h) @ self._normed(slots.keys).transpose(1, 2)
            products = products / math.sqrt(self.hidden)
            self._seen(reads=torch.softmax(products / self.config.temperature, -1))
            drifted: Tensor = products @ self.out.T * self.size
            return drifted
        past = slots.tail if before is None else torch.cat([slots.tail, _unit(before)], 1)
        mixed = self._mixed(torch.cat([past, h], 1))[:, -x.shape[1] :]
        logits = self._compared(self._normed(mixed @ self.query.T), slots.keys)
        logits = logits + slots.strength.clamp_min(1e-30).log()[:, None]
        logits = logits.masked_fill((slots.strength == 0)[:, None], -torch.inf)
        null = self.null.expand(*logits.shape[:2], 1)
        weights = torch.softmax(torch.cat([logits, null], -1), -1)[..., :-1]
        self._seen(reads=weights)
        return weights @ slots.values @ self.out.T * self.gain * self.size

    def written(self, x: Tensor, slots: Slots | None) -> Slots:
        """The slots after a chunk of states (rows, time, hidden) was read.

        Raises:
            TrainingDiverged: a state is no number, so that nothing could be read any more.
        """
        if not finite([x]):
            raise TrainingDiverged(
                f"the states that {self.key} reads hold numbers that are none; the slots are as "
                "they were. Use a lower learning rate, or a host in float32."
            )
        every = self.config.reset_every
        if slots is None or (every and slots.chunks % every == 0):
            slots = self._empty(len(x), slots)
        h = _unit(x)
        line = torch.cat([slots.tail, h], 1)
        gate = self._gate(h)
        if self.config.form == "original":
            new = self._drifted(h, gate, slots)
        else:
            mixed = self._mixed(line)[:, :-1]  # each token's key is made of those before it
            keys, values = self._normed(mixed @ self.key_weight.T), h @ self.value.T
            write = self._selected if self.config.form == "slots" else self._projected
            new = write(keys, values, gate, slots)
        kept = line[:, line.shape[1] - slots.tail.shape[1] :]
        new = replace(new, tail=kept, chunks=slots.chunks + 1)
        if self.usage is not None:
            self.usage.after.append(new.detached())
            self.usage.means.append(h.detach().mean(1))
        return new

    def _selected(self, keys: Tensor, values: Tensor, gate: Tensor, slots: Slots) -> Slots:
        """Important tokens take the place of what is weaker: the strongest of both remain."""
        config, time = self.config, keys.shape[1]
        count = min(config.writes, config.slots, time)
        tokens = self._chosen(gate, count)
        kept = slots.strength * config.decay
        weak = kept.argsort(dim=1, stable=True)[:, :count]
        new, old = config.rate * gate.gather(1, tokens), kept.gather(1, weak)
        # The strongest against the weakest, and so on.
        wins = new >= old
        self._seen(writes=torch.zeros_like(kept).scatter(1, weak, new * wins))

        def put(before: Tensor, found: Tensor) -> Tensor:
            at, chosen = _over(weak, before), found.gather(1, _over(tokens, found))
            return before.scatter(1, at, torch.where(wins[..., None], chosen, before.gather(1, at)))

        return replace(
            slots,
            keys=put(slots.keys, keys),
            values=put(slots.values, values),
            strength=kept.scatter(1, weak, torch.where(wins, new, old)),
        )

    def _chosen(self, gate: Tensor, count: int) -> Tensor:
        """(rows, count): the tokens that are written; evenly spaced ones where all are alike."""
        if self.config.update == "always":
            time = gate.shape[1]
            at = torch.arange(1, count + 1, device=gate.device) * time // count - 1
            return at.expand(len(gate), -1)
        return gate.argsort(dim=1, descending=True, stable=True)[:, :count]

    def _projected(self, keys: Tensor, values: Tensor, gate: Tensor, slots: Slots) -> Slots:
        project = self.project[:, : keys.shape[1]] * gate[:, None]  # (rows, rank, time)
        rank = self.config.writes
        fresh = torch.full_like(slots.strength[:, :rank], self.config.rate)
        self._seen(writes=torch.cat([torch.zeros_like(slots.strength[:, rank:]), fresh], 1))
        return replace(
            slots,
            keys=torch.cat([slots.keys[:, rank:], project @ keys], 1),
            values=torch.cat([slots.values[:, rank:], project @ values], 1),
            strength=torch.cat([slots.strength[:, rank:] * self.config.decay, fresh], 1),
        )

    def _drifted(self, h: Tensor, gate: Tensor, slots: Slots) -> Slots:
        """The original's update, of each sequence by itself and after the chunk."""
        units = functional.normalize(h, dim=-1)
        memory = functional.normalize(slots.keys, dim=-1)
        products = units @ memory.transpose(1, 2) / self.hidden**0.5
        addressed = (products / self.config.temperature + 1e-8).softmax(-1) * gate[..., None]
        update = functional.normalize(addressed.transpose(1, 2) @ units, dim=-1)
        rate = SEED_RATE * self.config.rate / (1 + update.norm(dim=-1, keepdim=True))
        self._seen(writes=rate[..., 0])
        return replace(
            slots,
            keys=functional.normalize(slots.keys + rate * update, dim=-1),
            strength=torch.ones_like(slots.strength),
        )

    def _empty(self, rows: int, before: Slots | None) -> Slots:
        """Slots that nothing was written into; what is not content goes on."""
        config, zeros = self.config, self.out.new_zeros
        if before is not None:
            tail, chunks = before.tail, before.chunks
        else:
            tail, chunks = zeros(rows, config.kernel, self.hidden), 0
        if config.form == "original":
            keys, values = self.start.expand(rows, -1, -1), zeros(rows, config.slots, 0)
        else:
            keys = zeros(rows, config.slots, config.width)
            values = zeros(rows, config.slots, self.hidden)
        return Slots(keys, values, zeros(rows, config.slots), tail, chunks)

    def _mixed(self, line: Tensor) -> Tensor:
        """(rows, n - taps + 1, hidden): the convolution of states (rows, n, hidden)."""
        count = line.shape[1] - len(self.taps) + 1
        parts = (line[:, i : i + count] * tap for i, tap in enumerate(self.taps.flip(0)))
        return torch.stack(list(parts)).sum(0)

    def _gate(self, h: Tensor) -> Tensor:
        """(rows, time): how important tokens are found."""
        if self.config.update == "always":
            return h.new_ones(h.shape[:2])
        return torch.sigmoid(h @ self.important + self.importance)

    def _normed(self, x: Tensor) -> Tensor:
        if self.config.norm == "none":
            return x
        return _unit(x - x.mean(-1, keepdim=True) if self.config.norm == "layer" else x)

    def _compared(self, one: Tensor, other: Tensor) -> Tensor:
        """(rows, n, m): products of vectors (rows, n, width) and (rows, m, width)."""
        scale: float = one.shape[-1] ** 0.5 * self.config.temperature
        return one @ other.transpose(1, 2) / scale

    def _seen(self, *, reads: Tensor | None = None, writes: Tensor | None = None) -> None:
        if self.usage is None:
            return
        if reads is not None:
            self.usage.reads.append(reads.detach())
        if writes is not None:
            self.usage.writes.append(writes.detach())


def _over(at: Tensor, tensor: Tensor) -> Tensor:
    """Indices (rows, n) for all numbers of the vectors (rows, m, width) that they choose."""
    return at[..., None].expand(-1, -1, tensor.shape[-1])


def _segments(rank: int, chunk: int, noise: torch.Generator) -> Tensor:
    """(rank, chunk): each new slot takes one piece of the chunk, to begin with."""
    at = torch.arange(chunk) * rank // chunk
    own = (at[None] == torch.arange(rank)[:, None]).float()
    return own + 0.02 * torch.randn(rank, chunk, generator=noise)


def _texts(row: Row) -> list[NDArray[np.int64]]:
    """The new tokens of a row by the texts that they belong to: indices among the new ones."""
    count = len(row.columns)
    if row.begins is None:
        return [np.arange(count)]
    begins = row.begins[row.start :]
    edges = np.flatnonzero(np.diff(begins)) + 1
    return np.split(np.arange(count), edges)


def _unit(x: Tensor) -> Tensor:
    """Vectors with a mean square of one."""
    return functional.rms_norm(x, x.shape[-1:], eps=EPS)
