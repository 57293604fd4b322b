"""The lookup memory: recognises a taught question in the tokens, and says its answer."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Self

import torch
from torch import Tensor, nn

from engram_transformers.memories.lookup.config import LookupConfig
from engram_transformers.memories.lookup.reading import Reader, Say
from engram_transformers.memories.lookup.write import Written, encode_facts, pack, unpack
from engram_transformers.memories.shared.address import open_meaning
from engram_transformers.memories.shared.rows import OutputRows
from engram_transformers.memory import Row, Signal, Tensors
from engram_transformers.models.adapter import Adapter, Place
from engram_transformers.models.tokens import HostTokens
from engram_transformers.routing.meaning import Decision, MeaningAddress
from engram_transformers.routing.spans import SpanIndex
from engram_transformers.types import Candidate, Fact, Firing

_numbers = itertools.count(1)
"Of memories and their versions: a copy that is taught otherwise never shares one."


class Lookup(nn.Module):
    """Facts of one host: addressed by wording or by meaning, said by rows of their own.

    Args:
        meaning: the address by meaning; None for a memory that fires on taught wordings only.
    """

    Config = LookupConfig

    def __init__(
        self,
        config: LookupConfig,
        *,
        adapter: Adapter,
        tokens: HostTokens,
        meaning: MeaningAddress | None = None,
    ) -> None:
        super().__init__()
        # Key of what this memory carries from chunk to chunk in a cache.
        self.config, self.adapter, self.tokens = config, adapter, tokens
        self.number, self.meaning = next(_numbers), meaning
        self.output = OutputRows(adapter)
        self.spans = SpanIndex()
        self.reader = Reader(tokens, spans=self.spans, meaning=meaning, answer=self.answer)
        self.version = next(_numbers)
        self._facts: dict[int, tuple[str, Fact, Written]] = {}
        self._numbers: dict[str, int] = {}
        self._unused = itertools.count()

    @classmethod
    def open(cls, adapter: Adapter, tokens: HostTokens, config: LookupConfig) -> Self:
        """An empty memory for a host, with the encoder that its configuration names."""
        config, meaning = open_meaning(config, adapter=adapter, tokens=tokens)
        return cls(config, adapter=adapter, tokens=tokens, meaning=meaning)

    def __len__(self) -> int:
        return len(self._facts)

    def __contains__(self, id: str) -> bool:
        return id in self._numbers

    # -- acting ----------------------------------------------------------------------------

    def places(self, adapter: Adapter) -> Mapping[Place, nn.Module]:
        """The lookup memory acts at one place: the output of the final norm."""
        return {adapter.place("final"): self}

    def forward(self, x: Tensor, y: Tensor, signal: Signal) -> Tensor:
        """Put rows in the place of `y` (batch, time, hidden) where a fact speaks."""
        if not self._facts:
            return y
        before = signal.carried.get(self.number) or [None] * len(signal.rows)
        readings = self.reader.read(signal.rows, before, version=self.version)
        signal.carried[self.number] = [reading.progress for reading in readings]
        said = [
            (b, int(row.columns[say.at - row.start]), self._row(say))
            for b, (row, reading) in enumerate(zip(signal.rows, readings, strict=True))
            for say in reading.says
        ]
        if not said:
            return y
        batch = torch.tensor([b for b, _, _ in said], device=y.device)
        time = torch.tensor([column for _, column, _ in said], device=y.device)
        return y.index_put((batch, time), torch.stack([row for _, _, row in said]).to(y))

    def answer(self, number: int, bare: bool) -> tuple[int, ...]:
        """Tokens of a fact's answer, the stop token included."""
        return self._facts[number][2].answers[bare]

    def _row(self, say: Say) -> Tensor:
        refined = self._facts[say.value][2].rows.get(say.token)
        if refined is None:
            return self.output.closed_form(say.token)
        return refined.to(self.output.weight.device)

    # -- learning --------------------------------------------------------------------------

    def write(self, facts: Sequence[Fact], *, refine: bool = True) -> list[Tensors]:
        """The deltas that would teach these facts; changes nothing.

        Args:
            refine: measure every row's margin and refine the rows that a near twin beats.
        """
        written = encode_facts(facts, self.tokens)
        vectors = self._vectors(facts)
        rows = self._refined(written) if refine else {}
        return [
            pack(
                Written(
                    one.spans,
                    one.bare,
                    one.answers,
                    vectors[i] if vectors else None,
                    {t: rows[t] for answer in one.answers for t in answer if t in rows},
                )
            )
            for i, one in enumerate(written)
        ]

    def add(self, facts: Iterable[tuple[str, Fact, Tensors]]) -> None:
        """Add facts (id, fact, delta) to what the memory knows."""
        self.version = next(_numbers)
        for id, fact, delta in facts:
            number, written = next(self._unused), unpack(delta)
            self._facts[number], self._numbers[id] = (id, fact, written), number
            for span, bare in zip(written.spans, written.bare, strict=True):
                self.spans.add(span, 2 * number + bare)
            if self.meaning is not None and written.vectors is not None:
                self.meaning.add(number, fact, written.vectors.float().numpy())

    def remove(self, ids: Iterable[str]) -> None:
        """Take facts out again, exactly."""
        self.version = next(_numbers)
        for id in ids:
            number = self._numbers.pop(id)
            _, _, written = self._facts.pop(number)
            for span, bare in zip(written.spans, written.bare, strict=True):
                self.spans.discard(span, 2 * number + bare)
            if self.meaning is not None:
                self.meaning.remove(number)

    def _vectors(self, facts: Sequence[Fact]) -> list[Tensor]:
        if self.meaning is None:
            return []
        return [torch.from_numpy(v).half() for v in self.meaning.encode_facts(facts)]

    def _refined(self, written: Sequence[Written]) -> dict[int, Tensor]:
        """Rows of the tokens that their closed form does not say clearly enough."""
        tokens = sorted({t for one in written for answer in one.answers for t in answer})
        return self.output.refined(tokens)

    # -- explaining ------------------------------------------------------------------------

    def explain(self, text: str) -> Firing:
        """Which fact fires when a user asks this, by which address, and what came second."""
        ids = self.tokens.prompt_ids(text, form=self.tokens.ask_form)
        return self.explain_ids(ids)

    def explain_ids(self, ids: Sequence[int]) -> Firing:
        """Which fact fires at the end of a prompt of these tokens."""
        array = torch.tensor(ids).numpy()
        row = Row(array, 0, torch.arange(len(array)).numpy(), prompt_end=len(array))
        triggers, asked = self.reader.triggers(row)
        decision = next(iter(asked.values()), Decision(None, "nothing was asked"))
        candidates = self._candidates(decision)
        last = [t for t in triggers if t.end == len(array)]
        if not last:
            best = candidates[0].probability if candidates else 0.0
            return Firing(False, None, None, best, decision.reason, candidates)
        best_trigger = max(last, key=lambda trigger: trigger.rank)
        id = self._facts[best_trigger.value][0]
        if best_trigger.size:
            return Firing(True, id, "exact", 1.0, "the question is worded as it was taught")
        return Firing(True, id, "meaning", candidates[0].probability, decision.reason, candidates)

    def _candidates(self, decision: Decision) -> tuple[Candidate, ...]:
        return tuple(
            Candidate(self._facts[one.value][0], one.question, one.similarity, one.probability)
            for one in decision.ranking
        )
