"""WikiBigEdit: changes of Wikidata as questions.

Its locality prompts are near misses: the same relation, another subject. Those that are taught
as a prompt of another row are left out, and so are the few rephrasings that two rows share. The
last row of each subject is taught.
"""

from __future__ import annotations

from engram_transformers.evaluation.data import rows
from engram_transformers.evaluation.task import Question, Task
from engram_transformers.types import Fact

FILE = "editing/wikibigedit_3k_first2000.jsonl"


def wikibigedit() -> Task:
    """1,978 questions, a rephrasing of each, and near misses."""
    last = {row["subject"]: row for row in rows(FILE)}
    facts = [Fact(row["prompt"], row["target_new"], subject=s) for s, row in last.items()]
    pairs = list(zip(facts, last.values(), strict=True))
    return Task(
        "wikibigedit",
        "chat",
        tuple(facts),
        asked={"paraphrase": tuple(Question.about(f, row["rephrase_prompt"]) for f, row in pairs)},
        silent={"near": tuple(row["locality_prompt"] for _, row in pairs)},
        beside={row["locality_prompt"]: fact.id for fact, row in pairs},
        source=FILE,
    ).without_clashes()
