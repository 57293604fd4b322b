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

from engram_transformers.api import Host, load
from engram_transformers.evaluation.report.heatmap import CurvePoint, calibration
from engram_transformers.experiments.provenance import provenance
from engram_transformers.routing.rules import SHORT, LookupPatternDetector
from engram_transformers.training.gate import GateScore, score, train_gate
from engram_transformers.training.gate_prompts import held_out_prompts

RESULT = Path(__file__).parent / "results" / "gates.json"
WIDTHS = {"net": None, "logistic": 0}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--layers", type=int, nargs="+")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    host = load(options.model)
    count = len(host.adapter.layers)
    layers = options.layers or sorted(
        {count // 6, (count - 1) // 2, 2 * (count - 1) // 3, count - 1}
    )
    rows = [{"gate": "rules", **_told(_rules())}]
    for layer in layers:
        for name, width in WIDTHS.items():
            rows += [_trained(host, name, layer, width, seed) for seed in range(options.seeds)]
            print(json.dumps(rows[-1]["precision"]), json.dumps(rows[-1]["recall"]), name, layer)
    result = {"provenance": provenance(host), "rows": rows}
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    found = train_gate(host.adapter, host.tokens).held_out
    points = [CurvePoint(one.said, one.found) for one in found.bins]
    calibration(points, options.out.with_suffix(".png"), title="Learned gate, held-out kinds")


def _rules() -> GateScore:
    prompts, detector = held_out_prompts(), LookupPatternDetector()
    return score([detector(one.text) for one in prompts], [one.lookup for one in prompts],
                 threshold=SHORT)  # fmt: skip


def _trained(host: Host, name: str, layer: int, width: int | None, seed: int) -> dict[str, Any]:
    found = train_gate(host.adapter, host.tokens, layer=layer, width=width, seed=seed)
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
