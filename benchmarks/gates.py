"""Gates of a route, trained on a host's states behind several blocks, beside the rules.

Each gate is scored on kinds of prompts and wordings that it was not trained on; the calibration
curve of the default one goes to a picture.

    python -m benchmarks.gates [--model smollm2-135m] [--layers 4 9 14 19 24 29] [--seeds 3]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from torch import Tensor

from engram_transformers.api import Host, load
from engram_transformers.cli.gate import draw
from engram_transformers.experiments.provenance import provenance
from engram_transformers.routing.rules import SHORT, LookupPatternDetector
from engram_transformers.training.gate import GateScore, end_states, score, train_gate
from engram_transformers.training.gate_prompts import held_out_prompts, training_prompts

RESULT = Path(__file__).parent / "results" / "gates.json"
WIDTHS = {"net": None, "logistic": 0}
SCORES = ("precision", "recall", "calibration_error")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--layers", type=int, nargs="+")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    host = load(options.model)
    count = len(host.adapter.layers)
    usual = 2 * (count - 1) // 3
    layers = options.layers or sorted({count // 6, (count - 1) // 2, usual, count - 1})
    read: dict[int, Tensor] = {}
    rows = [{"gate": "rules", **_told(_rules())}]
    texts = [one.text for one in (*training_prompts(), *held_out_prompts())]
    for layer in layers:
        read[layer] = end_states(host.adapter, host.tokens, texts, layer=layer)
        for name, width in WIDTHS.items():
            for seed in range(options.seeds):
                rows.append(_trained(host, name, layer, width, seed, read[layer]))
            print(json.dumps(rows[-1]["precision"]), json.dumps(rows[-1]["recall"]), name, layer)
    found = train_gate(host.adapter, host.tokens, states=read.get(usual))
    drawn = {"layer": usual, "trained": found.trained, "calibrated": found.calibrated}
    result = {"provenance": provenance(host), "drawn": drawn, "rows": rows}
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    draw(found, options.out.with_suffix(".png"))


def table(found: dict[str, Any]) -> str:
    """A line for each gate and block: means over seeds, and how far their intervals reach."""
    lines = [
        "| gate | behind block | precision | recall | calibration error | seeds |",
        "|---|---|---|---|---|---|",
    ]
    groups: dict[tuple[str, int | None], list[dict[str, Any]]] = {}
    for row in found["rows"]:
        groups.setdefault((row["gate"], row.get("layer")), []).append(row)
    for (gate, layer), rows in groups.items():
        cells = [_reach([row[name] for row in rows]) for name in SCORES]
        if layer is None:  # rules have scores that are no probabilities, and no seeds
            lines.append(f"| {gate} | | {cells[0]} | {cells[1]} | | |")
        else:
            lines.append(f"| {gate} | {layer} | {' | '.join(cells)} | {len(rows)} |")
    drawn = found["drawn"]
    told = (
        f"Trained on {drawn['trained']} prompts, calibrated with {drawn['calibrated']}, scored on "
        f"{found['rows'][0]['n']} of other kinds and wordings. In brackets how far the 95 % "
        "intervals of all seeds reach."
    )
    words = f"The calibration curve of the gate behind block {drawn['layer']}"
    return "\n".join([*lines, "", told, "", f"![{words}](../benchmarks/results/gates.png)"])


def _reach(found: list[dict[str, float]]) -> str:
    mean = sum(one["value"] for one in found) / len(found)
    low, high = min(one["low"] for one in found), max(one["high"] for one in found)
    return f"{mean:.3f} ({low:.3f} to {high:.3f})"


def _rules() -> GateScore:
    prompts, detector = held_out_prompts(), LookupPatternDetector()
    return score([detector(one.text) for one in prompts], [one.lookup for one in prompts],
                 threshold=SHORT)  # fmt: skip


def _trained(
    host: Host, name: str, layer: int, width: int | None, seed: int, states: Tensor
) -> dict[str, Any]:
    found = train_gate(
        host.adapter, host.tokens, layer=layer, width=width, seed=seed, states=states
    )
    kinds = {kind: one.as_dict() for kind, one in found.by_kind.items()}
    told = {"gate": name, "layer": layer, "seed": seed, **_told(found.held_out)}
    return told | {"by_kind": kinds}


def _told(found: GateScore) -> dict[str, Any]:
    return {
        "n": found.n,
        "precision": found.precision.as_dict(),
        "recall": found.recall.as_dict(),
        "calibration_error": found.error.as_dict(),
    }


if __name__ == "__main__":
    main()
