"""V.E.R.A.: what abbreviations of computing stand for.

A headword that stands for several things is taught the first of them and accepts any: which one
is meant cannot be told from the question. What the dictionary adds in brackets behind an
expansion (its field, its origin) is not part of the answer. Out go the entries about the
dictionary itself and a few in which such notes cannot be told from the expansion. Every
twentieth headword is not taught: it is a near miss.
"""

from __future__ import annotations

import re
from collections import defaultdict

from engram_transformers.evaluation.data import document
from engram_transformers.evaluation.task import Question, Task
from engram_transformers.types import Fact

FILE = "lookup/vera_acronyms.json"
HELD_OUT = 20
_NOTES = re.compile(r'(?:\s*\([^()]*\)|\s*,?\s*"[^"]*"|\s*\[[^\[\]]*\])+$')
_UNCLEAR = re.compile(r'[()"]')


def acronyms() -> Task:
    """8,916 abbreviations with another wording each, and 470 that are not taught."""
    listed = _listed()
    taught = [word for i, word in enumerate(listed) if i % HELD_OUT]
    facts = {word: Fact(_question(word), listed[word][0]) for word in taught}
    return Task(
        "acronyms",
        "chat",
        tuple(facts.values()),
        asked={
            "paraphrase": tuple(
                Question.about(fact, f"Expand the abbreviation {word}.", listed[word])
                for word, fact in facts.items()
            )
        },
        silent={"near": tuple(_question(word) for word in list(listed)[::HELD_OUT])},
        accepted={f.id: tuple(listed[w][1:]) for w, f in facts.items() if listed[w][1:]},
        source=FILE,
    ).without_clashes()


def _question(word: str) -> str:
    return f"What does {word} stand for?"


def _listed() -> dict[str, list[str]]:
    """All expansions by headword, as the dictionary writes it."""
    found: dict[str, list[str]] = defaultdict(list)
    for row in document(FILE):
        if row["headword"].startswith("00database"):
            continue
        head, _, rest = row["text"].partition("\n")
        answer = _NOTES.sub("", " ".join(rest.split())).strip()
        if answer and not _UNCLEAR.search(answer) and answer not in found[head.strip()]:
            found[head.strip()].append(answer)
    return {word: answers for word, answers in found.items() if answers}
