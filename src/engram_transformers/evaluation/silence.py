"""Did anything change? Logits with the memories attached against those without, bit for bit."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from engram_transformers.attach import prompt_ends, silenced
from engram_transformers.models.adapter import Adapter


@torch.no_grad()
def bit_equal(adapter: Adapter, prompts: Sequence[Sequence[int]]) -> list[bool]:
    """For each prompt (token ids), whether all its logits equal the bare host's."""
    return [_equal(adapter, torch.tensor([list(ids)], device=adapter.device)) for ids in prompts]


def _equal(adapter: Adapter, ids: Tensor) -> bool:
    model = adapter.model
    with prompt_ends(model, [ids.shape[1]]):
        attached: Tensor = model(input_ids=ids).logits
    with silenced(model):
        bare: Tensor = model(input_ids=ids).logits
    return torch.equal(attached, bare)
