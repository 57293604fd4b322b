"""Ten thousand prompts that no taught fact answers: are their logits the bare host's, bit by bit?

ZsRE is taught, and what is asked has nothing to do with it: questions to a search engine, to a
bank, to an assistant that cannot help, of school exams, and about other people and places by the
same kinds of relation. Some happen to name the subject of a taught fact after all, and one may even
ask for that fact in other words: these are counted apart, as near misses.

    python -m benchmarks.unrelated                      the memory `lookup`, 1,000 facts
    python -m benchmarks.unrelated --kind memoir        another one
    python -m benchmarks.unrelated --prompts 500        fewer, drawn with a fixed seed

Results of several memories stand in one file; `python -m benchmarks.report` makes the table.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.main_job import Ticker, silence
from engram_transformers.api import load
from engram_transformers.evaluation.data import rows, table
from engram_transformers.evaluation.metrics import share
from engram_transformers.evaluation.tasks.zsre import zsre
from engram_transformers.experiments.provenance import provenance
from engram_transformers.types import Fact

NEAR = "naming a taught subject"
RESULT = Path(__file__).parent / "results" / "unrelated.json"
FILES: Mapping[str, Callable[[], list[str]]] = {
    "search engine": lambda: [row["loc"] for row in rows("editing/zsre_3k_first2000.jsonl")],
    "out of scope": lambda: [r["text"] for r in rows("support/clinc_out_of_scope_val.jsonl")],
    "school exam": lambda: [_after_colon(row["query"]) for row in rows("probes/arc_easy.jsonl")],
    "bank": lambda: [row["text"] for row in table("support/banking77.csv")],
    "other subjects": lambda: [r["question"] for r in rows("facts/entity_questions_dev.jsonl")],
}
"The small ones count whole, the large ones share what is left."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kind", default="lookup", help="of memory")
    parser.add_argument("--facts", type=int, default=1000, help="of ZsRE that are taught")
    parser.add_argument("--prompts", type=int, default=10_000, help="that no fact answers")
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    host, task = load(), zsre()
    facts = task.facts[: options.facts]
    with (
        tempfile.TemporaryDirectory() as folder,
        host.open_memory(Path(folder) / "memory", kind=options.kind) as memory,
    ):
        receipt = memory.teach(facts, check=False, progress=Ticker("taught"))
        groups, near = apart(sources(options.prompts), facts)
        told = {}
        for name, prompts in {**groups, NEAR: near}.items():
            print(f"{name}: {len(prompts)} prompts", file=sys.stderr, flush=True)
            told[name] = silence(host, memory, prompts, form="chat") if prompts else None
    near_told, groups_told = told.pop(NEAR), {k: v for k, v in told.items() if v}
    total = sum(group["n"] for group in groups_told.values())
    equal = sum(round(g["bit_equal"]["value"] * g["n"]) for g in groups_told.values())
    found = {
        "facts": len(receipt.taught),
        "groups": groups_told,
        "near": near_told,
        "all": share(equal, total),
        "provenance": provenance(host),
    }
    kept = json.loads(options.out.read_text()) if options.out.exists() else {}
    options.out.write_text(json.dumps({**kept, options.kind: found}, indent=1, ensure_ascii=False))
    print(json.dumps(found["groups"]))


def apart(
    groups: Mapping[str, Sequence[str]], facts: Iterable[Fact]
) -> tuple[dict[str, list[str]], list[str]]:
    """Prompts that are unrelated, and those that name the subject of a taught fact."""
    subjects = {fact.subject.casefold() for fact in facts if fact.subject}
    named = re.compile("|".join(rf"\b{re.escape(s)}\b" for s in sorted(subjects)))
    near = [t for prompts in groups.values() for t in prompts if named.search(t.casefold())]
    return {name: [t for t in prompts if t not in near] for name, prompts in groups.items()}, near


def sources(count: int) -> dict[str, list[str]]:
    """So many prompts by where they come from, the same ones every time."""
    whole = {name: list(dict.fromkeys(read())) for name, read in FILES.items()}
    drawn: dict[str, list[str]] = {}
    for name in sorted(whole, key=lambda name: len(whole[name])):
        left = count - sum(map(len, drawn.values()))
        size = min(len(whole[name]), left // (len(whole) - len(drawn)))
        drawn[name] = random.Random(0).sample(whole[name], size)
    return drawn


def _after_colon(query: str) -> str:
    return query.partition(": ")[2] or query


def tables(found: Mapping[str, Any]) -> str:
    """What the documents show."""
    names = list(next(iter(found.values()))["groups"])
    heads = ["memory", "facts", "all", *names, f"apart: {NEAR}"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for kind, one in found.items():
        total = sum(group["n"] for group in one["groups"].values())
        groups = [(one["all"], total)]
        groups += [(group["bit_equal"], group["n"]) for group in one["groups"].values()]
        cells = [_cell(share, n) for share, n in groups]
        near = one["near"]
        cells.append(_cell(near["bit_equal"], near["n"]) if near else "")
        lines.append(f"| {kind} | {one['facts']} | {' | '.join(cells)} |")
    lines.append("")
    for kind, one in found.items():
        loud = [each for group in one["groups"].values() for each in group["failures"]]
        lines += [f"* {kind}, unrelated: {_taken(each)}" for each in loud]
        lines += [
            f"* {kind}, {NEAR}: {_taken(e)}" for e in (one["near"] or {"failures": ()})["failures"]
        ]
    return "\n".join(lines)


def _taken(one: Mapping[str, Any]) -> str:
    return f"`{one['asked']}` was taken for `{one['taken_for']}` ({one['score']})"


def _cell(found: Mapping[str, float], n: int) -> str:
    return f"{found['value']:.4f} ({found['low']:.4f} to {found['high']:.4f}), n {n}"


if __name__ == "__main__":
    main()
