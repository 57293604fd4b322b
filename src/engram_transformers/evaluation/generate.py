"""Greedy answers to many prompts: what a user would see, in batches.

What all prompts begin with (a system message) is read once. Padding stands behind it, before
what is each prompt's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from engram_transformers.attaching import whole_prompts
from engram_transformers.models.adapter import Adapter
from engram_transformers.models.passes import branched

BATCH = 96
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
) -> list[list[int]]:
    """New token ids after each prompt, up to and with the stop token, by `model.generate`.

    Args:
        max_new_tokens: one limit for all prompts, or one each.
        streamer: of transformers; is told each token of a single prompt as it is written.
    """
    limits = [max_new_tokens] * len(prompts) if isinstance(max_new_tokens, int) else max_new_tokens
    # A sliding window counts columns, so padding behind the prefix would push it out of sight.
    shared = SharedPrefix(adapter, () if adapter.windowed else prompts)
    written: dict[int, list[int]] = {}
    for group in _groups(prompts, limits, size=batch):
        ids, mask = _padded([prompts[i] for i in group], keep=len(shared), pad=stop or 0)
        out = adapter.model.generate(
            input_ids=ids.to(adapter.device),
            attention_mask=mask.to(adapter.device),
            max_new_tokens=max(limits[i] for i in group),
            do_sample=False,
            pad_token_id=stop,
            **shared.cache_for(len(group)),
            streamer=streamer,
        )
        for i, row in zip(group, out[:, ids.shape[1] :].tolist(), strict=True):
            written[i] = _until_stop(row, stop)[: limits[i]]
        progress(len(group))
    return [written[i] for i in range(len(prompts))]


class SharedPrefix:
    """What a set of prompts begins with, read once; its cache is copied for every batch.

    Nothing is shared where a memory has to know whole prompts before they are read.
    """

    def __init__(self, adapter: Adapter, prompts: Sequence[Sequence[int]]) -> None:
        self.ids = () if whole_prompts(adapter.model) else common_prefix(prompts)
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
        return {"past_key_values": branched(self._cache, rows=rows)}


def common_prefix(prompts: Sequence[Sequence[int]]) -> Prompt:
    """The tokens that all prompts begin with; none where that is not worth a pass of its own."""
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
    """Indices of prompts in batches; those that are answered at like length go together.

    A batch runs until its last answer ends, so long answers do not keep short ones waiting.
    """
    group: list[int] = []
    for i in sorted(range(len(prompts)), key=lambda i: (limits[i], len(prompts[i]))):
        if group and (len(group) == size or limits[i] > 2 * limits[group[0]]):
            yield group
            group = []
        group.append(i)
    if group:
        yield group


def _padded(
    prompts: Sequence[Sequence[int]], *, keep: int, pad: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """(batch, time) ids and mask; padding stands behind the first `keep` tokens."""
    width = max(map(len, prompts))
    ids = [[*p[:keep], *[pad] * (width - len(p)), *p[keep:]] for p in prompts]
    mask = [[1] * keep + [0] * (width - len(p)) + [1] * (len(p) - keep) for p in prompts]
    return torch.tensor(ids), torch.tensor(mask)


def _until_stop(ids: list[int], stop: int | None) -> list[int]:
    return ids[: ids.index(stop) + 1] if stop in ids else ids
