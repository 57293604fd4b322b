"""What a training step of a large table costs: all rows, or those that the batch read.

Look-up, gradient of the table and update of one step, each way in turns, in one run. What comes
down from the loss is given: another layer's work is not timed.

    python -m benchmarks.row_steps [--rows 1000000] [--width 80] [--reads 16384] [--rounds 5]
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from engram_transformers.experiments.provenance import origin
from engram_transformers.memories.shared.touched import Touched, look_up
from engram_transformers.training.rowwise import RowWise

RESULT = Path(__file__).parent / "results" / "row_steps.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--width", type=int, default=80)
    parser.add_argument("--reads", type=int, default=16_384)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    table = torch.zeros(options.rows, options.width)
    draw = torch.Generator().manual_seed(0)
    reads = [
        torch.randint(0, options.rows, (options.reads,), generator=draw)
        for _ in range(options.rounds + 1)
    ]
    above = torch.randn(options.reads, options.width, generator=draw)
    steps = {
        "dense_adam": dense(table, above),
        "row_wise": row_wise(table, above),
        "bare": bare(table, above),
        "gather_scatter": gather_scatter(table),
    }
    times: dict[str, list[float]] = {name: [] for name in steps}
    for batch in reads:
        for name, step in steps.items():
            started = time.perf_counter()
            step(batch)
            times[name].append(1e3 * (time.perf_counter() - started))
    # The first round makes the optimisers' state; what else the machine does only ever adds.
    result = {f"{name}_ms": round(min(each[1:]), 3) for name, each in times.items()}
    result["dense_over_row_wise"] = round(result["dense_adam_ms"] / result["row_wise_ms"], 1)
    for least in ("bare", "gather_scatter"):
        over = result["row_wise_ms"] / result[f"{least}_ms"]
        result[f"row_wise_over_{least}"] = round(over, 2)
    sizes = {name: value for name, value in vars(options).items() if name != "out"}
    report = {**sizes, **result, "provenance": origin()}
    options.out.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))


def dense(start: Tensor, above: Tensor) -> Callable[[Tensor], None]:
    """An ordinary look-up with torch's Adam."""
    table = nn.Parameter(start.clone())
    optimizer = torch.optim.Adam([table], lr=1e-3)

    def step(reads: Tensor) -> None:
        optimizer.zero_grad(set_to_none=True)
        functional.embedding(reads, table).backward(above)
        optimizer.step()

    return step


def row_wise(start: Tensor, above: Tensor) -> Callable[[Tensor], None]:
    """Ours."""
    table, touched = nn.Parameter(start.clone()), Touched()
    optimizer = RowWise([(table, touched)], lr=1e-3)

    def step(reads: Tensor) -> None:
        look_up(table, reads, touched).backward(above)
        optimizer.step()

    return step


def bare(start: Tensor, above: Tensor) -> Callable[[Tensor], None]:
    """Distinct rows fetched, pulled by what comes down to each read, and put back; no state."""
    table = start.clone()

    def step(reads: Tensor) -> None:
        rows, inverse = torch.unique(reads, return_inverse=True)
        found = table.index_select(0, rows)
        pull = torch.zeros_like(found).index_add_(0, inverse, above)
        table.index_copy_(0, rows, found - 1e-3 * pull)

    return step


def gather_scatter(start: Tensor) -> Callable[[Tensor], None]:
    """Distinct rows fetched, changed by what does not depend on them, and put back; no more."""
    table = start.clone()

    def step(reads: Tensor) -> None:
        rows = torch.unique(reads)
        table.index_copy_(0, rows, table.index_select(0, rows) - 1e-3)

    return step


if __name__ == "__main__":
    main()
