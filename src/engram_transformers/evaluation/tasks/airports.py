"""Airports by their IATA code, those of the world's airports that have one.

Asked from the code, because airports share names. What three names say about construction in
brackets is not taught. Near misses are codes that no airport has.
"""

from __future__ import annotations

import hashlib
import string

from engram_transformers.evaluation.data import table
from engram_transformers.evaluation.task import Question, Task
from engram_transformers.types import Fact

FILE = "lookup/airports.csv"
MISSING = 500


def airports() -> Task:
    """7,884 airports with another wording each, and 500 codes that no airport has."""
    listed = {row["iata"]: row for row in table(FILE) if row["iata"]}
    facts = {code: Fact(_question(code), _name(row)) for code, row in listed.items()}
    return Task(
        "airports",
        "chat",
        tuple(facts.values()),
        asked={
            "paraphrase": tuple(
                Question.about(fact, f"What is the airport {code} called?")
                for code, fact in facts.items()
            )
        },
        silent={"near": tuple(_question(code) for code in _missing(listed))},
        categories={facts[code].id: row["country"] for code, row in listed.items()},
        source=FILE,
    ).without_clashes()


def _question(code: str) -> str:
    return f"Which airport has the IATA code {code}?"


def _name(row: dict[str, str]) -> str:
    return row["name"].partition(" (under construction")[0]


def _missing(listed: dict[str, dict[str, str]]) -> list[str]:
    """Codes that are not listed, the same every time."""
    found: dict[str, None] = {}
    for i in range(10 * MISSING):
        drawn = hashlib.sha256(f"airport {i}".encode()).digest()
        code = "".join(string.ascii_uppercase[byte % 26] for byte in drawn[:3])
        if code not in listed:
            found[code] = None
    return list(found)[:MISSING]
