"""Options of the study."""

from __future__ import annotations

from dataclasses import dataclass

from engram_transformers.errors import BadInput

REAL = 165
"Keys of the set that have real values."
SETS = ("lookup", "patterns")


@dataclass(frozen=True)
class Options:
    """Of 500 keys late ways take about five minutes on an idle core, hashed ones half an hour."""

    ways: tuple[str, ...] = (
        "bare host",
        "engram, whole keys",
        "engram, n-grams",
        "engram, unigram",
        "engram, content",
        "engram, n-grams and content",
        "lora",
        "engram and lora",
        "bottleneck",
        "bottleneck, same size",
        "bias",
    )
    "What is trained; `plan` lists them all."
    sets: tuple[str, ...] = SETS
    "What is taught: keys with values (`lookup`), or beginnings with their ends (`patterns`)."
    facts: int = 500
    "Keys of `lookup` that are taught: 165 with real values, the rest random."
    seeds: int = 1
    "Trainings of each way."
    late: int = 26
    "First block that late ways act at; of n-grams the memory acts before the second block."
    epochs: int = 20
    "Times that every key is trained at most; it ends when every answer is exact."
    rows: int = 10_000
    "Rows of each table of n-grams, and of the table that is read by content alone."
    asked: int = 500
    "Keys of `lookup` that are asked by generation, drawn; all of them are real ones first."
    host: str = "smollm2-135m"
    "The host, by name or folder."

    def __post_init__(self) -> None:
        if self.facts < REAL:
            raise BadInput(f"facts is {self.facts}; the {REAL} real keys are always taught")
        if self.seeds < 1 or self.asked < 1:
            raise BadInput(f"seeds={self.seeds}, asked={self.asked}: either is at least 1")
        for name in self.sets:
            if name not in SETS:
                raise BadInput(f"no set is called {name!r}; use {' or '.join(SETS)}")
