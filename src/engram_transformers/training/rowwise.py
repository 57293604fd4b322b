"""An optimiser for large tables: it computes and remembers for the rows that were read alone.

For a row with gradient ``g`` that is read for the t-th time, with one number ``v`` kept a row:

    adam       v <- beta v + (1 - beta) mean(g^2)    u = v / (1 - beta^t)
    adagrad    v <- v + mean(g^2)                    u = v
    both       row <- row - lr g / (sqrt(u) + eps)

There is no decay: it would wear away rows that are not read. Rows that are not read are not touched
in any way, so a step costs what the rows of the batch cost, however large the table is.

Sources: row-wise Adagrad of FBGEMM (``EXACT_ROWWISE_ADAGRAD``); Adam (Kingma and Ba 2015) with the
second moment a row's mean, no first moment, and the correction by a row's own count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal, Protocol, overload, runtime_checkable

import torch
from torch import Tensor, nn

from engram_transformers.errors import BadInput
from engram_transformers.memories.shared.touched import Touched

Rule = Literal["adam", "adagrad"]
EPS = 1e-8


@runtime_checkable
class Tabled(Protocol):
    """A trained memory with tables of which a step reads few rows."""

    @property
    def table_rate(self) -> float:
        """How many times as fast as its other tensors its tables learn."""
        ...

    def by_rows(self) -> AbstractContextManager[Sequence[tuple[nn.Parameter, Touched]]]:
        """While this lasts, the gradients of its tables are kept by row, and not in `grad`."""
        ...


class RowWise(torch.optim.Optimizer):
    """Updates the rows that were read since the last step.

    Args:
        tables: each table, and where the gradients of its rows are (`memories/shared/touched.py`).
        beta: how slowly `adam` forgets.
    """

    def __init__(
        self,
        tables: Iterable[tuple[nn.Parameter, Touched]],
        lr: float,
        *,
        rule: Rule = "adam",
        beta: float = 0.999,
    ) -> None:
        if not lr > 0 or not 0 <= beta < 1 or rule not in ("adam", "adagrad"):
            raise BadInput(f"lr={lr}, beta={beta}, rule={rule!r}: use lr > 0, 0 <= beta < 1, and "
                           "'adam' or 'adagrad'")  # fmt: skip
        pairs = list(tables)
        self._touched = {id(table): touched for table, touched in pairs}
        super().__init__([table for table, _ in pairs], {"lr": lr, "rule": rule, "beta": beta})

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Update every table by the gradients that wait for it."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for table in group["params"]:
                found = self._touched[id(table)].take()
                if found is not None:
                    self._update(table, *found, group=group)
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients that wait."""
        for touched in self._touched.values():
            touched.parts.clear()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the state of another one, bit for bit."""
        super().load_state_dict(state_dict)
        numbers = [n for group in state_dict["param_groups"] for n in group["params"]]
        tables = [table for group in self.param_groups for table in group["params"]]
        for number, table in zip(numbers, tables, strict=True):
            # Not as torch takes it: in the type of the table, and without a copy.
            stored = state_dict["state"].get(number, {})
            self.state[table] = {name: t.to(table.device, copy=True) for name, t in stored.items()}

    def norm(self) -> float:
        """Length of all gradients that wait, taken together."""
        parts = [g for touched in self._touched.values() for _, g in touched.parts]
        return float(sum(float(g.square().sum()) for g in parts) ** 0.5)

    def _update(self, table: Tensor, rows: Tensor, g: Tensor, *, group: dict[str, Any]) -> None:
        state = self.state[table]
        if not state:
            state["second"] = torch.zeros(len(table), device=table.device)
            state["count"] = torch.zeros(len(table), dtype=torch.int32, device=table.device)
        g = g.float()
        size = torch.linalg.vector_norm(g, dim=1).square() / g.shape[1]
        # Of both one number a row: `index_select` is several times as fast as brackets.
        second, count = (state[name].index_select(0, rows) for name in ("second", "count"))
        count += 1
        if group["rule"] == "adagrad":
            second = level = second + size
        else:
            second = group["beta"] * second + (1 - group["beta"]) * size
            level = second / (1 - group["beta"] ** count.double()).float()
        state["second"][rows], state["count"][rows] = second, count
        # A row whose gradient is zero stays, however little it has seen.
        pull = -group["lr"] / (level.sqrt() + EPS)
        table.index_add_(0, rows, (g * pull[:, None]).to(table.dtype))
