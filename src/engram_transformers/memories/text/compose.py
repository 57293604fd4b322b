"""How facts stand in a prompt: as context before a question, or as questions answered before.

The wordings are those of several tried ones with which SmolLM2-135M-Instruct answered most
questions right (benchmarks/LOG.md).
"""

from __future__ import annotations

from collections.abc import Sequence

from engram_transformers.memories.shared.statements import statement
from engram_transformers.models.tokens import Form, Talk
from engram_transformers.types import Fact


def with_context(question: str, facts: Sequence[Fact], *, form: Form) -> Talk:
    """The question behind the facts that are to answer it; the best one stands last."""
    if not facts:
        return [("user", question)]
    statements = [statement(fact) for fact in reversed(facts)]
    if form == "plain":
        return [("user", "\n".join([*statements, question]))]
    context = f"Context: {' '.join(statements)}"
    return [("user", "\n\n".join([TASK, context, f"Question: {question}\nAnswer:"]))]


def with_examples(question: str, facts: Sequence[Fact], *, form: Form) -> Talk:
    """The question behind others with their answers; the nearest one stands last."""
    if form == "plain":
        return with_context(question, facts, form=form)
    turns = [
        turn
        for fact in reversed(facts)
        for turn in (("user", fact.prompt), ("assistant", fact.answer))
    ]
    return [*turns, ("user", question)]


TASK = "Use the context to answer the question with a few words only."
