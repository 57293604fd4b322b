"""Invented passages, each with five questions in other words than its own."""

from __future__ import annotations

import re
from dataclasses import dataclass

from engram_transformers.errors import BadInput
from engram_transformers.evaluation.data import document
from engram_transformers.evaluation.tasks.fictional_knowledge import FILE
from engram_transformers.types import Fact

_SENTENCE = re.compile(r"(?<=[.!?])\s+")


@dataclass(frozen=True)
class Passage:
    """A text about things that were made up, and beginnings of sentences that it completes."""

    number: int
    text: str
    asked: tuple[tuple[str, str], ...]
    "(beginning of a sentence, how it goes on), worded otherwise than the text."
    facts: tuple[Fact, ...]
    "The text's own words for the same."

    @property
    def sentences(self) -> list[str]:
        return [one for one in _SENTENCE.split(self.text) if one]


def passages(count: int) -> list[Passage]:
    """The first passages of the set; `DataMissing` without it."""
    rows = document(FILE)
    if count > len(rows):
        raise BadInput(f"passages is {count}; the set has {len(rows)}")
    return [
        Passage(
            number,
            row["train_context"],
            tuple(zip(row["gen_input"], row["gen_target"], strict=True)),
            tuple(Fact(a, b) for a, b in zip(row["mem_input"], row["mem_target"], strict=True)),
        )
        for number, row in enumerate(rows[:count])
    ]
