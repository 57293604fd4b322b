"""How long one search among edit masks takes, with both back ends, and how much they weigh.

python -m benchmarks.mask_search [--masks 10000] [--features 1536] [--active 439]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from typing import Any, Literal

import torch

from engram_transformers.memories.memoir import EditMaskDatabase, TopHashFingerprinter

ROUNDS = 300


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--masks", type=int, default=10_000)
    parser.add_argument("--features", type=int, default=1536)
    parser.add_argument("--active", type=int, default=439)
    print(json.dumps(search_times(**vars(parser.parse_args())), indent=1))


def search_times(masks: int, features: int, active: int) -> dict[str, Any]:
    """Milliseconds for one fingerprint, and for one search by each back end, in turns."""
    noise = torch.Generator().manual_seed(0)
    fingerprinter = TopHashFingerprinter(features, active)
    stored = fingerprinter.generate_mask(torch.randn(masks, features, generator=noise))
    plain, faiss = (_filled(stored, name) for name in ("plain", "faiss"))
    times: dict[str, list[float]] = {"fingerprint": [], "plain": [], "faiss": []}
    for query in torch.randn(ROUNDS, features, generator=noise):
        started = time.perf_counter()
        mask = fingerprinter.generate_mask(query)
        times["fingerprint"].append(time.perf_counter() - started)
        for name, db in (("plain", plain), ("faiss", faiss)):
            started = time.perf_counter()
            db.find_closest(mask, threshold=0.4)
            times[name].append(time.perf_counter() - started)
    found = {name: _summed_up(seconds) for name, seconds in times.items()}
    return {"milliseconds": found, **plain.get_statistics()}


def _filled(masks: torch.Tensor, backend: Literal["plain", "faiss"]) -> EditMaskDatabase:
    db = EditMaskDatabase(masks.shape[1], "overlap", backend=backend)
    for number, mask in enumerate(masks):
        db.add(str(number), mask)
    return db


def _summed_up(seconds: list[float]) -> dict[str, float]:
    deciles = statistics.quantiles((1000 * s for s in seconds), n=10)
    return {"median": round(deciles[4], 3), "slowest tenth from": round(deciles[8], 3)}


if __name__ == "__main__":
    main()
