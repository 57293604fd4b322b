"""Padded batches write what each prompt gets by itself."""

from __future__ import annotations

from engram_transformers.api import Host
from engram_transformers.evaluation.generate import generate
from engram_transformers.types import Fact, HostIdentity
from hosts import tiny, tiny_tokenizer


def test_padding_changes_no_answer(tmp_path):
    host = Host(tiny("llama"), tiny_tokenizer(), HostIdentity("tiny", "0"))
    facts = [Fact("Who is it?" + " Really?" * i, "Ada " * (i + 1)) for i in range(7)]
    with host.open_memory(tmp_path / "m", address="exact") as memory:
        memory.teach(facts)
        asked = [*(fact.prompt for fact in facts), "What is this?", "Green"]
        prompts = [host.tokens.prompt_ids(each, form="chat") for each in asked]
        limits = [4 * i + 8 for i in range(len(prompts))]
        stop = host.tokens.stop
        padded = generate(host.adapter, prompts, max_new_tokens=limits, stop=stop, batch=4)
        plain = [
            generate(host.adapter, [prompt], max_new_tokens=limit, stop=stop)[0]
            for prompt, limit in zip(prompts, limits, strict=True)
        ]
    assert padded == plain
    assert [host.tokens.decode_answer(ids) for ids in padded[:7]] == [
        fact.answer.strip() for fact in facts
    ]
