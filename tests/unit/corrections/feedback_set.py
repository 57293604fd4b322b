"""Precision and recall of reading feedback, over the labelled sentences beside this file."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from engram_transformers.corrections import read_feedback

PARTS = ("seen", "unseen", "last", "fresh")
Row = dict[str, Any]
ROWS: list[Row] = [
    json.loads(line)
    for line in (Path(__file__).parent / "feedback.jsonl").read_text(encoding="utf-8").splitlines()
]


def proposed(row: Row) -> set[tuple[str, str]]:
    """Questions with answers that are proposed for a sentence."""
    read = read_feedback(row["text"], question=row.get("question"), said=row.get("said"))
    return {(one.question, one.answer) for one in read.proposals}


def wanted(row: Row) -> set[tuple[str, str]]:
    """Those that are labelled."""
    return {(question, answer) for question, answer in row["proposals"]}


def counts(rows: list[Row]) -> Counter[str]:
    """Proposals: right (question and answer equal), wrong, missed; sentences silent as labelled."""
    total: Counter[str] = Counter()
    for row in rows:
        ours, theirs = proposed(row), wanted(row)
        total["right"] += len(ours & theirs)
        total["wrong"] += len(ours - theirs)
        total["missed"] += len(theirs - ours)
        total["silent"] += not (ours or theirs)
        total["none wanted"] += not theirs
    return total


def part(name: str) -> list[Row]:
    return [row for row in ROWS if row["part"] == name]
