"""ZsRE: questions about a subject, each with a made-up answer to teach.

Several rows of a subject contradict one another; a later edit replaces an earlier one, so the
last row of each is taught. Some answers begin with a space, which is no part of them. Silent
prompts are unrelated questions of Natural Questions, an easy case.
"""

from __future__ import annotations

from engram_transformers.evaluation.data import rows
from engram_transformers.evaluation.task import Question, Task
from engram_transformers.types import Fact

FILE = "editing/zsre_3k_first2000.jsonl"


def zsre() -> Task:
    """1,781 questions, a rephrasing of each, and unrelated questions."""
    last = {row["subject"]: row for row in rows(FILE)}
    facts = [Fact(row["src"], row["alt"].strip(), subject=subject) for subject, row in last.items()]
    pairs = list(zip(facts, last.values(), strict=True))
    return Task(
        "zsre",
        "chat",
        tuple(facts),
        asked={"paraphrase": tuple(Question.about(f, row["rephrase"]) for f, row in pairs)},
        silent={"unrelated": tuple(row["loc"] for _, row in pairs)},
        source=FILE,
    ).without_clashes()
