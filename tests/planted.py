"""Memories that do one thing on purpose, so that tests see whether the scorers notice."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn

from engram_transformers.memories.shared.rows import OutputRows
from engram_transformers.memory import Row, Signal, Tensors
from engram_transformers.types import Fact, Firing


@dataclass(frozen=True)
class Nothing:
    """No options."""


class Planted(nn.Module):
    """Takes facts and forgets them; what it does to the host is up to `forward`."""

    Config = Nothing
    place = ("final", None)

    def __init__(self, adapter: Any, config: Nothing) -> None:
        super().__init__()
        self.config, self.rows, self.ids = config, OutputRows(adapter), set[str]()

    @classmethod
    def open(cls, adapter: Any, tokens: Any, config: Nothing) -> Self:
        return cls(adapter, config)

    def __contains__(self, id: str) -> bool:
        return id in self.ids

    def places(self, adapter: Any) -> Mapping[Any, nn.Module]:
        name, layer = self.place
        return {adapter.place(name, layer): self}

    def write(self, facts: Sequence[Fact], *, refine: bool = True) -> list[Tensors]:
        return [{} for _ in facts]

    def add(self, facts: Iterable[tuple[str, Fact, Tensors]]) -> None:
        self.ids |= {id for id, _, _ in facts}

    def remove(self, ids: Iterable[str]) -> None:
        self.ids -= set(ids)

    def explain(self, text: str) -> Firing:
        return Firing(True, None, None, 1.0, "planted")


class AtRandom(Planted):
    """Answers with whatever comes: the state before the output is replaced by noise."""

    def forward(self, x: Tensor, y: Tensor, signal: Signal) -> Tensor:
        generator = torch.Generator().manual_seed(int(signal.rows[0].ids.sum()))
        return torch.randn(y.shape, generator=generator) * y.std()


class Echo(Planted):
    """Answers every question with the question: it holds the answer wherever the question does."""

    def forward(self, x: Tensor, y: Tensor, signal: Signal) -> Tensor:
        y = y.clone()
        for b, row in enumerate(signal.rows):
            for column, token in self._said(row):
                y[b, column] = self.rows.closed_form(token)
        return y

    def _said(self, row: Row) -> Iterable[tuple[int, int]]:
        end = row.prompt_end or len(row.ids)
        asked = row.ids[:end].tolist()
        for at, column in enumerate(row.columns.tolist()):
            behind = row.start + at - (end - 1)
            if 0 <= behind < len(asked):
                yield column, asked[behind]


class Harmful(Planted):
    """Disturbs every token in the middle of the host."""

    place = ("block_out", 0)

    def forward(self, x: Tensor, y: Tensor, signal: Signal) -> Tensor:
        return y + 2.0 * y.roll(1, dims=-1)
