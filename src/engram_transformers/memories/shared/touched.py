"""Look-ups in a large table whose gradient is kept for the rows that were read, and no others.

The gradient of an ordinary look-up is as large as the table. Here the table's `grad` stays None,
so that nothing that walks over gradients (clipping, norms, `Trainer`) meets a sparse or a huge one,
and what is known of the rows waits in a `Touched` until an optimiser takes it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


@dataclass
class Touched:
    """Rows of one table that were read, with their gradients, since somebody asked last."""

    parts: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    "(rows, gradients) of each backward pass through each look-up; rows are distinct in each."

    def take(self) -> tuple[Tensor, Tensor] | None:
        """Distinct rows (n,), ascending, and their gradients (n, width); None if there are none.

        They are forgotten afterwards.
        """
        parts, self.parts = self.parts, []
        if not parts:
            return None
        if len(parts) == 1:
            return parts[0]
        return summed(torch.cat([rows for rows, _ in parts]), torch.cat([g for _, g in parts]))


def look_up(table: Tensor, addresses: Tensor, touched: Touched) -> Tensor:
    """(..., width): the rows at these addresses (...); their gradients go to `touched`."""
    found: Tensor = _LookUp.apply(table, addresses, touched)  # type: ignore[no-untyped-call]
    return found


def summed(rows: Tensor, gradients: Tensor) -> tuple[Tensor, Tensor]:
    """Distinct rows and the sum of the gradients of each."""
    distinct, inverse = torch.unique(rows, return_inverse=True)
    total = gradients.new_zeros(len(distinct), gradients.shape[-1])
    return distinct, total.index_add_(0, inverse, gradients)


class _LookUp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, table: Tensor, addresses: Tensor, touched: Touched) -> Tensor:
        ctx.save_for_backward(addresses)
        ctx.touched = touched
        return functional.embedding(addresses, table)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, None, None]:
        (addresses,) = ctx.saved_tensors
        (gradient,) = gradients
        flat = gradient.reshape(-1, gradient.shape[-1])
        ctx.touched.parts.append(summed(addresses.reshape(-1), flat))
        return None, None, None
