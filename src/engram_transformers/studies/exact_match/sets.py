"""What is taught and asked: the keys of the third seed, and its patterns."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from engram_transformers.evaluation.task import Question, load_task
from engram_transformers.evaluation.tasks.lookup import lookup
from engram_transformers.models.tokens import Form
from engram_transformers.studies.exact_match.options import REAL, Options
from engram_transformers.types import Fact


@dataclass(frozen=True)
class Taught:
    """Facts to teach, and what is asked besides."""

    facts: Sequence[Fact]
    categories: Mapping[str, str]
    "By id of the fact."
    others: Sequence[str]
    "Prompts of the same kind that are not taught."
    besides: Mapping[str, Sequence[Question]] = field(default_factory=dict)
    "Questions that are not taught and have a right answer, by group."
    form: Form | None = None
    "How all of it is asked; None: as the host is usually."


def taught(name: str, options: Options, *, seed: int) -> Taught:
    """The set of this name."""
    return _patterns() if name == "patterns" else _lookup(options, seed=seed)


def _lookup(options: Options, *, seed: int) -> Taught:
    """Keys in an order of the seed's, real ones first."""
    task = lookup(max(1, options.facts - REAL))
    real = [fact for fact in task.standing if fact.relation != "SYN"]
    rest = [fact for fact in task.standing if fact.relation == "SYN"]
    random.Random(seed).shuffle(rest)
    return Taught([*real, *rest][: options.facts], task.categories, task.silent["unseen"])


def _patterns() -> Taught:
    task = load_task("patterns")
    held_out, prefixed = task.asked["held_out"], task.asked["paraphrase"]
    return Taught(
        task.facts,
        task.categories,
        others=[question.text for question in held_out],
        besides={"held out": held_out, "other prefixes": prefixed},
        form="plain",
    )
