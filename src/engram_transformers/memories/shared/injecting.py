"""What memories of vectors share: an address that decides, and vectors that act when it fires.

Kinds differ in how they write (`Writer`). A delta holds

* ``states`` (blocks, n, hidden): what blocks are given in n slots, or what is put or added behind
  block `layer`;
* ``vectors`` float16 (questions, views, size): where the address by meaning finds the fact.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal

import numpy as np
from torch import Tensor, nn

from engram_transformers.memories.shared.address import QuestionAddress
from engram_transformers.memories.shared.layout import by_rows
from engram_transformers.memories.shared.slots import Placeholder, composed, put, questions
from engram_transformers.memory import Row, Signal, Tensors
from engram_transformers.models.adapter import Adapter, Place
from engram_transformers.models.tokens import Form, HostTokens, Talk
from engram_transformers.routing.meaning import Decision
from engram_transformers.types import Candidate, Fact, Firing

Act = Literal["slots", "add", "patch"]
_numbers = itertools.count(1)


@dataclass(frozen=True)
class _Standing:
    """What was decided of a row's text."""

    end: int | None
    "Tokens of the prompt that was decided on."
    asked: tuple[tuple[int, int, int], ...]
    "(where its answer begins, fact, where its slots begin or -1)"


class Board:
    """Facts with their vectors, and which of them a text asks for.

    Args:
        act: how they act: in slots before the question, added behind a block at every token of the
            text, or put behind it where each token of the answer is chosen.
        layer: the block behind which they act; slots begin at the first one.
        depth: how many blocks are given vectors in slots.
    """

    def __init__(
        self,
        adapter: Adapter,
        tokens: HostTokens,
        address: QuestionAddress,
        *,
        act: Act,
        layer: int = 0,
        depth: int = 1,
    ) -> None:
        self.adapter, self.tokens, self.address = adapter, tokens, address
        self.act, self.layer, self.depth = act, layer, depth
        self.slots = Placeholder(tokens) if act == "slots" else None
        self.key = ("injected", next(_numbers))
        self.facts: dict[int, tuple[str, Fact, Tensor]] = {}
        self.numbers: dict[str, int] = {}
        self.version = next(_numbers)
        self._unused = itertools.count()

    # -- what is known ---------------------------------------------------------------------

    def add(self, id: str, fact: Fact, delta: Tensors) -> None:
        number = next(self._unused)
        states = delta["states"].to(self.adapter.device)
        self.facts[number], self.numbers[id] = (id, fact, states), number
        self.address.add(number, fact, delta["vectors"])
        self.version = next(_numbers)

    def remove(self, id: str) -> None:
        number = self.numbers.pop(id)
        _, fact, _ = self.facts.pop(number)
        self.address.remove(number, fact)
        self.version = next(_numbers)

    def compose(self, question: str, *, form: Form) -> Talk:
        """The question, behind examples and the slots of its fact where there is one."""
        number = self.address.decide(question).value if self.facts else None
        if number is None:
            return [("user", question)]
        return composed(question, self.given(self.facts[number][2]), form=form)

    def given(self, states: Tensor) -> str:
        """The text of a fact's slots."""
        return "" if self.slots is None else self.slots.text * states.shape[1]

    # -- what it does ----------------------------------------------------------------------

    def change(self, x: Tensor, signal: Signal, block: int) -> Tensor:
        """`x`, what a block is given or gives, as the facts that are asked for have it."""
        if not self.facts:
            return x
        lines = by_rows(x, len(signal.rows))
        for b, (row, one) in enumerate(zip(signal.rows, self._stand(signal), strict=True)):
            for end, number, begin in one.asked:
                if number in self.facts:
                    lines = self._acted(lines, b, row, (end, number, begin), block)
        return x if lines is x else lines.view(x.shape)

    def _acted(
        self, x: Tensor, b: int, row: Row, asked: tuple[int, int, int], block: int
    ) -> Tensor:
        end, number, begin = asked
        states = self.facts[number][2]
        if self.act == "add":
            spots = [(b, int(column)) for column in row.columns]
            return put(x, spots, states[0].expand(len(spots), -1), adds=True) if spots else x
        held, first = (states[block], begin) if self.act == "slots" else (states[0], end - 1)
        at = [i for i in range(len(held)) if row.start <= first + i < len(row.ids)]
        if not at:
            return x
        spots = [(b, int(row.columns[first + i - row.start])) for i in at]
        return put(x, spots, held[at], adds=False)

    def _stand(self, signal: Signal) -> list[_Standing]:
        """What was decided of each row, once a prompt; it travels with the cache."""
        key = (*self.key, self.version)
        before = signal.carried.get(key) or [None] * len(signal.rows)
        now = [self._row(row, past) for row, past in zip(signal.rows, before, strict=True)]
        signal.carried[key] = now
        return now

    def _row(self, row: Row, past: _Standing | None) -> _Standing:
        if past is not None and row.start and row.prompt_end == past.end:
            return past
        found, opened = [], 0
        for end, question in questions(self.tokens, row):
            number = self.address.decide(question).value
            begin = None if number is None else self._begin(row, range(opened, end), number)
            if number is not None and begin is not None:
                found.append((end, number, begin))
            opened = end
        return _Standing(row.prompt_end, tuple(found))

    def _begin(self, row: Row, turn: range, number: int) -> int | None:
        """Where a fact's slots begin in a turn; None where there are none, or not its own."""
        if self.slots is None:
            return -1
        prompt = row.prompt if row.prompt is not None else row.ids
        size = self.facts[number][2].shape[1]
        runs = self.slots.runs(prompt[turn.start : turn.stop])
        return next((turn.start + one for one, end in runs if end - one == size), None)

    # -- how facts are written -------------------------------------------------------------

    def parts(self, question: str, given: str) -> tuple[list[int], list[int]]:
        """Token ids of a composed prompt before what is given, and behind it."""
        form, tokens = self.tokens.ask_form, self.tokens
        talk = composed(question, given, form=form)
        ids = tokens.prompt_ids(talk[0][1], form=form) if len(talk) == 1 else tokens.talk_ids(talk)
        if self.slots is None or not given:
            return ids, []
        begin, end = list(self.slots.runs(np.asarray(ids)))[-1]
        return ids[:begin], ids[end:]


