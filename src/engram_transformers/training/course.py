"""One act of teaching a trained memory: plan, train on everything, check, store, as one write."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from engram_transformers.errors import FactRefused
from engram_transformers.evaluation.check import Verdict
from engram_transformers.memory import Trainable
from engram_transformers.models.adapter import Adapter
from engram_transformers.models.tokens import HostTokens
from engram_transformers.stores.directory import Directory
from engram_transformers.training.fit import copied, fit
from engram_transformers.training.lesson import uninterrupted
from engram_transformers.training.plan import Book, check_fact
from engram_transformers.types import Fact, OnConflict, Receipt, Refusal, Replacement


@dataclass
class Course:
    """Teaches facts to an open memory whose tensors they all share, and keeps the receipt.

    It is trained on all that it knows and all that is new, from the tensors that it has.
    """

    memory: Trainable
    adapter: Adapter
    directory: Directory
    book: Book
    tokens: HostTokens
    longest: int | None
    "Tokens that the host reads at most."
    note: Mapping[str, Any]
    "Who teaches, why, and from what source: for the ledger."
    on_conflict: OnConflict = "replace"
    check: Callable[[Sequence[Fact]], list[Verdict]] | None = None
    "Asks the host for facts that the memory holds; None stores them unchecked."
    dry_run: bool = False
    progress: Callable[[int], None] = lambda done: None

    _plan: Book = field(init=False)
    "What the memory is to know: stored facts that stay, and new ones."
    _new: dict[str, tuple[str, ...]] = field(default_factory=dict)
    "New facts by id, with the stored facts that give way to each."
    _taught: list[Fact] = field(default_factory=list)
    _known: list[str] = field(default_factory=list)
    _kept: list[Refusal] = field(default_factory=list)
    _replaced: list[Replacement] = field(default_factory=list)
    _refused: list[Refusal] = field(default_factory=list)
    _bytes: int = 0
    _write: int | None = None
    _started: float = field(default_factory=time.perf_counter)

    def __post_init__(self) -> None:
        self._plan = Book(self.book.facts.values())

    def take(self, fact: Fact) -> None:
        """Settle what to do about one fact; nothing is trained yet."""
        try:
            check_fact(fact, self.tokens, longest=self.longest)
        except FactRefused as error:
            self._pass_over(self._refused, Refusal(fact, str(error)))
            return
        step = self._plan.settle(fact, on_conflict=self.on_conflict)
        if step.act == "write":
            self._plan_for(step.fact, step.rivals)
        elif step.act == "known":
            self._pass_over(self._known, fact.id)
        else:
            heap = self._kept if step.act == "keep" else self._refused
            self._pass_over(heap, Refusal(fact, step.reason))

    def flush(self) -> None:
        """Train, check and store what was taken, as one write."""
        new = [self._plan.facts[id] for id in self._new]
        if self.dry_run:
            self._enter(new)
        elif new:
            self._teach(new)

    def receipt(self) -> Receipt:
        """What was done so far."""
        return Receipt(
            taught=tuple(fact.id for fact in self._taught),
            known=tuple(self._known),
            kept=tuple(self._kept),
            replaced=tuple(self._replaced),
            refused=tuple(self._refused),
            checked=self.check is not None,
            seconds=time.perf_counter() - self._started,
            bytes=self._bytes,
            write=self._write,
        )

    def _pass_over(self, heap: list[Any], one: Any) -> None:
        heap.append(one)
        self.progress(1)

    def _plan_for(self, fact: Fact, rivals: Sequence[str]) -> None:
        gone: list[str] = []
        for id in rivals:
            self._plan.remove(id)
            # A new fact that gives way itself hands on what gave way to it.
            gone += [id] if id not in self._new else []
            gone += self._new.pop(id, ())
        self._plan.add(fact)
        self._new[fact.id] = tuple(dict.fromkeys(gone))

    def _teach(self, new: Sequence[Fact]) -> None:
        before = copied(self.memory)
        try:
            self._train(len(new))
            good = self._checked(new)
            # What is on disk and what the receipt says must not come apart.
            with uninterrupted():
                self._store(good)
                self._enter(good)
        except BaseException:
            if not self._taught:
                self.memory.load_state_dict(before)
            raise
        if not good:
            self.memory.load_state_dict(before)

    def _train(self, count: int) -> None:
        told = 0

        def tell(done: int, steps: int) -> None:
            nonlocal told
            more = count * done // steps - told
            told += more
            self.progress(more)

        facts = list(self._plan.facts.values())
        fit(self.adapter, self.tokens, self.memory, facts, progress=tell)
        self.progress(count - told)

    def _checked(self, new: Sequence[Fact]) -> list[Fact]:
        """The facts that hold; the others are refused with what the host says instead."""
        if self.check is None:
            return list(new)
        good = []
        for fact, verdict in zip(new, self.check(new), strict=True):
            if verdict.holds:
                good.append(fact)
            else:
                said = self.tokens.decode_answer(verdict.choices)
                self._refused.append(Refusal(fact, f"the check failed: the host says {said!r}"))
        return good

    def _store(self, good: Sequence[Fact]) -> None:
        if not good:
            return
        tensors: dict[str, Tensor] = {n: t.cpu() for n, t in self.memory.state_dict().items()}
        seconds = round(time.perf_counter() - self._started, 3)
        self._write = self.directory.commit(
            "teach",
            add=[(fact, {}) for fact in good],
            remove=list(dict.fromkeys(old for fact in good for old in self._new[fact.id])),
            receipt={"checked": self.check is not None, "seconds": seconds},
            tensors=tensors,
            **self.note,
        )
        self._bytes = sum(tensor.nbytes for tensor in tensors.values())

    def _enter(self, facts: Sequence[Fact]) -> None:
        """Enter stored facts in the book and in the receipt."""
        for fact in facts:
            for old in self._new[fact.id]:
                if old in self.book.facts:
                    self.book.remove(old)
                self._replaced.append(Replacement(old, fact.id))
            self.book.add(fact)
            self._taught.append(fact)
