"""Greedy answers to many prompts: what a user would see, in batches without padding.

Prompts of one length are decoded together, so that no row holds padding, and what all of them
begin with (a system message) is read once.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from engram_transformers.models.adapter import Adapter

BATCH = 32
WORTH_SHARING = 8
"Tokens that all prompts must share before they are read once for all."

Prompt = tuple[int, ...]


@torch.no_grad()
def generate(
    adapter: Adapter,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: Sequence[int] | int,
    stop: int | None,
    batch: int = BATCH,
    progress: Callable[[int], None] = lambda done: None,
    streamer: Any = None,
    pad: bool = False,
) -> list[list[int]]:
    """New token ids after each prompt, up to and with the stop token, by `model.generate`.

    Args:
        max_new_tokens: one limit for all prompts, or one each.
        streamer: of transformers; is told each token of a single prompt as it is written.
        pad: batch prompts by the length of their answers instead, with padding: fewer and
            fuller batches, and logits that are equal up to rounding.
    """
    limits = [max_new_tokens] * len(prompts) if isinstance(max_new_tokens, int) else max_new_tokens
    shared = SharedPrefix(adapter, prompts)
    written: dict[int, list[int]] = {}
    grouped = _by_limit if pad else _groups
    for group in grouped(prompts, limits, size=batch):
        rows, mask = _padded([prompts[i] for i in group], at=len(shared))
        ids = torch.tensor(rows, device=adapter.device)
        out = adapter.model.generate(
            input_ids=ids,
            attention_mask=torch.tensor(mask, device=adapter.device),
            max_new_tokens=max(limits[i] for i in group),
            do_sample=False,
            pad_token_id=stop,
            streamer=streamer,
            **shared.cache_for(len(group)),
        )
        for i, row in zip(group, out[:, ids.shape[1] :].tolist(), strict=True):
            written[i] = _until_stop(row, stop)[: limits[i]]
        progress(len(group))
    return [written[i] for i in range(len(prompts))]


class SharedPrefix:
    """What a set of prompts begins with, read once; its cache is copied for every batch."""

    def __init__(self, adapter: Adapter, prompts: Sequence[Sequence[int]]) -> None:
        self.ids = _common_prefix(prompts)
        self._cache: Any = None
        if self.ids:
            ids = torch.tensor([list(self.ids)], device=adapter.device)
            self._cache = adapter.decoder(input_ids=ids, use_cache=True).past_key_values

    def __len__(self) -> int:
        return len(self.ids)

    def cache_for(self, rows: int) -> dict[str, Any]:
        """The keyword argument that lets a call of so many rows go on after the prefix."""
        if self._cache is None:
            return {}
        past = copy.deepcopy(self._cache)
        if rows > 1:
            past.batch_repeat_interleave(rows)
        return {"past_key_values": past}


def _common_prefix(prompts: Sequence[Sequence[int]]) -> Prompt:
    if len(prompts) < 2:
        return ()
    # The longest common prefix of all is that of the two extremes in sorted order.
    first, last = min(map(tuple, prompts)), max(map(tuple, prompts))
    size = 0
    # At least one token of each prompt is left to be read.
    while size < min(map(len, prompts)) - 1 and first[size] == last[size]:
        size += 1
    return first[:size] if size >= WORTH_SHARING else ()


def _groups(
    prompts: Sequence[Sequence[int]], limits: Sequence[int], *, size: int
) -> Iterator[list[int]]:
    """Indices of prompts of one length, those with like limits side by side."""
    by_length: dict[int, list[int]] = defaultdict(list)
    for i, prompt in enumerate(prompts):
        by_length[len(prompt)].append(i)
    for indices in by_length.values():
        indices.sort(key=lambda i: limits[i])
        for start in range(0, len(indices), size):
            yield indices[start : start + size]


def _by_limit(
    prompts: Sequence[Sequence[int]], limits: Sequence[int], *, size: int
) -> Iterator[list[int]]:
    """Indices of prompts with like limits, whatever their lengths."""
    order = sorted(range(len(prompts)), key=lambda i: (limits[i], len(prompts[i])))
    for start in range(0, len(order), size):
        yield order[start : start + size]


def _padded(
    prompts: Sequence[Sequence[int]], *, at: int
) -> tuple[list[list[int]], list[list[int]]]:
    """Ids and mask of equal width, padded behind the first `at` tokens, which all share."""
    width = max(map(len, prompts))
    gaps = [width - len(prompt) for prompt in prompts]
    ids = [[*p[:at], *[0] * gap, *p[at:]] for p, gap in zip(prompts, gaps, strict=True)]
    mask = [[*[1] * at, *[0] * gap, *[1] * (width - at - gap)] for gap in gaps]
    return ids, mask


def _until_stop(ids: list[int], stop: int | None) -> list[int]:
    return ids[: ids.index(stop) + 1] if stop in ids else ids
