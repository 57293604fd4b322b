"""A fact as a text to read."""

from __future__ import annotations

from engram_transformers.types import Fact


def told(fact: Fact) -> str:
    """The fact's prompt and its answer, with nothing behind it that could be taken for a part."""
    glue = "" if fact.prompt[-1:].isspace() or fact.answer[:1].isspace() else " "
    return f"{fact.prompt}{glue}{fact.answer}"


def statement(fact: Fact) -> str:
    """The same as a sentence that others may follow."""
    end = "" if fact.answer.rstrip().endswith((".", "!", "?")) else "."
    return f"{told(fact)}{end}"
