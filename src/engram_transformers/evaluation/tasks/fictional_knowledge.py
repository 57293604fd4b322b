"""Invented passages: nothing that is asked can be known from pretraining.

Facts are the probes that repeat the passage word by word. `paraphrase` holds them in other words;
`compose` asks for what follows from the passage as a whole, which a memory of the five probes
can hardly know: it is the mark for memories that are taught more than the letter. No passage
itself is taught, only its five sentences.
"""

from __future__ import annotations

from engram_transformers.evaluation.data import Row, document
from engram_transformers.evaluation.task import Question, Task
from engram_transformers.types import Fact

FILE = "unseen/fictional_knowledge.json"


def fictional_knowledge() -> Task:
    """Five facts of each of 90 passages, with five other wordings and five consequences."""
    facts, asked = [], []
    compose = []
    for number, row in enumerate(document(FILE)):
        own = _facts(row, source=f"passage {number}")
        facts += own
        asked += [Question.about(f, text) for f, text in zip(own, row["gen_input"], strict=True)]
        compose += [
            Question(text, (answer,), fact.id)
            for fact, text, answer in zip(
                own, row["hard_gen_input"], row["hard_gen_target"], strict=True
            )
        ]
    return Task(
        "fictional_knowledge",
        "plain",
        tuple(facts),
        asked={"paraphrase": tuple(asked), "compose": tuple(compose)},
        source=FILE,
    ).without_clashes()


def _facts(row: Row, *, source: str) -> list[Fact]:
    pairs = zip(row["mem_input"], row["mem_target"], strict=True)
    return [Fact(text, answer, source=source) for text, answer in pairs]
