"""Did anything change? Logits with the memories attached against those without, bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from engram_transformers.attach import prompt_ends, silenced
from engram_transformers.evaluation.generate import SharedPrefix
from engram_transformers.models.adapter import Adapter


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
    same = not len(shared) or _equal(adapter, shared.ids, ends=0, past=dict)
    verdicts = []
    for ids in prompts:
        rest = tuple(ids[len(shared) :])
        equal = _equal(adapter, rest, ends=len(ids), past=lambda: shared.cache_for(1))
        verdicts.append(same and equal)
        progress(1)
    return verdicts


def _equal(
    adapter: Adapter, ids: Sequence[int], *, ends: int, past: Callable[[], dict[str, Any]]
) -> bool:
    model, tokens = adapter.model, torch.tensor([list(ids)], device=adapter.device)
    with prompt_ends(model, [ends]):
        attached: Tensor = model(input_ids=tokens, **past()).logits
    with silenced(model):
        bare: Tensor = model(input_ids=tokens, **past()).logits
    return torch.equal(attached, bare)
