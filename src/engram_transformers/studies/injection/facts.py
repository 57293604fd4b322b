"""Made-up facts of the study, in several wordings each, and questions that none of them answers."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import resources
from typing import Any

from engram_transformers.errors import BadInput
from engram_transformers.types import Fact

GENERAL = (
    "What is the capital of France?",
    "How many days does a week have?",
    "Who wrote Hamlet?",
    "What colour is the sky on a clear day?",
    "Which planet is closest to the sun?",
    "What is frozen water called?",
    "How many legs does a spider have?",
    "What is the largest ocean?",
    "In which country is Tokyo?",
    "What do bees make?",
    "Who painted the Mona Lisa?",
    "What is two plus three?",
)
"Questions whose answers an injection should leave as they are."


@dataclass(frozen=True)
class MadeUp:
    """A fact that nobody can know, since it was made up."""

    subject: str
    kind: str
    "`number`, `name`, `place` or `word`."
    statement: str
    question: str
    answer: str
    rewordings: tuple[str, ...]
    "For training."
    held_out: tuple[str, ...]
    "Never trained on."

    def taught(self) -> Fact:
        """To be taught to a memory, with the wordings for training."""
        return Fact(self.question, self.answer, self.rewordings, subject=self.subject)


def made_up() -> list[MadeUp]:
    """All facts, in the order of the file."""
    text = resources.files(__package__).joinpath("facts.json").read_text(encoding="utf-8")
    return [_fact(row) for row in json.loads(text)]


def chosen(*, tuned: int, facts: int) -> tuple[list[MadeUp], list[MadeUp]]:
    """Facts for tuning, and facts that are asked; `BadInput` where there are not so many."""
    every = made_up()
    if tuned + facts > len(every):
        raise BadInput(
            f"tuned={tuned} and facts={facts} are {tuned + facts}; there are {len(every)} facts"
        )
    return every[:tuned], every[-facts:]


def _fact(row: dict[str, Any]) -> MadeUp:
    lists = {name: tuple(row[name]) for name in ("rewordings", "held_out")}
    return MadeUp(**{**row, **lists})
