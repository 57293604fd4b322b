"""Facts as text that `fact_files` reads back: JSONL, JSON or CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator

from engram_transformers.stores.fact_files import Kind
from engram_transformers.types import Fact

COLUMNS = ("prompt", "answer", "paraphrases", "subject", "relation", "source")


def lines_of(facts: Iterable[Fact], kind: Kind) -> Iterator[str]:
    """The file that holds these facts, piece by piece, each ending in a newline."""
    if kind == "jsonl":
        return (_json(fact) + "\n" for fact in facts)
    return _csv(facts) if kind == "csv" else _list(facts)


def _json(fact: Fact) -> str:
    return json.dumps(fact.as_dict(), ensure_ascii=False)


def _list(facts: Iterable[Fact]) -> Iterator[str]:
    before = "[\n"
    for fact in facts:
        yield before + _json(fact)
        before = ",\n"
    yield "[]\n" if before == "[\n" else "\n]\n"


def _csv(facts: Iterable[Fact]) -> Iterator[str]:
    yield ",".join(COLUMNS) + "\n"
    for fact in facts:
        row = fact.as_dict()
        if "paraphrases" in row:
            row["paraphrases"] = json.dumps(row["paraphrases"], ensure_ascii=False)
        line = io.StringIO()
        # Quotes around everything keep spaces at the ends, which readers else skip.
        writer = csv.writer(line, quoting=csv.QUOTE_ALL, lineterminator="\n")
        writer.writerow([row.get(name, "") for name in COLUMNS])
        yield line.getvalue()
