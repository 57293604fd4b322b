"""How fast tokens become addresses: ours beside the demo's way, in turns, in one run.

The demo (`engram_demo_v1.py`) compresses with numpy, shifts the whole text once for each place, and
takes each head's remainder by itself.

    python -m benchmarks.engram_hash [--tokens 4096] [--rounds 30]
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from engram_transformers.experiments.provenance import origin
from engram_transformers.memories.engram import Layout, lay_out
from engram_transformers.memories.engram.compress import Compression
from engram_transformers.memories.engram.reading import NGramReader
from engram_transformers.memory import Row

RESULT = Path(__file__).parent / "results" / "engram_hash.json"
IDS, RAW = 99_092, 129_280
PAD = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    result = {
        "tokens": options.tokens,
        "rounds": options.rounds,
        **{
            name: measured(name, tokens=options.tokens, rounds=options.rounds)
            for name in ("deepseek", "deepseek-v4.1", "qwen")
        },
        "provenance": origin(),
    }
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


def measured(name: str, *, tokens: int, rounds: int) -> dict[str, Any]:
    """Milliseconds of a whole text, ours and the demo's, and of one decoding step of ours."""
    draw = np.random.default_rng(0)
    compress = Compression(draw.integers(0, IDS, RAW), IDS)
    layout = lay_out(name, layers=(1,), ids=IDS, rows=646_400, heads=8)[1]
    reader = NGramReader(layout, compress, int(compress.map[PAD]), None)
    ids = draw.integers(0, RAW, tokens)
    whole = Row(ids, 0, np.arange(tokens))
    step = Row(ids, tokens - 1, np.arange(1))
    ours, theirs = reader.read([whole]), demo(ids[None], layout, compress)
    assert torch.equal(ours - torch.tensor(layout.offsets), torch.from_numpy(theirs)[0])
    times = in_turns(
        {
            "ours_ms": lambda: reader.read([whole]),
            "demo_ms": lambda: demo(ids[None], layout, compress),
            "step_ms": lambda: reader.read([step]),
            "demo_step_ms": lambda: demo(ids[None, -layout.longest :], layout, compress),
        },
        rounds=rounds,
    )
    return {**times, "speedup": round(times["demo_ms"] / times["ours_ms"], 2)}


def in_turns(acts: dict[str, Callable[[], Any]], *, rounds: int) -> dict[str, float]:
    """Least milliseconds of each: whatever else the machine does only ever adds to them."""
    times: dict[str, list[float]] = {name: [] for name in acts}
    for _ in range(rounds):
        for name, act in acts.items():
            started = time.perf_counter()
            act()
            times[name].append(1e3 * (time.perf_counter() - started))
    return {name: round(min(each), 4) for name, each in times.items()}


def demo(ids: NDArray[np.int64], layout: Layout, compress: Compression) -> NDArray[np.int64]:
    """(batch, time, slots): rows within each head's own table, as the demo computes them."""
    x, [multipliers], batch_time = compress.map[ids], layout.multipliers, ids.shape[1]
    pad = int(compress.map[PAD])
    shifted = [
        np.pad(x, ((0, 0), (k, 0)), constant_values=pad)[:, :batch_time]
        for k in range(layout.longest)
    ]
    found = []
    for order, sizes in zip(layout.orders, layout.moduli, strict=True):
        mix = shifted[0] * multipliers[0]
        for k in range(1, order):
            mix = np.bitwise_xor(mix, shifted[k] * multipliers[k])
        found += [(mix % size).astype(np.int64, copy=False) for size in sizes]
    return np.stack(found, axis=2)


if __name__ == "__main__":
    main()
