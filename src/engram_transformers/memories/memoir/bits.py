"""Binary masks as packed words, and how alike two of them are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engram_transformers.errors import BadInput

Metric = Literal["cosine", "l2", "inner_product", "overlap"]
METRICS: tuple[str, ...] = get_args(Metric)

Words = NDArray[np.uint64]
Counts = NDArray[np.int64]

_ONES = np.array([i.bit_count() for i in range(256)], np.uint8)


def _table_count(words: Words) -> NDArray[np.uint8]:
    counts = _ONES[words[..., None].view(np.uint8)]
    total: NDArray[np.uint8] = counts.sum(axis=-1, dtype=np.uint8)
    return total


popcount: Callable[[Words], NDArray[np.uint8]] = getattr(np, "bitwise_count", _table_count)
"Ones in each word; numpy has it from version 2 on."


def width(features: int) -> int:
    """Words of 64 bits that a mask of so many features takes."""
    return -(-features // 64)


def as_rows(masks: Any, features: int) -> Tensor:
    """(n, features) of bool, from masks of ones and zeros of any type; `BadInput` otherwise."""
    given = masks if isinstance(masks, Tensor) else torch.as_tensor(np.asarray(masks))
    if given.ndim not in (1, 2) or given.shape[-1] != features:
        raise BadInput(
            f"a mask has shape {tuple(given.shape)}; this one is for {features} features"
        )
    given = given.detach().cpu().reshape(-1, features)
    on = given != 0
    if not torch.equal(on.to(given.dtype), given):
        raise BadInput("a mask holds other values than 0 and 1")
    return on


def pack(masks: Tensor) -> Words:
    """(n, words) of masks (n, features) of bool."""
    raw = np.packbits(masks.numpy(), axis=1, bitorder="little")
    words = np.zeros((len(raw), width(masks.shape[1]) * 8), np.uint8)
    words[:, : raw.shape[1]] = raw
    return words.view(np.uint64)


def unpack(words: Words, features: int) -> Tensor:
    """(n, features) of float32 ones and zeros: what `pack` was given."""
    raw = np.unpackbits(words.view(np.uint8), axis=1, count=features, bitorder="little")
    return torch.from_numpy(raw).float()


def ones(words: Words) -> Counts:
    """(n,): active features of each mask."""
    return np.asarray(popcount(words).sum(axis=1, dtype=np.int64))


def alike(metric: str, shared: Any, first: Any, second: Any) -> NDArray[np.float64]:
    """How alike masks are that have `first` and `second` ones and `shared` of them in common.

    All are 1 for equal masks, and never above. Masks are compared as vectors of length one, as
    in the seed, so that `inner_product` is `cosine` by another name; `l2` is ``1 / (1 + d)`` with
    ``d`` the distance of these vectors; `overlap` is the share of the larger mask that both have,
    which for masks of one size is the paper's ``|m & m'| / k``.
    """
    shared, first, second = (np.asarray(x, np.float64) for x in (shared, first, second))
    if metric == "overlap":
        return np.asarray(shared / np.maximum(np.maximum(first, second), 1))
    cosine = shared / np.sqrt(np.maximum(first * second, 1))
    if metric == "l2":
        return np.asarray(1 / (1 + np.sqrt(np.maximum(2 - 2 * cosine, 0))))
    return np.asarray(cosine)


def voted(masks: Tensor) -> Tensor:
    """(features,) of bool: the features that most of the masks (n, features) have, as many as
    they have on average; among equals, the first ones."""
    votes = masks.sum(dim=0)
    count = round(float(masks.sum(dim=1).float().mean()))
    order = torch.argsort(votes, descending=True, stable=True)
    out = torch.zeros(masks.shape[1], dtype=torch.bool)
    out[order[:count]] = True
    return out
