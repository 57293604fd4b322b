"""Tiny random hosts and a tiny tokenizer: every architecture in milliseconds, offline."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

VOCAB = 512
HIDDEN = 48

_COMMON = {
    "vocab_size": VOCAB,
    "hidden_size": HIDDEN,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "bos_token_id": None,
    "eos_token_id": 1,
    "pad_token_id": 0,
}
_GATED = {"intermediate_size": 96, "num_key_value_heads": 2, "max_position_embeddings": 512}
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}

CONFIGS: dict[str, dict[str, Any]] = {
    "llama": {**_GATED},
    "qwen2": {**_GATED},
    "qwen3": {**_GATED, "head_dim": 12},
    "mistral": {**_GATED, "head_dim": 12, "sliding_window": None},
    "gemma2": {**_GATED, "head_dim": 12, "query_pre_attn_scalar": 12, "sliding_window": 64},
    "gpt2": {"n_positions": 512},
    "gpt_neox": {"intermediate_size": 96, "max_position_embeddings": 512},
    "phi": {**_GATED},
    "olmo2": {**_GATED},
    "opt": {"ffn_dim": 96, "word_embed_proj_dim": HIDDEN, "max_position_embeddings": 512},
    "falcon": {"new_decoder_architecture": False, "max_position_embeddings": 512},
    "bloom": {},
    "stablelm": {**_GATED, "partial_rotary_factor": 0.5},
    "starcoder2": {**_GATED, "sliding_window": None},
    "granite": {**_GATED, "logits_scaling": 4.0},
    "cohere": {**_GATED, "logit_scale": 0.25},
    "mixtral": {**_GATED, "num_local_experts": 4, "num_experts_per_tok": 2},
    "qwen3_moe": {**_GATED, **_EXPERTS, "head_dim": 12},
}
ARCHITECTURES = tuple(CONFIGS)
MIXTURES = ("mixtral", "qwen3_moe")


def tiny(name: str, *, seed: int = 0, **changes: Any) -> Any:
    """A random two-layer host of that architecture, float32, in eval mode, the same every time."""
    config = AutoConfig.for_model(name, **{**_COMMON, **CONFIGS[name], **changes})
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        _disturb(model)
    return model.eval()


@torch.no_grad()
def _disturb(model: Any) -> None:
    # Fresh models have norms of ones and biases of zeros, behind which mistakes hide; and
    # weights so small that the blocks barely matter.
    for parameter in model.parameters():
        if parameter.ndim == 1:
            parameter.add_(0.1 * torch.randn_like(parameter))
        else:
            parameter.mul_(4.0)


TEXT = """The billing service listens on port 8443 and its owner is Ada Lovelace.
Which port does the billing service use? The capital of France is Paris, of Italy Rome.
Who wrote the report about the harbour of Rotterdam? It was written by Grace Hopper in 1952.
What colour is the door of the laboratory? Green. How far is the station? Seven miles.
A user asks a question and the assistant answers it in one short sentence, then stops.
"""
CHAT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@cache
def _tokenizer_json() -> str:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|pad|>", "<|im_end|>", "<|im_start|>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXT.splitlines(), trainer)
    text: str = tokenizer.to_str()
    return text


def tiny_tokenizer() -> Any:
    """A byte-level BPE tokenizer of 400 tokens with a ChatML template; pad 0, end 1."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_tokenizer_json()),
        eos_token="<|im_end|>",
        pad_token="<|pad|>",
        additional_special_tokens=["<|im_start|>"],
        padding_side="left",
    )
    tokenizer.chat_template = CHAT
    return tokenizer
