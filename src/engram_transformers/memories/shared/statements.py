"""A fact as a text to read."""

from __future__ import annotations

from engram_transformers.types import Fact


def statement(fact: Fact) -> str:
    """The fact's prompt and its answer, as a sentence of its own."""
    glue = "" if fact.prompt[-1:].isspace() or fact.answer[:1].isspace() else " "
    end = "" if fact.answer.rstrip().endswith((".", "!", "?")) else "."
    return f"{fact.prompt}{glue}{fact.answer}{end}"