class Part(nn.Module):
    """What acts at one block."""

    def __init__(self, board: Board, block: int) -> None:
        super().__init__()
        self.board, self.block = board, block

    def forward(self, x: Tensor, y: Tensor, signal: Signal) -> Tensor:
        """`y` with the vectors of facts that are asked for."""
        return self.board.change(y, signal, self.block)


class Injecting(nn.Module):
    """The protocol of a memory of vectors, but for how it writes."""

    def __init__(self, board: Board) -> None:
        super().__init__()
        self.board = board

    def __len__(self) -> int:
        return len(self.board.facts)

    def __contains__(self, id: str) -> bool:
        return id in self.board.numbers

    def places(self, adapter: Adapter) -> Mapping[Place, nn.Module]:
        """What blocks are given, for slots; else what one gives."""
        board = self.board
        if board.act == "slots":
            return {adapter.place("block_in", i): Part(board, i) for i in range(board.depth)}
        return {adapter.place("block_out", board.layer): Part(board, board.layer)}

    def compose(self, questions: Sequence[str], *, form: Form) -> list[Talk]:
        """Each question, with examples and slots where one of the facts is asked for."""
        return [self.board.compose(question, form=form) for question in questions]

    @property
    def routed(self) -> bool:
        """Whether whole prompts have to be known: a fact is found by what stands behind slots."""
        return len(self) > 0

    def unrouted(self) -> AbstractContextManager[None]:
        """Nothing stands before it that could be taken away."""
        return nullcontext()

    def add(self, facts: Iterable[tuple[str, Fact, Tensors]]) -> None:
        """Add facts (id, fact, delta) to what the memory knows."""
        for id, fact, delta in facts:
            self.board.add(id, fact, delta)

    def remove(self, ids: Iterable[str]) -> None:
        """Take facts out again, exactly."""
        for id in list(ids):
            self.board.remove(id)

    def explain(self, text: str) -> Firing:
        """Which fact is injected when a user asks this, by which address, and what came second."""
        decision = (
            self.board.address.decide(text)
            if self.board.facts
            else Decision(None, "nothing is taught")
        )
        candidates = tuple(
            Candidate(self.board.facts[one.value][0], one.question, one.similarity, one.probability)
            for one in decision.ranking
        )
        best = candidates[0].probability if candidates else 0.0
        if decision.value is None:
            return Firing(False, None, None, best, decision.reason, candidates)
        id = self.board.facts[decision.value][0]
        taught = decision.reason.endswith("as it was taught")
        return Firing(True, id, "exact" if taught else "meaning", best, decision.reason, candidates)
