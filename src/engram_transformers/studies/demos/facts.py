"""Keys of the third seed's exact-match set, and questions in words about them."""

from __future__ import annotations

from collections.abc import Sequence

from engram_transformers.evaluation.task import Question, Task, drawn
from engram_transformers.evaluation.tasks.lookup import lookup
from engram_transformers.types import Fact

RANDOM = "SYN"
CAPITALS = "CAPITAL"


def keys_of(demo: str, count: int, *, seed: int) -> tuple[Task, list[Fact]]:
    """The set, and so many of its keys with random values, or with real ones."""
    task = lookup(count)
    random = demo == "random keys"
    found = [fact for fact in task.standing if (fact.relation == RANDOM) == random]
    return task, drawn(found, count, seed=seed)


def in_words(task: Task, facts: Sequence[Fact]) -> list[Question]:
    """What the keys ask, in a sentence; none of it is taught."""
    ids = {fact.id for fact in facts}
    return [question for question in task.asked["paraphrase"] if question.fact in ids]


def in_the_text(fact: Fact) -> Question:
    """The question with its answer before it, as text: what a host can do that only reads."""
    return Question.about(fact, f"{fact.prompt} = {fact.answer}\n{fact.prompt}")


def capitals(task: Task) -> list[Question]:
    """Questions for capitals, in words."""
    return in_words(task, [fact for fact in task.standing if fact.relation == CAPITALS])
