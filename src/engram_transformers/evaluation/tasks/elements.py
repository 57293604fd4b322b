"""The chemical elements: symbol, number and name, each asked from another.

The data spell three names the American way; the British spelling is accepted. Near misses are
elements of fiction.
"""

from __future__ import annotations

from engram_transformers.evaluation.data import document
from engram_transformers.evaluation.task import Question, Task
from engram_transformers.types import Fact

FILE = "lookup/elements.json"
BRITISH = {"Aluminum": "Aluminium", "Cesium": "Caesium", "Sulfur": "Sulphur"}
FICTION = ("Adamantium", "Carbonite", "Kryptonite", "Mithril", "Octarine", "Orichalcum",
           "Tiberium", "Turbidium", "Unobtainium", "Vibranium")  # fmt: skip
WAYS = {
    # By what is asked for: the thing it is asked from, the taught wording, another one.
    "symbol": ("name", "What is the chemical symbol of {}?", "Which letters stand for {}?"),
    "atomic_number": ("name", "What is the atomic number of {}?", "How many protons has {}?"),
    "name": ("symbol", "Which element has the symbol {}?", "What is {} in the periodic table?"),
}


def elements() -> Task:
    """118 elements, three facts each."""
    facts: dict[str, Fact] = {}
    asked, categories = [], {}
    for row in document(FILE):
        for wanted, (given, question, otherwise) in WAYS.items():
            fact = Fact(
                question.format(row[given]), str(row[wanted]), subject=row[given], relation=wanted
            )
            facts[fact.id], categories[fact.id] = fact, wanted
            asked.append(Question.about(fact, otherwise.format(row[given]), _british(fact)))
    return Task(
        "elements",
        "chat",
        tuple(facts.values()),
        asked={"paraphrase": tuple(asked)},
        silent={
            "near": tuple(
                WAYS[w][1].format(x) for w in ("symbol", "atomic_number") for x in FICTION
            )
        },
        categories=categories,
        accepted={fact.id: _british(fact) for fact in facts.values() if _british(fact)},
        source=FILE,
    ).without_clashes()


def _british(fact: Fact) -> tuple[str, ...]:
    return (BRITISH[fact.answer],) if fact.answer in BRITISH else ()
