"""Did anything change? Logits with the memories attached against those without, bit for bit."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from engram_transformers.attach import prompt_ends, silenced
from engram_transformers.evaluation.generate import SharedPrefix
from engram_transformers.models.adapter import Adapter

BATCH = 8
"Prompts that are compared at once; their logits over a vocabulary take much room."


@torch.no_grad()
def bit_equal(
    adapter: Adapter,
    prompts: Sequence[Sequence[int]],
    *,
    progress: Callable[[int], None] = lambda done: None,
) -> list[bool]:
    """For each prompt (token ids), whether all its logits equal the bare host's.

    What all prompts begin with is read once, with the memories attached; it is the same for
    both sides, so it is compared by itself first.
    """
    shared = SharedPrefix(adapter, prompts)
    same = _equal(adapter, [shared.ids], ends=[0], past=dict) if len(shared) else [True]
    verdicts: dict[int, bool] = {}
    for group in _of_one_length(prompts):
        rows = [prompts[i][len(shared) :] for i in group]
        ends = [len(prompts[i]) for i in group]
        equal = _equal(adapter, rows, ends=ends, past=partial(shared.cache_for, len(rows)))
        verdicts |= {i: same[0] and one for i, one in zip(group, equal, strict=True)}
        progress(len(group))
    return [verdicts[i] for i in range(len(prompts))]


def _of_one_length(prompts: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    """Indices of prompts of the same length: a batch without padding."""
    by_length: dict[int, list[int]] = defaultdict(list)
    for i, ids in enumerate(prompts):
        by_length[len(ids)].append(i)
    for group in by_length.values():
        for start in range(0, len(group), BATCH):
            yield group[start : start + BATCH]


def _equal(
    adapter: Adapter,
    rows: Sequence[Sequence[int]],
    *,
    ends: Sequence[int],
    past: Callable[[], dict[str, Any]],
) -> list[bool]:
    """For each row, whether its logits are the same with and without the memories."""
    model, tokens = adapter.model, torch.tensor([list(ids) for ids in rows], device=adapter.device)
    with prompt_ends(model, ends):
        attached: Tensor = model(input_ids=tokens, **past()).logits
    with silenced(model):
        bare: Tensor = model(input_ids=tokens, **past()).logits
    return [torch.equal(a, b) for a, b in zip(attached, bare, strict=True)]
