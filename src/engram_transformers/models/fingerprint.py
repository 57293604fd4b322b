"""Tells one host from another: 32 hexadecimal digits that do not depend on where it runs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

from engram_transformers.errors import PlaceNotFound
from engram_transformers.models.adapter import Adapter

# A list of what counts, not of what does not: a newer transformers adds fields to every
# configuration, and a memory must still recognise its host then.
_STRUCTURE = (
    "model_type",
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "hidden_act",
    "rope_parameters",
    "sliding_window",
    "tie_word_embeddings",
)
_PROBE = "The billing service uses port 8443;\n  naïve café, 東京 — isn't it?\tYes: 3.14"
_SAMPLES = 256


@torch.no_grad()
def fingerprint(model: nn.Module, tokenizer: Any = None) -> str:
    """The host's identity from its structure, its tokenizer and a sample of its weights.

    Without a tokenizer, that of the model alone.

    Equal on CPU and GPU, in every process, with or without hooks, and whether a float32 file was
    loaded as float32 or as bfloat16. A float32 file loaded as float16 is rounded twice, and a
    quantised host computes something else: those are different hosts.
    """
    adapter = Adapter(model)
    digest = hashlib.sha256()
    for part in (_structure(adapter.config), *_vocabulary(tokenizer)):
        digest.update(json.dumps(part, sort_keys=True).encode())
    for tensor in _telling_tensors(adapter):
        digest.update(json.dumps(list(tensor.shape)).encode())
        digest.update(_sample(tensor))
    return digest.hexdigest()[:32]


def _structure(config: Any) -> dict[str, Any]:
    return {name: getattr(config, name, None) for name in _STRUCTURE}


def _vocabulary(tokenizer: Any) -> Iterator[Any]:
    if tokenizer is None:
        return
    yield tokenizer.get_vocab()
    yield tokenizer.special_tokens_map
    yield tokenizer(_PROBE)["input_ids"]


def _telling_tensors(adapter: Adapter) -> Iterator[Tensor]:
    """Tensors that no two hosts share: a fine-tuned one differs in some of them."""
    yield from adapter.input_embeddings.parameters()
    for block in (adapter.layers[0], adapter.layers[len(adapter.layers) // 2], adapter.layers[-1]):
        yield from block.parameters()
    with suppress(PlaceNotFound):
        yield from adapter.final_norm.parameters()


def _sample(tensor: Tensor) -> bytes:
    """A few values spread evenly over the tensor, as bytes that do not depend on the device."""
    flat = tensor.detach().reshape(-1)
    steps = torch.arange(min(_SAMPLES, flat.numel()), device=flat.device)
    values = flat[steps * max(1, flat.numel() // _SAMPLES)].cpu()
    if values.is_floating_point():
        # float32 rounded here and float32 rounded while loading are the same bfloat16.
        values = values.to(torch.bfloat16).view(torch.int16)
    return bytes(values.contiguous().view(torch.uint8).numpy().tobytes())
