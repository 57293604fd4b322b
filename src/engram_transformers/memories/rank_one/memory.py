"""The rank-one memory: what MLPs write at the subjects of facts is changed."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self, cast

import torch
from torch import Tensor, nn

from engram_transformers.errors import BadInput
from engram_transformers.memories.rank_one.config import RankOneConfig
from engram_transformers.memories.rank_one.edit import Factors
from engram_transformers.memories.rank_one.lookalikes import keys_at, lookalikes
from engram_transformers.memories.rank_one.solve import Metric, gentle, solve
from engram_transformers.memories.rank_one.statistics import Progress, ordinary
from engram_transformers.memories.rank_one.value import contexts_of, sites_of, value_of
from engram_transformers.memories.shared.beside import beside
from engram_transformers.memory import Signal, Tensors
from engram_transformers.models.adapter import Adapter, Place
from engram_transformers.models.tokens import HostTokens
from engram_transformers.types import Fact, Firing

AT = (0.1, 0.17, 0.23, 0.3, 0.4, 0.47, 0.53, 0.6, 0.67, 0.73)
"Where in the depth facts are written unless it is said."

log = logging.getLogger(__name__)


class RankOne(nn.Module):
    """Facts as keys and values of the output projections of some MLPs.

    What is stored of a fact is what was found for it on the bare host. The change of each
    projection is solved for from all that are stored, in the order of their ids, so that it depends
    on nothing but which facts there are: forgetting one leaves what would be there had it never
    been taught.

    It acts on every token: it is never silent.
    """

    Config = RankOneConfig

    def __init__(self, config: RankOneConfig, *, adapter: Adapter, tokens: HostTokens) -> None:
        super().__init__()
        self.config, self.adapter, self.tokens = config, adapter, tokens
        self.layers = _layers(adapter, config)
        self.parts = nn.ModuleDict({str(n): Change() for n in self.layers})
        self._facts: dict[str, Tensors] = {}
        self._metrics: dict[int, Metric] = {}
        self._gentle: dict[int, Tensor] = {}

    @classmethod
    def open(cls, adapter: Adapter, tokens: HostTokens, config: RankOneConfig) -> Self:
        """An empty memory; `PlaceNotFound` where the host has no such block or no `mlp_out`."""
        return cls(config, adapter=adapter, tokens=tokens)

    def __len__(self) -> int:
        return len(self._facts)

    def __contains__(self, id: str) -> bool:
        return id in self._facts

    def places(self, adapter: Adapter) -> Mapping[Place, nn.Module]:
        """The output projections of the MLPs that are changed."""
        return {adapter.place("mlp_out", int(n)): part for n, part in self.parts.items()}

    # -- learning --------------------------------------------------------------------------

    def write(self, facts: Sequence[Fact], *, refine: bool = True) -> list[Tensors]:
        """The deltas that would teach these facts; changes nothing.

        Each fact is written by itself, on the bare host: what else is taught makes no difference.
        """
        return [self._written(fact) for fact in facts]

    def add(self, facts: Iterable[tuple[str, Fact, Tensors]]) -> None:
        """Add facts (id, fact, delta) to what the memory knows."""
        self._facts.update((id, delta) for id, _, delta in facts)
        self._solve()

    def remove(self, ids: Iterable[str]) -> None:
        """Take facts out again, exactly."""
        for id in list(ids):
            del self._facts[id]
        self._solve()

    def prepare(self, progress: Progress = lambda done, total: None) -> None:
        """Read the text whose keys are to be left alone, unless that was done before."""
        if self._metrics:
            return
        config = self.config
        found = ordinary(
            self.adapter,
            self.tokens,
            self.layers,
            text=config.text,
            count=config.tokens,
            progress=progress,
        )
        self._metrics = {
            n: Metric(seen.keys, config.method, null=config.null) for n, seen in found.items()
        }
        self._gentle = {n: gentle(seen.slopes) for n, seen in found.items()}

    def explain(self, text: str) -> Firing:
        """Nothing that fires: every fact acts on every token, most of them hardly."""
        reason = "no single fact fires in a rank-one memory, which acts on every token"
        return Firing(False, None, None, 0.0, reason)

    def _written(self, fact: Fact) -> Tensors:
        self.prepare(_Told())
        contexts = contexts_of(fact, self.tokens, most=self.config.wordings)
        others = lookalikes(self.adapter, self.tokens, contexts[0], self.config.lookalikes)
        spared = keys_at(
            self.adapter, others, self.layers, contexts[0].answer, sites_of(contexts, self.config)
        )
        metrics = {n: metric.sparing(spared[n]) for n, metric in self._metrics.items()}
        found = value_of(self.adapter, contexts, metrics, self._gentle, self.config)
        return {"keys": found.keys, "moved": found.moved, "values": found.values.cpu()}

    def factors(self) -> dict[int, Factors]:
        """By block, what is added to its projection."""
        stored = [self._facts[id] for id in sorted(self._facts)]
        return {n: self._factors(stored, at) for at, n in enumerate(self.layers)} if stored else {}

    def _solve(self) -> None:
        found = self.factors()
        for n, part in self.parts.items():
            one, change = found.get(int(n)), cast(Change, part)
            change.dW = None if one is None else one.product().to(self.adapter.device)

    def _factors(self, stored: Sequence[Tensors], at: int) -> Factors:
        keys, moved, values = (
            torch.cat([one[name][at] for one in stored]) for name in ("keys", "moved", "values")
        )
        ridge = self.config.ridge * keys.shape[1]
        reads = solve(keys, moved, method=self.config.method, ridge=ridge)
        return Factors(reads.float(), values)


class Change(nn.Module):
    """What is added to one projection; nothing to begin with."""

    dW: Tensor | None

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("dW", None)

    def forward(self, x: Tensor, y: Tensor, signal: Signal) -> Tensor:
        """The projection's output (batch, time, hidden) as if its weight had been changed."""
        return y if self.dW is None else beside(x, y, self.dW)


class _Told:
    """Says once that a text is read, which takes a while."""

    def __init__(self) -> None:
        self.said = False

    def __call__(self, done: int, total: int) -> None:
        if not self.said:
            self.said = True
            log.warning("reading %s tokens once, to know the keys of ordinary text", f"{total:,}")


def _layers(adapter: Adapter, config: RankOneConfig) -> tuple[int, ...]:
    count = len(adapter.layers)
    named: Any = config.layers
    if named is None:
        named = tuple(min(count - 1, round(share * count)) for share in AT)
    places = {adapter.place("mlp_out", n).layer for n in named}
    if not places:
        raise BadInput("layers names no block; a rank-one memory changes at least one")
    return tuple(sorted(n for n in places if n is not None))
