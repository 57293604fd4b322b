"""How full tables are, and which n-grams share rows: counted, not estimated."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from engram_transformers.memories.engram.address import Layout


@dataclass(frozen=True)
class Occupancy:
    """How the distinct n-grams of one order lie in their tables."""

    order: int
    keys: int
    "Distinct n-grams."
    used: tuple[float, ...]
    "By head: share of the table's rows that something reads."
    alone: tuple[float, ...]
    "By head: share of the n-grams that have their row for themselves."
    somewhere: float
    "Share of the n-grams that have a row for themselves in at least one head."
    apart: float
    "Share of the n-grams that no other one shares all its rows with."


def occupancy(layout: Layout, windows: Tensor) -> list[Occupancy]:
    """What each order's tables hold after these tokens were read.

    Args:
        windows: (n, longest) int64: tokens and those before them, newest first, as they are hashed.
    """
    found, at = [], 0
    for order, sizes in zip(layout.orders, layout.moduli, strict=True):
        # Of all windows that end in the same n-gram one is enough.
        keys = torch.unique(windows[:, :order], dim=0)
        filled = keys.new_zeros(len(keys), layout.longest)
        filled[:, :order] = keys
        rows = torch.from_numpy(layout.rows_of(list(filled.T.numpy())))[:, at : at + len(sizes)]
        found.append(_occupied(order, rows, sizes))
        at += len(sizes)
    return found


def _occupied(order: int, rows: Tensor, sizes: tuple[int, ...]) -> Occupancy:
    counts = [torch.unique(head, return_inverse=True, return_counts=True) for head in rows.T]
    alone = torch.stack([count[inverse] == 1 for _, inverse, count in counts])
    _, joint, shared = torch.unique(rows, dim=0, return_inverse=True, return_counts=True)
    return Occupancy(
        order=order,
        keys=len(rows),
        used=tuple(len(each) / size for (each, _, _), size in zip(counts, sizes, strict=True)),
        alone=tuple(alone.float().mean(dim=1).tolist()),
        somewhere=float(alone.any(dim=0).float().mean()),
        apart=float((shared[joint] == 1).float().mean()),
    )
