"""Which keys have rows of their own: counted for the token behind which the answer begins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engram_transformers.api import Host
from engram_transformers.memories.engram import EngramConfig
from engram_transformers.memories.engram.address import Layout
from engram_transformers.memories.engram.occupancy import Occupancy, occupancy
from engram_transformers.memories.engram.plan import plans_of
from engram_transformers.memories.engram.reading import NGramReader
from engram_transformers.studies.collisions.options import Options
from engram_transformers.types import Fact


def counted(host: Host, options: Options, layout: str, rows: int, keys: Sequence[Fact]) -> Any:
    """What becomes of these keys in tables of so many rows; shares of the keys, and of the rows."""
    reader = _reader(host, options, layout, rows)
    windows = _windows(host, reader, keys)
    addresses = torch.from_numpy(reader.layout.rows_of(list(windows.T.numpy())))
    return {
        "rows": rows,
        "keys": len(keys),
        "with a row of their own": _alone(addresses),
        "told apart": _distinct(addresses),
        "with an n-gram of their own": _distinct(windows[:, : reader.layout.longest]),
        "rows used": _used(reader.layout, addresses),
        "orders": [_plain(one) for one in occupancy(reader.layout, windows)],
    }


def _reader(host: Host, options: Options, layout: str, rows: int) -> NGramReader:
    config = EngramConfig(
        options.layers,
        layout=layout,  # type: ignore[arg-type]
        heads=options.heads,
        rows=rows,
    )
    (plan, *_) = plans_of(config, host.adapter, host.tokens).layers.values()
    assert isinstance(plan.reader, NGramReader)
    return plan.reader


def _windows(host: Host, reader: NGramReader, keys: Sequence[Fact]) -> Tensor:
    """(keys, longest): the last tokens of each key as they are hashed, newest first."""
    longest = reader.layout.longest
    texts = [host.tokens.prompt_ids(key.prompt, form="plain")[-longest:] for key in keys]
    ends = np.array([[-1] * (longest - len(text)) + text for text in texts])
    hashed = ends if reader.compress is None else reader.compress(np.maximum(ends, 0))
    line = np.where(ends < 0, reader.fill, hashed)
    return torch.from_numpy(line[:, ::-1].copy())


def _alone(addresses: Tensor) -> float:
    """Share of the keys of whose rows at least one is no other key's."""
    counts = [torch.unique(slot, return_inverse=True, return_counts=True) for slot in addresses.T]
    alone = torch.stack([count[inverse] == 1 for _, inverse, count in counts])
    return float(alone.any(dim=0).float().mean())


def _distinct(lines: Tensor) -> float:
    """Share of the lines that stand there once."""
    _, inverse, count = torch.unique(lines, dim=0, return_inverse=True, return_counts=True)
    return float((count[inverse] == 1).float().mean())


def _used(layout: Layout, addresses: Tensor) -> float:
    return len(torch.unique(addresses)) / layout.rows


def _plain(one: Occupancy) -> dict[str, Any]:
    return {**asdict(one), "used": list(one.used), "alone": list(one.alone)}
