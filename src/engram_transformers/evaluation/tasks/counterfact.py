"""CounterFact: beginnings of sentences with a false end to teach.

Of rows with the same subject and relation the first is taught, so that no two contradict. The
paraphrases behind an unrelated sentence are the group `prefixed`, apart from the plain ones.

Silent groups are `near`, the same relation of another subject; `same_subject`, another relation
of a taught one; and `attribute`, other subjects for which the false end is true. Near misses
and attributes that name any taught subject are left out. That is decided over the whole set, so
it holds for every part of it too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from engram_transformers.evaluation.data import Row, rows
from engram_transformers.evaluation.task import Question, Task
from engram_transformers.types import Fact

FILE = "editing/counterfact.jsonl"
FULL = "editing/counterfact_full.jsonl"


def counterfact() -> Task:
    """10,012 edits with two or three paraphrases and five neighbours each."""
    first: dict[tuple[str, str], Row] = {}
    for row in rows(FILE):
        first.setdefault((row["subject"], row["relation_id"]), row)
    pairs = [(_fact(row), row) for row in first.values()]
    near = {n["prompt"]: fact.id for fact, row in pairs for n in row["neighborhood"]}
    near |= {row["locality_prompt"]: fact.id for fact, row in pairs}
    same = {row["generation_prompt"]: fact.id for fact, row in pairs if row["generation_prompt"]}
    names_subject = naming(fact.subject or "" for fact, _ in pairs)
    return Task(
        "counterfact",
        "plain",
        tuple(fact for fact, _ in pairs),
        asked={
            "paraphrase": tuple(
                Question.about(f, t) for f, row in pairs for t in row["paraphrases"]
            ),
            "prefixed": tuple(
                Question.about(f, row["rome_paraphrase"])
                for f, row in pairs
                if row["rome_paraphrase"]
            ),
        },
        silent={
            "near": tuple(text for text in near if not names_subject(text)),
            "same_subject": tuple(same),
        },
        beside={**near, **same},
        source=FILE,
    ).without_clashes()


def counterfact_full() -> Task:
    """300 edits with all that ROME asks about them."""
    found = rows(FULL)
    edits = [row["requested_rewrite"] for row in found]
    facts = [_edit(edit) for edit in edits]
    names_subject = naming(edit["subject"] for edit in edits)
    pairs = list(zip(facts, found, strict=True))
    return Task(
        "counterfact_full",
        "plain",
        tuple(facts),
        asked={
            # Each stands behind an unrelated sentence.
            "prefixed": tuple(
                Question.about(f, t) for f, r in pairs for t in r["paraphrase_prompts"]
            )
        },
        silent={
            "near": _others(found, "neighborhood_prompts", names_subject),
            "attribute": _others(found, "attribute_prompts", names_subject),
            "same_subject": tuple(text for row in found for text in row["generation_prompts"]),
        },
        source=FULL,
    ).without_clashes()


def naming(subjects: Iterable[str]) -> Callable[[str], bool]:
    """Whether a text names one of the subjects, as a run of whole words in any case."""
    known = {tuple(_words(subject)) for subject in subjects} - {()}
    longest = max(map(len, known), default=0)

    def names(text: str) -> bool:
        words = _words(text)
        return any(
            tuple(words[start : start + size]) in known
            for start in range(len(words))
            for size in range(1, longest + 1)
        )

    return names


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())


def _fact(row: Row) -> Fact:
    return Fact(
        row["prompt"], row["target_new"], subject=row["subject"], relation=row["relation_id"]
    )


def _edit(edit: Row) -> Fact:
    subject, answer = edit["subject"], edit["target_new"]["str"]
    return Fact(
        edit["prompt"].format(subject), answer, subject=subject, relation=edit["relation_id"]
    )


def _others(found: list[Row], column: str, names_subject: Callable[[str], bool]) -> tuple[str, ...]:
    return tuple(text for row in found for text in row[column] if not names_subject(text))
