"""ICD-10-CM: what a diagnosis code means. Large: for scale, and for codes that look alike.

Asked from the code, because several codes share a description. Near misses are codes that do not
exist, a last character away from one that does.
"""

from __future__ import annotations

from engram_transformers.evaluation.data import table
from engram_transformers.evaluation.task import Question, Task
from engram_transformers.types import Fact

FILE = "lookup/icd10cm_2026.csv"
EVERY = 50


def icd10() -> Task:
    """46,881 codes with another wording each, and codes that do not exist."""
    listed = {row["code"]: row["description"] for row in table(FILE)}
    facts = {code: Fact(_question(code), meaning) for code, meaning in listed.items()}
    missing = [_missing(code, listed) for code in list(listed)[::EVERY]]
    return Task(
        "icd10",
        "chat",
        tuple(facts.values()),
        asked={
            "paraphrase": tuple(
                Question.about(fact, f"Which diagnosis has the ICD-10-CM code {code}?")
                for code, fact in facts.items()
            )
        },
        silent={"near": tuple(_question(code) for code in missing if code)},
        categories={fact.id: code[0] for code, fact in facts.items()},
        source=FILE,
    ).without_clashes()


def _question(code: str) -> str:
    return f"What does ICD-10-CM {code} stand for?"


def _missing(code: str, listed: dict[str, str]) -> str | None:
    """A code that differs in its last character and means nothing; None if all ten do."""
    others = (code[:-1] + digit for digit in "9876543210")
    return next((other for other in others if other not in listed), None)
