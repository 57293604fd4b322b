"""StackFAQ: questions of Stack Exchange, answers of a paragraph, and how people rephrased them.

The first answer is taught. One row holds it as bare text instead of a list. Silent prompts are
queries to an assistant that none of the answers serves (CLINC150, out of scope).
"""

from __future__ import annotations

import ast
from typing import Any

from engram_transformers.evaluation.data import rows
from engram_transformers.evaluation.task import Question, Task
from engram_transformers.types import Fact

FILE = "support/stack_faq.jsonl"
OUTSIDE = "support/clinc_out_of_scope_val.jsonl"


def stack_faq() -> Task:
    """125 questions, five human rephrasings of each, and 200 queries of another kind."""
    found = rows(FILE)
    facts = [Fact(row["question"], _first(row["answers"])) for row in found]
    pairs = zip(facts, found, strict=True)
    return Task(
        "stack_faq",
        "chat",
        tuple(facts),
        asked={
            "paraphrase": tuple(
                Question.about(f, t) for f, row in pairs for t in row["paraphrases"]
            )
        },
        silent={"unrelated": tuple(row["text"] for row in rows(OUTSIDE))},
        source=FILE,
    ).without_clashes()


def _first(answers: Any) -> str:
    """The first answer; a row can hold its list as text that reads as one."""
    if isinstance(answers, str):
        try:
            answers = ast.literal_eval(answers)
        except (SyntaxError, ValueError):
            return str(answers).strip()
    return str(answers[0]).strip()
