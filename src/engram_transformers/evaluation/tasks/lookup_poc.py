"""The exact-match sets of the third seed, split as they were committed.

The answers of its chat messages begin with a space, which the host's own form of a prompt
decides about: the values without it are taught. Half of each test file was never taught; that
half is silent, and the other half is the group `seen`, for comparison with the seed's numbers.
"""

from __future__ import annotations

from engram_transformers.evaluation.data import rows
from engram_transformers.evaluation.task import Question, Task
from engram_transformers.types import Fact


def lookup_poc_500() -> Task:
    """400 taught keys, 50 of which were tested, and 50 that were not taught."""
    return _committed("500")


def lookup_poc_5k() -> Task:
    """4,000 taught keys, 500 of which were tested, and 500 that were not taught."""
    return _committed("5k")


def _committed(size: str) -> Task:
    taught = {row["key"]: row for row in rows(f"poc/{size}_train.jsonl")}
    tested = dict.fromkeys(row["key"] for row in rows(f"poc/{size}_test.jsonl"))
    facts = {key: Fact(key, row["value"].strip()) for key, row in taught.items()}
    return Task(
        f"lookup_poc_{size}",
        "chat",
        tuple(facts.values()),
        asked={"seen": tuple(Question.about(facts[key], key) for key in tested if key in facts)},
        silent={"unseen": tuple(key for key in tested if key not in facts)},
        categories={fact.id: taught[key]["category"] for key, fact in facts.items()},
        source=f"poc/{size}_train.jsonl",
    ).without_clashes()
