"""What an evaluation task is: facts to teach, questions about them, prompts for silence.

A task hands out cases and knows nothing of memories. One file in `tasks/` makes one task.
"""

from __future__ import annotations

import difflib
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from typing import TypeVar

from engram_transformers.errors import UnknownTask
from engram_transformers.models.tokens import Form
from engram_transformers.types import Fact

T = TypeVar("T")

TASKS: dict[str, str] = {}
"Tasks by name: the module in `tasks/` that makes each, imported when it is asked for."


@dataclass(frozen=True)
class Question:
    """A question about a taught fact, with every answer to it that is right."""

    text: str
    answers: tuple[str, ...]
    fact: str
    "Id of the fact that it asks for."
    before: str = ""
    "What the host reads before it: distraction, or nothing."


@dataclass(frozen=True)
class Task:
    """Facts, questions by group, and prompts that none of the facts answers, by group.

    The facts' own prompts are the group `taught`; it is not listed. The group `paraphrase` is
    scored as `gen_gen`, any other group g as `gen_g`; silent prompts `unrelated` are scored as
    `loc_*`, those of any other group as `hard_*`, the group `near` as `hard_loc`.
    """

    name: str
    form: Form
    "How prompts are asked: questions through the chat template, beginnings as plain text."
    facts: tuple[Fact, ...]
    asked: Mapping[str, tuple[Question, ...]] = field(default_factory=dict)
    silent: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    categories: Mapping[str, str] = field(default_factory=dict)
    "Category by id of the fact, where a task has categories that are reported apart."
    accepted: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    "Further right answers by id of the fact, besides the one that is taught."
    source: str = ""
    "The data files that it was made from, relative to the data folder."

    def cut(self, n: int | None, *, seed: int = 0, silent: int | None = None) -> Task:
        """The task with n facts drawn with a seed, in the order of the set, and their questions.

        Of each silent group as many prompts are drawn as there are facts, or `silent`.
        """
        facts = drawn(self.facts, n, seed=seed)
        kept = {fact.id for fact in facts}
        return replace(
            self,
            facts=tuple(facts),
            asked={g: tuple(q for q in qs if q.fact in kept) for g, qs in self.asked.items()},
            silent={
                g: tuple(drawn(prompts, silent or n, seed=seed))
                for g, prompts in self.silent.items()
            },
        )

    @property
    def taught(self) -> tuple[Question, ...]:
        """The facts' own prompts as questions."""
        return tuple(
            Question(fact.prompt, (fact.answer, *self.accepted.get(fact.id, ())), fact.id)
            for fact in self.facts
        )


def load_task(name: str) -> Task:
    """The whole task of this name; `UnknownTask` names the nearest that exist.

    Raises:
        DataMissing: the task's data is not on this machine; says where to get it.
    """
    if name not in TASKS:
        near = difflib.get_close_matches(name, TASKS, n=2) or sorted(TASKS)
        raise UnknownTask(f"no task is called {name!r}; try {' or '.join(near)}")
    module = import_module(f"engram_transformers.evaluation.tasks.{TASKS[name]}")
    make: Callable[[], Task] = getattr(module, name)
    return make()


def drawn(items: Sequence[T], count: int | None, *, seed: int) -> list[T]:
    """So many of the items, the same for the same seed, in their order; all without a count."""
    if count is None or count >= len(items):
        return list(items)
    return [items[i] for i in sorted(random.Random(seed).sample(range(len(items)), count))]
