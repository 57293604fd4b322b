"""What an evaluation task is: facts to teach, questions about them, prompts for silence.

A task hands out cases and knows nothing of memories. One file in `tasks/` makes one task.
"""

from __future__ import annotations

import difflib
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from itertools import chain
from typing import TypeVar

from engram_transformers.errors import UnknownTask
from engram_transformers.models.tokens import Form
from engram_transformers.types import Fact

T = TypeVar("T")

TASKS: dict[str, str] = {
    "zsre": "zsre",
    "wikibigedit": "wikibigedit",
    "counterfact": "counterfact",
    "counterfact_full": "counterfact",
    "mquake_hard": "mquake",
    "wikidata_cloze": "wikidata_cloze",
    "entity_questions": "entity_questions",
    "lookup": "lookup",
    "lookup_poc_500": "lookup_poc",
    "lookup_poc_5k": "lookup_poc",
    "ports": "ports",
    "elements": "elements",
    "icd10": "icd10",
    "airports": "airports",
    "acronyms": "acronyms",
    "stack_faq": "stack_faq",
    "patterns": "patterns",
    "entity_keyed": "entity_keyed",
    "user_preferences": "user_preferences",
    "fictional_knowledge": "fictional_knowledge",
    "kv_retrieval": "kv_retrieval",
}
"Tasks by name: the module in `tasks/` that makes each, imported when it is asked for."


@dataclass(frozen=True)
class Question:
    """A question about a taught fact, with every answer to it that is right."""

    text: str
    answers: tuple[str, ...]
    fact: str
    "Id of the fact that it asks for."
    needs: tuple[str, ...] = ()
    "Ids of further facts that its answer depends on, all of them taught."

    @classmethod
    def about(cls, fact: Fact, text: str, also: Sequence[str] = ()) -> Question:
        """A question with a fact's answer; `also` are further answers that are right."""
        return cls(text, tuple(dict.fromkeys((fact.answer, *also))), fact.id)


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
    beside: Mapping[str, str] = field(default_factory=dict)
    "By silent prompt, the id of the fact that it is a near miss of, where it is one of a fact."
    source: str = ""
    "The data files that it was made from, relative to the data folder."

    def cut(self, n: int | None, *, seed: int = 0, silent: int | None = None) -> Task:
        """The task with n facts drawn with a seed, in the order of the set, and their questions.

        A fact comes with those that its questions need besides, so that there may be a few more
        than n. Of each silent group as many prompts are drawn as there are facts, or `silent`;
        the near misses of facts that are not taught are left out.
        """
        count = n if silent is None else silent
        kept = self._drawn(n, seed=seed)
        near = kept | {""}
        return replace(
            self,
            facts=tuple(fact for fact in self.facts if fact.id in kept),
            asked={g: tuple(q for q in qs if _depends(q) <= kept) for g, qs in self.asked.items()},
            silent={
                g: tuple(drawn([p for p in ps if self.beside.get(p, "") in near], count, seed=seed))
                for g, ps in self.silent.items()
            },
        )

    def _drawn(self, n: int | None, *, seed: int) -> set[str]:
        """Ids of n drawn facts that stand, with those that their questions need besides."""
        if n is None or n >= len(self.facts):
            return {fact.id for fact in self.facts}
        along = self._needed()
        order = random.Random(seed).sample(self.standing, len(self.standing))
        kept: set[str] = set()
        for fact in order:
            if len(kept) >= n:
                break
            kept |= {fact.id, *along.get(fact.id, ())}
        return kept

    def _needed(self) -> dict[str, set[str]]:
        """For each fact, those without which some question about it has another answer."""
        along: dict[str, set[str]] = defaultdict(set)
        for question in chain.from_iterable(self.asked.values()):
            along[question.fact] |= _depends(question)
        return along

    @property
    def standing(self) -> tuple[Fact, ...]:
        """The facts that hold once all are taught in order: the last of each prompt."""
        return tuple({fact.prompt: fact for fact in self.facts}.values())

    @property
    def taught(self) -> tuple[Question, ...]:
        """The facts' own prompts as questions.

        A prompt that is taught twice, the later answer replacing the earlier, is not among them:
        it belongs in a group `conflicting`, so that what was never in doubt is scored apart.
        """
        times = Counter(fact.prompt for fact in self.facts)
        return tuple(
            Question.about(fact, fact.prompt, self.accepted.get(fact.id, ()))
            for fact in self.facts
            if times[fact.prompt] == 1
        )

    def without_clashes(self) -> Task:
        """The task without what would be scored wrongly, however well a memory works.

        Out go facts with nothing to teach or with a prompt that differs from an earlier one's in
        case or space only; questions that are another fact's prompt, or that are asked for two
        facts; prompts for silence that are taught or asked.
        """
        facts = _teachable(self.facts)
        taught, meant = _facts_of(facts.values()), _facts_of(chain(*self.asked.values()))

        def clear(question: Question) -> bool:
            text, own = _same(question.text), {question.fact}
            return own <= taught.get(text, own) and meant[text] == own and known(question)

        def known(question: Question) -> bool:
            return _depends(question) <= facts.keys()

        def quiet(text: str) -> bool:
            return _same(text) not in taught and _same(text) not in meant

        return replace(
            self,
            facts=tuple(facts.values()),
            asked={g: tuple(filter(clear, questions)) for g, questions in self.asked.items()},
            silent={g: tuple(filter(quiet, dict.fromkeys(ps))) for g, ps in self.silent.items()},
            categories={key: name for key, name in self.categories.items() if key in facts},
            accepted={key: answers for key, answers in self.accepted.items() if key in facts},
        )


def _teachable(facts: Iterable[Fact]) -> dict[str, Fact]:
    """By id, the facts that say something, each prompt in the spelling that it has first."""
    spelt: dict[str, str] = {}
    return {
        fact.id: fact
        for fact in facts
        if fact.prompt.strip()
        and fact.answer.strip()
        and spelt.setdefault(_same(fact.prompt), fact.prompt) == fact.prompt
    }


def _facts_of(items: Iterable[Fact | Question]) -> dict[str, set[str]]:
    """Ids of the facts that a text asks for, by that text in any spelling."""
    found: dict[str, set[str]] = defaultdict(set)
    for item in items:
        if isinstance(item, Fact):
            found[_same(item.prompt)].add(item.id)
        else:
            found[_same(item.text)].add(item.fact)
    return found


def _depends(question: Question) -> set[str]:
    return {question.fact, *question.needs}


def _same(text: str) -> str:
    return " ".join(text.casefold().split())


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
