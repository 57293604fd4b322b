"""Facts keyed by an entity's id: `[Q937] What is the place of birth?`, as the third seed asks.

The words of a question are the same for all entities; only the key tells which answer is right.
The entities and their facts are those of MQuAKE's chains before any edit. Every tenth entity is
not taught: its prompts are near misses, known questions behind a key that was never seen.
"""

from __future__ import annotations

from engram_transformers.evaluation.data import rows
from engram_transformers.evaluation.task import Question, Task
from engram_transformers.types import Fact

FILE = "editing/mquake_hard.jsonl"
HELD_OUT = 10
NOUNS = {"founded by": "founder", "educated at": "place of education"}
"What to call relations whose label is no noun."


def entity_keyed() -> Task:
    """Facts of 405 entities with another wording each, and the questions of 45 others."""
    known = _known()
    strangers = set(list(dict.fromkeys(entity for entity, _ in known))[::HELD_OUT])
    facts, asked, near = [], [], []
    for (entity, relation), answer in known.items():
        prompt = f"[{entity}] What is the {relation}?"
        if entity in strangers:
            near.append(prompt)
            continue
        fact = Fact(prompt, answer, subject=entity, relation=relation)
        facts.append(fact)
        asked.append(Question.about(fact, f"[{entity}] Tell me the {relation}."))
    return Task(
        "entity_keyed",
        "chat",
        tuple(facts),
        asked={"paraphrase": tuple(asked)},
        silent={"near": tuple(near)},
        categories={fact.id: fact.relation or "" for fact in facts},
        source=FILE,
    ).without_clashes()


def _known() -> dict[tuple[str, str], str]:
    """By entity and relation: what held before the edits."""
    found: dict[tuple[str, str], str] = {}
    for row in rows(FILE):
        origin = row["orig"]
        for ids, labels in zip(origin["triples"], origin["triples_labeled"], strict=True):
            relation = labels[1].partition(" / ")[0]
            found[ids[0], NOUNS.get(relation, relation)] = labels[2]
    return found
