"""Wikidata as beginnings of sentences: many facts, for scale and capacity.

Where one beginning comes with several ends the last is taught and the others are accepted. Every
twentieth beginning is not taught: it is a near miss, since the others are of the same relations.
"""

from __future__ import annotations

from collections import defaultdict

from engram_transformers.evaluation.data import rows
from engram_transformers.evaluation.task import Task
from engram_transformers.types import Fact

FILE = "facts/wikidata_cloze.jsonl"
HELD_OUT = 20


def wikidata_cloze() -> Task:
    """19,303 facts and 1,016 near misses."""
    ends: dict[str, list[str]] = defaultdict(list)
    for row in rows(FILE):
        ends[row["context"]].append(row["continuation"])
    taught = [prompt for i, prompt in enumerate(ends) if i % HELD_OUT]
    facts = {prompt: Fact(prompt, ends[prompt][-1]) for prompt in taught}
    several = [fact for prompt, fact in facts.items() if len(ends[prompt]) > 1]
    return Task(
        "wikidata_cloze",
        "plain",
        tuple(facts.values()),
        silent={"near": tuple(list(ends)[::HELD_OUT])},
        accepted={fact.id: tuple(ends[fact.prompt][:-1]) for fact in several},
        source=FILE,
    ).without_clashes()
