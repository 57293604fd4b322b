"""Ten thousand prompts that no taught fact answers: are their logits the bare host's, bit by bit?

ZsRE is taught, and what is asked has nothing to do with it: questions to a search engine, to a
bank, to an assistant that cannot help, of school exams, and about other people and places by the
same kinds of relation.

    python -m benchmarks.unrelated                      the memory `lookup`, 1,000 facts
    python -m benchmarks.unrelated --kind memoir        another one
    python -m benchmarks.unrelated --prompts 500        fewer, drawn with a fixed seed

Results of several memories stand in one file; `python -m benchmarks.report` makes the table.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.main_job import Ticker, silence
from engram_transformers.api import load
from engram_transformers.evaluation.data import rows, table
from engram_transformers.evaluation.metrics import share
from engram_transformers.evaluation.tasks.zsre import zsre
from engram_transformers.experiments.provenance import provenance

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
        groups = {}
        for name, prompts in sources(options.prompts).items():
            print(f"{name}: {len(prompts)} prompts", file=sys.stderr, flush=True)
            groups[name] = silence(host, memory, prompts, form="chat")
    found = {
        "facts": len(receipt.taught),
        "groups": groups,
        "all": share(
            sum(round(g["bit_equal"]["value"] * g["n"]) for g in groups.values()),
            sum(g["n"] for g in groups.values()),
        ),
        "provenance": provenance(host),
    }
    kept = json.loads(options.out.read_text()) if options.out.exists() else {}
    options.out.write_text(json.dumps({**kept, options.kind: found}, indent=1, ensure_ascii=False))
    print(json.dumps({name: group["bit_equal"] for name, group in groups.items()}))


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
    lines = [f"| memory | facts | all | {' | '.join(names)} |", f"|---{'|---' * (2 + len(names))}|"]
    for kind, one in found.items():
        total = sum(group["n"] for group in one["groups"].values())
        cells = [_cell(one["all"], total)]
        cells += [
            _cell(one["groups"][name]["bit_equal"], one["groups"][name]["n"]) for name in names
        ]
        lines.append(f"| {kind} | {one['facts']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(found: Mapping[str, float], n: int) -> str:
    return f"{found['value']:.4g} ({found['low']:.4f} to {found['high']:.4f}), n {n}"


if __name__ == "__main__":
    main()
