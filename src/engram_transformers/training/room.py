"""Steps that do not fit into memory, as an error that says what would."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from engram_transformers.errors import BadInput


@contextmanager
def within_memory(*, batch: int, device: torch.device) -> Iterator[None]:
    """Say it as `BadInput` where what is done here, with batches of this size, does not fit."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        fits = f"a batch of {batch // 2} takes about half" if batch > 1 else "use a smaller host"
        raise BadInput(
            f"a step with a batch of {batch} does not fit into the memory that is free on "
            f"{device}; {fits}"
        ) from error


def _is_out_of_memory(error: Exception) -> bool:
    # The allocator of the CPU has no error of its own.
    known = isinstance(error, MemoryError | torch.OutOfMemoryError)
    return known or "allocate memory" in str(error)
