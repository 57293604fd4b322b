"""Caches from which can be gone on more than once."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import StaticCache

from cases import ARCHITECTURES, host_of
from engram_transformers.models.passes import branched, read_once

BEGINNING = torch.tensor([[5, 6, 7, 8, 9, 10, 11, 12, 13]])
ENDS = torch.tensor([[40, 41], [42, 43]])


def kept(past: Any) -> list[torch.Tensor]:
    return [tensor.clone() for layer in past.layers for tensor in (layer.keys, layer.values)]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@torch.no_grad()
def test_what_is_read_behind_a_branch_leaves_the_cache_as_it_was(architecture: str) -> None:
    adapter = host_of(architecture).adapter
    past = adapter.decoder(input_ids=BEGINNING, use_cache=True).past_key_values
    before, texts = kept(past), torch.cat([BEGINNING.expand(2, -1), ENDS], 1)
    whole = adapter.decoder(input_ids=texts, use_cache=False)[0][:, BEGINNING.shape[1] :]
    for _ in range(2):
        found = adapter.decoder(input_ids=ENDS, past_key_values=branched(past, rows=2))[0]
        assert torch.allclose(found, whole, atol=1e-3, rtol=1e-3)
        assert past.get_seq_length() == BEGINNING.shape[1]
        assert all(map(torch.equal, kept(past), before))


@torch.no_grad()
def test_a_cache_that_is_written_in_place_is_copied() -> None:
    adapter = host_of("llama").adapter
    past = StaticCache(adapter.model.config, max_cache_len=16)
    adapter.decoder(input_ids=BEGINNING, past_key_values=past)
    before = kept(past)
    twin = branched(past)
    adapter.decoder(input_ids=ENDS[:1], past_key_values=twin)
    assert all(map(torch.equal, kept(past), before)) and not all(
        map(torch.equal, kept(twin), before)
    )


@torch.no_grad()
def test_a_beginning_is_read_once_for_all_rows() -> None:
    adapter = host_of("llama").adapter
    assert read_once(adapter, BEGINNING[:, :0], rows=2) is None
    past = read_once(adapter, BEGINNING, rows=2)
    alone = adapter.decoder(input_ids=BEGINNING, use_cache=True).past_key_values
    for one, other in zip(past.layers, alone.layers, strict=True):
        assert torch.equal(one.keys, other.keys.expand(2, -1, -1, -1))
