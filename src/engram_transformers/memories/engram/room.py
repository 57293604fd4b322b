"""Whether tables fit, asked before they are made: a machine that runs out kills what runs on it."""

from __future__ import annotations

from pathlib import Path

import torch

from engram_transformers.errors import BadInput
from engram_transformers.memories.engram.config import EngramConfig
from engram_transformers.memories.engram.plan import Plans, tables_of

_COPIES = 3
"""Times that a table is held, as the highest resident size of a process shows: 3.11 of 488 MiB.

Teaching holds what is gone back to beside it, as it was before and as it was when the epoch began;
loading holds what was read and what it replaces. `EngramTrainer` with checkpoints takes 1.24.
"""
_PER_ROW = 8
"Bytes that the row-wise optimiser keeps of a row."
_TAKEN = 0.95
"Of what is free: what a suggestion takes, so that it fits when it is tried a little later."
_GROUPS = Path("/sys/fs/cgroup")
"Where Linux says what a container may use: limit, what is used, and of what, in its two versions."
_LIMITS = (
    ("memory.max", "memory.current", "memory.stat", "inactive_file"),
    (
        "memory/memory.limit_in_bytes",
        "memory/memory.usage_in_bytes",
        "memory/memory.stat",
        "total_inactive_file",
    ),
)


def check_room(config: EngramConfig, plans: Plans, device: torch.device) -> None:
    """Raise `BadInput`, which says what would fit, where tables and their training do not."""
    rows = sum(plan.rows for plan in plans.layers.values())
    a_row, free = _COPIES * (4 * config.width + _PER_ROW), free_bytes(device)
    if free is None or rows * a_row <= free:
        return
    tables = tables_of(config)
    # Tables have the next primes of rows: what these are more stays about the same.
    more = rows - config.rows * tables * len(plans.layers)
    fits = int(_TAKEN * free / a_row - more) // (tables * len(plans.layers))
    raise BadInput(
        f"{rows:,} rows of {config.width} numbers need {rows * a_row / 1e9:,.1f} GB to be trained, "
        f"and {free / 1e9:,.1f} GB are free on {device}; "
        + (
            f"rows={fits:,} would fit (memory_size={fits * tables:,})"
            if fits > 0
            else "use fewer layers or heads, or a smaller width"
        )
    )


def free_bytes(device: torch.device) -> int | None:
    """Memory that is free on a device; None where nobody says."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    found = [_machine(Path("/proc/meminfo")), *(_group(*names) for names in _LIMITS)]
    return min((free for free in found if free is not None), default=None)


def _machine(path: Path) -> int | None:
    available = _numbers(path).get("MemAvailable:")
    return None if available is None else available * 1024


def _group(limit: str, used: str, kinds: str, cached: str) -> int | None:
    """What a container may use yet; None where it has no limit."""
    try:
        left = int((_GROUPS / limit).read_text()) - int((_GROUPS / used).read_text())
    except (OSError, ValueError):  # `max` is no number
        return None
    # What is cached of files counts as used, and gives way.
    return max(0, left + _numbers(_GROUPS / kinds).get(cached, 0))


def _numbers(path: Path) -> dict[str, int]:
    """A file of names and numbers, one pair a line."""
    try:
        pairs = [line.split()[:2] for line in path.read_text().splitlines()]
    except OSError:
        return {}
    return {name: int(number) for name, number in pairs}
