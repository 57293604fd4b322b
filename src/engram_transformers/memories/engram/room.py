"""Whether tables fit, asked before they are made: a machine that runs out kills what runs on it."""

from __future__ import annotations

from pathlib import Path

import torch

from engram_transformers.errors import BadInput
from engram_transformers.memories.engram.config import EngramConfig
from engram_transformers.memories.engram.plan import Plans

_PER_ROW = 8
"Bytes that the row-wise optimiser keeps of a row."


def check_room(config: EngramConfig, plans: Plans, device: torch.device) -> None:
    """Raise `BadInput`, which says what would fit, where tables and their training do not."""
    rows = sum(plan.rows for plan in plans.layers.values())
    needed, free = rows * (4 * config.width + _PER_ROW), free_bytes(device)
    if free is None or needed <= free:
        return
    fits = int(config.rows * free / needed)
    raise BadInput(
        f"{rows:,} rows of {config.width} numbers need {needed / 1e9:,.1f} GB to be trained, and "
        f"{free / 1e9:,.1f} GB are free on {device}; rows={fits:,} would fit "
        f"(memory_size={int(rows / len(plans.layers) * free / needed):,})"
    )


def free_bytes(device: torch.device) -> int | None:
    """Memory that is free on a device; None where nobody says."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    found = (line.split() for line in lines if line.startswith("MemAvailable:"))
    return next((int(words[1]) * 1024 for words in found), None)
