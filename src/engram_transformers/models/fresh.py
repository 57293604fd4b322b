"""Small decoders with random weights, to be trained from the beginning."""

from __future__ import annotations

from typing import Any

import torch


def fresh_decoder(
    *,
    vocab: int,
    hidden: int,
    blocks: int,
    heads: int,
    inner: int,
    context: int,
    seed: int,
    spread: float = 0.02,
    pad: int | None = None,
    end: int | None = None,
) -> Any:
    """A Llama decoder in float32 whose head is its embedding; a seed gives the same weights.

    Args:
        inner: numbers within a feed-forward layer.
        context: tokens that it reads at most.
        spread: standard deviation of the weights to begin with.
        pad, end: ids of the tokens that pad and end a text.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=vocab,
        hidden_size=hidden,
        num_hidden_layers=blocks,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        intermediate_size=inner,
        max_position_embeddings=context,
        initializer_range=spread,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=end,
        pad_token_id=pad,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config)


def fast_tokenizer(tokenizer: Any, *, pad: str, end: str) -> Any:
    """A tokenizer of `tokenizers` as transformers', with these tokens to pad and to end."""
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=pad, eos_token=end, clean_up_tokenization_spaces=False
    )
