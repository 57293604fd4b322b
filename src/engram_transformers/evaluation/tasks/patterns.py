"""The pattern set of the third seed: beginnings of code, fixes, questions and formats, completed.

The seed taught four fifths of its prompts, prefixed in several ways, and tested on the bare
patterns, nearly all of which it had taught. Here one pattern of each category that has at least
three is never taught, in no form: the group `held_out`, which asks for what others of its category
may have shown. The seed's prefixes are not taught either: they are the paraphrases.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby

import yaml

from engram_transformers.errors import BadInput
from engram_transformers.evaluation.data import data_file
from engram_transformers.evaluation.task import Question, Task
from engram_transformers.types import Fact

FILES = {
    "code idioms": "poc/patterns_code_idioms.yaml",
    "error fixes": "poc/patterns_error_fixes.yaml",
    "facts": "poc/patterns_facts.yaml",
    "formats": "poc/patterns_formats.yaml",
}
PREFIXES = {
    "code idioms": ("Complete: ", "Continue: ", "Finish this: ", "What comes next: "),
    "facts": ("Tell me: ", "Answer: "),
}
"What the seed put before patterns; before fixes and formats it put nothing."
ENOUGH = 3
"Patterns that a category has at least, if one of them is held out."


def patterns() -> Task:
    """131 patterns in four kinds: 107 to teach, 24 that are held out, and other prefixes."""
    kinds = {fact: kind for kind, file in FILES.items() for fact in _read(file)}
    siblings = _held_out(kinds)
    taught = [fact for fact in kinds if fact not in siblings]
    return Task(
        "patterns",
        "plain",
        tuple(taught),
        asked={
            "paraphrase": tuple(
                Question.about(fact, f"{prefix}{fact.prompt}")
                for fact in taught
                for prefix in PREFIXES.get(kinds[fact], ())
            ),
            # A question belongs to a taught fact: here to the first of the same category.
            "held_out": tuple(
                Question(fact.prompt, (fact.answer,), sibling.id)
                for fact, sibling in siblings.items()
            ),
        },
        categories={fact.id: kinds[fact] for fact in taught},
        source=", ".join(FILES.values()),
    ).without_clashes()


def _read(file: str) -> Iterator[Fact]:
    """Patterns of a file; space around an answer depends on its prompt, and is left to the host."""
    try:
        examples = yaml.safe_load(data_file(file).read_text(encoding="utf-8"))["examples"]
        for one in examples:
            yield Fact(one["input"], one["output"].strip(), relation=one["category"])
    except (yaml.YAMLError, TypeError, KeyError, AttributeError) as error:
        raise BadInput(
            f"{file} holds no patterns ({error}); each has input, output and category"
        ) from error


def _held_out(facts: Iterable[Fact]) -> Mapping[Fact, Fact]:
    """Patterns that are not taught, drawn by their id, each with a taught one of its category."""
    found = {}
    for _, same in groupby(sorted(facts, key=_category), key=_category):
        own = list(same)
        if len(own) >= ENOUGH:
            chosen = min(own, key=lambda fact: fact.id)
            found[chosen] = next(fact for fact in own if fact is not chosen)
    return found


def _category(fact: Fact) -> str:
    return fact.relation or ""
