"""How many edits residual matrices hold that stand in one layer or in several.

    python -m benchmarks.memoir_layers [--edits 24]

Edits of ZsRE are trained one after another, as the paper has it, into a matrix that edits share.
With several layers each has such a matrix, and edits go to them by turns. Then all are asked for,
as taught and reworded, and each finds its edit by itself. Exact: every token of the answer and the
stop token is the first choice. Results are kept in results/memoir_layers.json.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.memoir_capacity import facts_of_zsre
from engram_transformers import load
from engram_transformers.api import Host
from engram_transformers.attaching import attach
from engram_transformers.evaluation.check import Trial, check
from engram_transformers.evaluation.metrics import rate
from engram_transformers.experiments.provenance import provenance
from engram_transformers.memories.memoir import Memoir, MemoirConfig
from engram_transformers.types import Fact

OUT = Path(__file__).parent / "results" / "memoir_layers.json"
LAYERS = ((-1,), (-4, -1), (-10, -7, -4, -1), (-22, -19, -16, -13, -10, -7, -4, -1))

Told = Sequence[tuple[Fact, str]]
"Facts, each with another wording."


def kept(host: Host, layers: Sequence[int], told: Told) -> dict[str, Any]:
    """Shares of edits that are exact after all were written by turns into some layers."""
    started = time.process_time()
    memories = [
        Memoir.open(
            host.adapter,
            host.tokens,
            MemoirConfig(method="gradient", shared=True, layer=layer, match="words"),
        )
        for layer in layers
    ]
    for number, (fact, _) in enumerate(told):
        memory = memories[number % len(memories)]
        (delta,) = memory.write([fact])
        memory.add([(fact.id, fact, delta)])
    spent = time.process_time() - started
    with ExitStack() as stack:
        for memory in memories:
            stack.enter_context(attach(host.model, memory))
        taught = [fact.prompt for fact, _ in told]
        found = {"taught": taught, "reworded": [other for _, other in told]}
        shares = {name: _exact(host, told, asked) for name, asked in found.items()}
    return {"layers": list(layers), **shares, "seconds": round(spent / len(told), 2)}


def _exact(host: Host, told: Told, asked: Sequence[str]) -> dict[str, float]:
    prompts = host.prompts(asked, form="chat")
    trials = [
        Trial(tuple(ids), tuple(host.tokens.answer_ids(text, fact.answer, form="chat")))
        for ids, text, (fact, _) in zip(prompts, asked, told, strict=True)
    ]
    return rate(verdict.holds for verdict in check(host.adapter, trials)).as_dict()


def table(found: dict[str, Any]) -> str:
    """What the documents show."""
    edits = found["edits"]
    lines = [
        f"| matrices | {edits} edits of ZsRE, taught | reworded | processor s an edit |",
        "|---|---|---|---|",
    ]
    for row in found["rows"]:
        shares = [
            f"{one['value']:.3f} ({one['low']:.3f} to {one['high']:.3f})"
            for one in (row["taught"], row["reworded"])
        ]
        layers = ", ".join(map(str, row["layers"]))
        where = f"{len(row['layers'])}: beside block {layers}"
        lines.append(f"| {' | '.join((where, *shares, str(row['seconds'])))} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--edits", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    host = load()
    told = [
        (Fact(prompt, answer), other)
        for prompt, other, answer in facts_of_zsre(args.edits, args.seed)
    ]
    rows = []
    for layers in LAYERS:
        rows.append(kept(host, layers, told))
        print(json.dumps(rows[-1]), flush=True)
    found = {**vars(args), "rows": rows, "provenance": provenance(host)}
    OUT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
