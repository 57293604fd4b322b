"""The slow twin: addresses in Python's own integers, fusion one token at a time; for tests only.

It shares no code with what it checks. What wraps around at 64 bits is wrapped here by hand.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

MASK = 2**64 - 1


def signed(number: int) -> int:
    """What 64 bits make of a number that may not fit."""
    number &= MASK
    return number - 2**64 if number >> 63 else number


def addresses(
    ids: Sequence[int],
    *,
    orders: Sequence[int],
    multipliers: Sequence[Sequence[int]],
    moduli: Sequence[Sequence[int]],
    fill: int,
    end: int | None = None,
    shared: bool = False,
) -> list[list[int]]:
    """For each token of one text (ids as they are hashed), the rows that it reads.

    Args:
        end: the id behind which another text begins.
    """
    return [
        _one(
            _past(ids, at, size=max(orders), fill=fill, end=end),
            orders=orders,
            multipliers=multipliers,
            moduli=moduli,
            shared=shared,
        )
        for at in range(len(ids))
    ]


def _past(ids: Sequence[int], at: int, *, size: int, fill: int, end: int | None) -> list[int]:
    """A token and those before it in its text, newest first, filled up to `size`."""
    past = [ids[at]]
    while len(past) < size and at - len(past) >= 0 and ids[at - len(past)] != end:
        past.append(ids[at - len(past)])
    return past + [fill] * (size - len(past))


def _one(
    past: Sequence[int],
    *,
    orders: Sequence[int],
    multipliers: Sequence[Sequence[int]],
    moduli: Sequence[Sequence[int]],
    shared: bool,
) -> list[int]:
    found, offset = [], 0
    for order, sizes in zip(orders, moduli, strict=True):
        for head, size in enumerate(sizes):
            factors = multipliers[head % len(multipliers)]
            mix = 0
            for k in range(order):
                mix = signed(mix ^ signed(past[k] * factors[k]))
            found.append(mix % size + offset)
            offset += 0 if shared else size
    return found


def splitmix(seed: int, *, ids: int, count: int) -> list[int]:
    """Multipliers of the Qwen layout: the stream of SplitMix64, one step skipped."""
    state, found = seed, []
    for step in range(count + 1):
        state = (state + 0x9E3779B97F4A7C15) & MASK
        z = state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        z ^= z >> 31
        if step:
            found.append(z % ((2**63 - 1) // ids // 2) * 2 + 1)
    return found


def primes(least: int, count: int) -> list[int]:
    """The next primes from `least` on, by trial division."""
    found: list[int] = []
    while len(found) < count:
        if least > 1 and all(least % d for d in range(2, math.isqrt(least) + 1)):
            found.append(least)
        least += 1
    return found


def fused(
    x: Tensor,
    rows: Sequence[Sequence[int]],
    weights: Mapping[str, Tensor],
    *,
    gate: str,
    gate_value: float = 1.0,
    distance: int = 3,
    depth: Sequence[int] | None = None,
    similar: int = 0,
) -> Tensor:
    """(time, hidden): `x` of one text with what its tokens read added, token by token.

    Args:
        rows: for each token, the rows that it reads.
        weights: the tensors of a layer, by its names.
        depth: how many tokens of its text stand before each token; None: all.
        similar: rows that each token reads by content besides.
    """
    out: list[Tensor] = []
    values: list[Tensor] = []
    for t, read in enumerate(rows):
        pieces = [weights["table"][row] for row in read]
        pieces += _alike(x[t], weights, similar)
        shares = _gated(x[t], pieces, weights, gate=gate, gate_value=gate_value)
        e = torch.cat([share * piece for share, piece in zip(shares, pieces, strict=True)])
        values.append(weights["value"] @ e)
        out.append(x[t] + values[t])
        if "conv" not in weights:
            continue
        total = torch.zeros_like(x[t])
        taps = weights["conv"].shape[1]
        for tap in range(taps):
            back = (taps - 1 - tap) * distance
            if back <= (t if depth is None else depth[t]):
                normed = _norm(values[t - back], weights["norm_v"])
                total = total + weights["conv"][:, tap] * normed
        out[t] = out[t] + total / (1 + torch.exp(-total))
    return torch.stack(out)


def _alike(h: Tensor, weights: Mapping[str, Tensor], count: int) -> list[Tensor]:
    if not count:
        return []
    asked = weights["asking"] @ h
    order = sorted(weights["table"], key=lambda row: -float(row @ asked))[:count]
    powers = [torch.exp(row @ asked / math.sqrt(len(row))) for row in order]
    return [
        row * power / torch.stack(powers).sum() for row, power in zip(order, powers, strict=True)
    ]


def _gated(
    h: Tensor,
    pieces: Sequence[Tensor],
    weights: Mapping[str, Tensor],
    *,
    gate: str,
    gate_value: float,
) -> list[Tensor]:
    if gate == "fixed":
        return [torch.tensor(gate_value, dtype=h.dtype)] * len(pieces)
    if gate == "content":
        query = weights["query_weight"] @ h
        scores = [
            query @ (weights["key_weight"] @ piece) / math.sqrt(len(piece)) for piece in pieces
        ]
        powers = [torch.exp(score) for score in scores]
        total = torch.stack(powers).sum()
        return [power / total for power in powers]
    key = _norm(weights["key_weight"] @ torch.cat(list(pieces)), weights["norm_k"])
    s = key @ _norm(h, weights["norm_h"]) / math.sqrt(len(h))
    if gate == "learned":
        s = torch.sign(s) * torch.sqrt(torch.clamp(torch.abs(s), min=1e-6))
    return [1 / (1 + torch.exp(-s))] * len(pieces)


def _norm(x: Tensor, gain: Tensor) -> Tensor:
    return gain * x / torch.sqrt((x * x).mean() + 1e-6)
