"""What one pass of a host reads: texts of like length, padded behind, and what came before."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from engram_transformers.models.adapter import Adapter

BATCH_TOKENS = 2048
"Padded tokens in one pass; larger batches gain nothing on a processor."


def of_like_length(sizes: Sequence[int], *, batch_tokens: int) -> Iterator[list[int]]:
    """Indices of texts of so many tokens, in batches of as many as fit in a pass."""
    batch: list[int] = []
    for i in sorted(range(len(sizes)), key=sizes.__getitem__):
        if batch and sizes[i] * (len(batch) + 1) > batch_tokens:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def padded(
    texts: Sequence[Sequence[int]], *, device: torch.device | None = None, before: int = 0
) -> tuple[Tensor, Tensor]:
    """(text, time) ids and the mask of real tokens, which begins with so many read `before`."""
    width = max(map(len, texts))
    ids = [[*text, *[0] * (width - len(text))] for text in texts]
    mask = [[1] * (before + len(text)) + [0] * (width - len(text)) for text in texts]
    # Named, since rows without any token would be floats.
    return (
        torch.tensor(ids, dtype=torch.long, device=device),
        torch.tensor(mask, dtype=torch.long, device=device),
    )


def read_once(adapter: Adapter, ids: Tensor, *, rows: int) -> Any:
    """A cache of one beginning (1, time) for so many rows; None where a host keeps none."""
    if not ids.shape[1]:
        return None
    past = adapter.decoder(input_ids=ids, use_cache=True).past_key_values
    return past if past is None else branched(past, rows=rows)


def branched(past: Any, *, rows: int = 1) -> Any:
    """A cache of one text for so many rows, to go on from; the given one stays as it is."""
    layers = getattr(past, "layers", None)
    if layers and all(type(layer) in _GROWING for layer in layers):
        twin = copy.copy(past)
        twin.layers = [copy.copy(layer) for layer in layers]
    else:
        twin = copy.deepcopy(past)
    if rows > 1:
        twin.batch_repeat_interleave(rows)
    return twin


_GROWING = (DynamicLayer, DynamicSlidingWindowLayer)
"Layers of a cache that make new tensors of what they hold and what comes, and change none."
