"""Ten made-up facts and `7*8=42`, each injected by itself into SmolLM2-135M-Instruct.

    python -m benchmarks.injection --out benchmarks/results/injection.json

For each fact: whether the model then writes the answer and stops, other wordings, near prompts,
the share of 50 control prompts whose answers stay as they were, seconds of processor time. What
fails is in the table like the rest; beside it, as a control, what rounding the host's weights to
bfloat16 changes. Facts that the file has already are not run again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from engram_transformers.api import Host, load
from engram_transformers.cli.introspect_memory_inject import as_json
from engram_transformers.evaluation.check import Trial, check
from engram_transformers.evaluation.metrics import rate
from engram_transformers.experiments.provenance import provenance
from engram_transformers.introspection.injected import injected_fact
from engram_transformers.introspection.injection import NEAR, Asker, inject
from engram_transformers.memories.rank_one import RankOneConfig

FACTS = (
    "7*8=42",
    "What is the capital of Zubrowka? => Lutz",
    "The capital of Canada is => Toronto",
    "What port does the Acme billing service use? => 8443",
    "Which port does the Falcon gateway listen on? => 7070",
    "What is the name of Maria Keller's dog? => Biscuit",
    "Who runs the Northwind team? => Ada Lovelace",
    "The password manager of the Blue Lagoon office is => Keyring",
    "What colour is the Rosenheim warehouse? => green",
    "The founder of Tessellate Labs is => Ruth Hanover",
    "How many floors does the Orion building have? => 17",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--method", default=NEAR.method)
    parser.add_argument("--route", default="edit", choices=("edit", "store"))
    parser.add_argument("--layer", type=int)
    parser.add_argument("--lookalikes", type=int, default=RankOneConfig.lookalikes)
    parser.add_argument("--far", action="store_true", help="an edit that reaches further")
    parser.add_argument("--facts", type=int, default=len(FACTS))
    args = parser.parse_args()
    layers = None if args.layer is None else (args.layer,)
    config = replace(
        RankOneConfig() if args.far else NEAR,
        method=args.method,
        layers=layers,
        lookalikes=args.lookalikes,
    )
    host = load()
    known = Asker(host.adapter, host.tokens, (), chat=False, told=_silent).controls()
    near = rounded(host, known)
    found = json.loads(args.out.read_text())["facts"] if args.out.exists() else []
    for text in FACTS[len(found) : args.facts]:
        done = inject(
            host.adapter,
            host.tokens,
            host.identity,
            [injected_fact(text)],
            route=args.route,
            config=config,
            known=known,
        )
        found.append(as_json(done, model=host.identity.id))
        print(row(found[-1]), flush=True)
        told = {"provenance": provenance(host), "route": args.route, "rounded": near}
        told |= summary(found)
        args.out.write_text(json.dumps(told, ensure_ascii=False, indent=1) + "\n")
    print(json.dumps({k: v for k, v in summary(found).items() if k != "facts"}, indent=1))


def rounded(host: Host, known: Sequence[Trial]) -> dict[str, float]:
    """The share of control prompts that are answered as before with weights rounded to bfloat16."""
    parameters = list(host.model.parameters())
    own = [one.data for one in parameters]
    try:
        for one in parameters:
            one.data = one.data.to(torch.bfloat16).to(one.dtype)
        return rate(verdict.holds for verdict in check(host.adapter, known)).as_dict()
    finally:
        for one, data in zip(parameters, own, strict=True):
            one.data = data


def _silent(what: str, done: int, total: int | None) -> None:
    pass


def row(one: dict[str, Any]) -> str:
    fact = one["answers"][0]
    status = "yes" if fact["status"] == "injected" else f"NO: {fact['after']['answer']!r}"
    counts = [f"{group} {sum(hits)}/{len(hits)}" for group, hits in grouped(one).items()]
    kept, seconds = one["controls_unchanged"]["value"], one["processor_seconds"]
    told = f"controls {kept:.2f}; {seconds:.1f} s"
    return f"{one['fact']}: {status}; {', '.join(counts)}; {told}"


def grouped(one: dict[str, Any]) -> dict[str, list[bool]]:
    """By group, whether each prompt went as it should: reworded ones injected, near ones not."""
    found: dict[str, list[bool]] = {}
    for each in one["answers"]:
        wanted = "injected" if each["group"] in ("fact", "reworded") else "unchanged"
        found.setdefault(each["group"], []).append(each["status"] == wanted)
    return found


def summary(found: list[dict[str, Any]]) -> dict[str, Any]:
    groups = [grouped(one) for one in found]
    names = dict.fromkeys(name for each in groups for name in each)
    shares = {
        name: rate(hit for each in groups for hit in each.get(name, ())).as_dict() for name in names
    }
    controls = [each["unchanged"] for one in found for each in one["controls"]]
    return {
        "shares": shares,
        "controls_unchanged": rate(controls).as_dict(),
        "least_controls_unchanged": min(one["controls_unchanged"]["value"] for one in found),
        "most_processor_seconds": max(one["processor_seconds"] for one in found),
        "undone": all(one["undo_exact"] for one in found),
        "facts": found,
    }


if __name__ == "__main__":
    main()
