"""EntityQuestions: questions of 24 relations about entities that are seldom written about.

A question with several answers is taught the first and accepts the others. Two relations ask
"Where is [X] located?": the answers to one question are merged, under the first relation. Three
relations have a second template in the data, which makes their paraphrases. Every twentieth
question is not taught: it is a near miss.
"""

from __future__ import annotations

import re

from engram_transformers.evaluation.data import document, rows
from engram_transformers.evaluation.task import Question, Task
from engram_transformers.types import Fact

FILE = "facts/entity_questions_dev.jsonl"
TEMPLATES = "facts/entity_questions_templates.json"
HELD_OUT = 20


def entity_questions() -> Task:
    """20,931 questions by relation, and 1,102 near misses."""
    templates: dict[str, str] = document(TEMPLATES)
    relations, answers = _merged()
    taught = [text for i, text in enumerate(relations) if i % HELD_OUT]
    facts = [_fact(text, relations[text], answers[text][0], templates) for text in taught]
    also = {fact.id: answers[fact.prompt][1:] for fact in facts if answers[fact.prompt][1:]}
    return Task(
        "entity_questions",
        "chat",
        tuple(facts),
        asked={
            "paraphrase": tuple(
                Question.about(
                    fact,
                    templates[f"{fact.relation}_similar"].replace("[X]", fact.subject or ""),
                    also.get(fact.id, ()),
                )
                for fact in facts
                if f"{fact.relation}_similar" in templates
            )
        },
        silent={"near": tuple(list(relations)[::HELD_OUT])},
        categories={fact.id: fact.relation or "" for fact in facts},
        accepted=also,
        source=FILE,
    ).without_clashes()


def _merged() -> tuple[dict[str, str], dict[str, tuple[str, ...]]]:
    """By question: the relation that it is listed under first, and all its answers."""
    relations: dict[str, str] = {}
    answers: dict[str, tuple[str, ...]] = {}
    for row in rows(FILE):
        text = row["question"]
        relations.setdefault(text, row["relation"])
        answers[text] = tuple(dict.fromkeys((*answers.get(text, ()), *row["answers"])))
    return relations, answers


def _fact(text: str, relation: str, answer: str, templates: dict[str, str]) -> Fact:
    before, after = map(re.escape, templates[relation].split("[X]"))
    found = re.fullmatch(f"{before}(.+){after}", text)
    return Fact(text, answer, subject=found[1] if found else None, relation=relation)
