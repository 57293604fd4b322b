"""The facts and prompts that the demonstration is made of."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import resources

from engram_transformers.types import Fact

_NEAR_MISSES = "# near misses"


@dataclass(frozen=True)
class DemoFact:
    """A fact, its category, and wordings of its question that are asked but never taught."""

    fact: Fact
    category: str
    held_out: tuple[str, ...]


@dataclass(frozen=True)
class DemoData:
    """All of it."""

    facts: tuple[DemoFact, ...]
    unrelated: tuple[str, ...]
    "Prompts that no fact answers."
    near_misses: tuple[str, ...]
    "The same, but they share words or a relation with a fact."

    @property
    def prompts(self) -> int:
        """How many prompts no fact answers, near misses included."""
        return len(self.unrelated) + len(self.near_misses)


def demo_data(limit: int | None = None) -> DemoData:
    """The data that the package carries; of the facts, at most `limit`, from all categories."""
    facts = [_fact(line) for line in _read("facts.jsonl").splitlines()]
    if limit is not None and limit < len(facts):
        facts = [facts[i * len(facts) // limit] for i in range(limit)]
    unrelated, _, near = _read("unrelated.txt").partition(f"{_NEAR_MISSES}\n")
    return DemoData(tuple(facts), tuple(unrelated.splitlines()), tuple(near.splitlines()))


def _read(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _fact(line: str) -> DemoFact:
    row = json.loads(line)
    fact = Fact(row["prompt"], row["answer"], (), row["subject"], row["relation"])
    return DemoFact(fact, row["category"], tuple(row["held_out"]))
