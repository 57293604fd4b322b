"""What each trained memory computes, and how large it is."""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from cases import disturb, fresh, host_of
from engram_transformers.api import Host
from engram_transformers.attaching import attach, detach
from engram_transformers.errors import BadInput, MissingExtra, PlaceNotFound
from engram_transformers.memories.lora import Lora, LoraConfig
from engram_transformers.memories.tuned import (
    Bottleneck,
    BottleneckConfig,
    FineTune,
    FineTuneConfig,
)
from engram_transformers.models.adapter import Adapter
from engram_transformers.types import HostIdentity
from hosts import tiny, tiny_tokenizer

IDS = torch.arange(3, 20)[None]


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS).logits


def host(name: str, **changes: Any) -> Host:
    return Host(tiny(name, **changes), tiny_tokenizer(), HostIdentity(name, name))


def close(one: torch.Tensor, other: torch.Tensor) -> bool:
    return torch.allclose(one, other, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_fine_tuning_equals_changing_the_weights(name: str) -> None:
    one = host(name)
    memory: Any = disturb(fresh("fine_tune", one))
    changed = copy.deepcopy(one.model)
    adapter = Adapter(changed)
    for layer, part in memory.parts.items():
        weight: Any = adapter.place("mlp_out", int(layer)).module.weight
        change = part.dW.detach()
        weight.data += change if name == "llama" else change.T
    with attach(one.model, memory):
        assert close(logits(one.model), logits(changed))


@pytest.mark.parametrize("name", ["llama", "gpt2", "falcon"])
def test_lora_equals_adding_its_product_to_the_weights(name: str) -> None:
    one = host(name)
    memory: Any = disturb(fresh("lora", one))
    changed = copy.deepcopy(one.model)
    linears = {n: Adapter(changed).linears(n) for n in range(2)}
    for key in memory.down:
        layer, _, path = key.partition("/")
        weight: Any = linears[int(layer)][path.replace("/", ".")].weight
        change = 32 / 4 * memory.up[key].weight.detach() @ memory.down[key].weight.detach()
        weight.data += change if name != "gpt2" else change.T
    with attach(one.model, memory):
        assert close(logits(one.model), logits(changed))


def test_lora_changes_every_linear_layer_of_the_late_blocks_alone() -> None:
    one = host("llama", num_hidden_layers=3)
    memory = Lora(LoraConfig(layers=2), adapter=one.adapter)
    names = {key.rpartition("/")[2] for key in memory.down}
    assert names == {
        *("q_proj", "k_proj", "v_proj", "o_proj"),
        *("gate_proj", "up_proj", "down_proj"),
    }
    assert {key[0] for key in memory.down} == {"1", "2"} and memory.first_block == 1


def test_places_are_found_behind_a_wrapper() -> None:
    for name in ("llama", "gpt2", "gpt_neox"):
        one = host(name)
        place, linears = one.adapter.place("mlp_out", 1), one.adapter.linears(1)
        with attach(one.model, fresh("lora", one)):
            assert Adapter(one.model).place("mlp_out", 1) == place
            assert one.adapter.linears(1) == linears


def test_what_users_wrapped_themselves_is_left_alone() -> None:
    peft = pytest.importorskip("peft")
    one = host("llama")
    options = peft.LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    peft.inject_adapter_in_model(options, one.model, "theirs")
    before, modules = logits(one.model), dict(one.model.named_modules())
    memory = disturb(fresh("lora", one))
    with attach(one.model, memory):
        assert not torch.equal(logits(one.model), before)
    after = dict(one.model.named_modules())
    assert torch.equal(logits(one.model), before)
    assert list(after) == list(modules) and all(after[n] is modules[n] for n in modules)


def test_making_a_memory_freezes_nothing_and_draws_no_random_numbers() -> None:
    one = host("llama")
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    fresh("lora", one)
    assert torch.equal(torch.rand(1), expected)
    assert all(p.requires_grad for p in one.model.parameters())


@pytest.mark.parametrize("kind", ["lora", "fine_tune", "bottleneck", "bias"])
def test_a_half_precision_host_is_trained_in_full_precision(kind: str) -> None:
    one = host("llama")
    one.model.to(torch.bfloat16)
    memory = fresh(kind, one)
    before = logits(one.model)
    assert {p.dtype for p in memory.parameters()} == {torch.float32}
    with attach(one.model, memory):
        assert torch.equal(logits(one.model), before)
        disturb(memory)
        assert logits(one.model).dtype == torch.bfloat16
        assert not torch.equal(logits(one.model), before)


def test_the_default_bottleneck_is_as_large_as_the_default_lora() -> None:
    # The sizes of SmolLM2-135M, with few blocks: the sizes are per block.
    sizes = {"hidden_size": 576, "intermediate_size": 1536, "head_dim": 64}
    heads = {"num_attention_heads": 9, "num_key_value_heads": 3, "num_hidden_layers": 1}
    one = host("llama", **sizes, **heads)
    counts = [
        sum(p.numel() for p in memory.parameters())
        for memory in (
            Lora(LoraConfig(), adapter=one.adapter),
            Bottleneck.open(one.adapter, one.tokens, BottleneckConfig()),
        )
    ]
    assert counts[0] == 162_816 and abs(counts[1] / counts[0] - 1) < 0.02


def test_a_host_without_the_place_says_what_to_use() -> None:
    one = host_of("mixtral")
    with pytest.raises(PlaceNotFound, match="block_out"):
        FineTune.open(one.adapter, one.tokens, FineTuneConfig())


@pytest.mark.parametrize(
    ("kind", "wrong"), [("lora", "rank"), ("lora", "layers"), ("bottleneck", "width")]
)
def test_sizes_below_one_are_refused(kind: str, wrong: str) -> None:
    cls = {"lora": Lora, "bottleneck": Bottleneck}[kind]
    one = host_of("llama")
    with pytest.raises(BadInput, match=wrong):
        cls.open(one.adapter, one.tokens, cls.Config(**{wrong: 0}))


def test_the_options_that_a_memory_was_made_with_open_it_again(tmp_path: Path) -> None:
    one, options = host_of("llama"), {"targets": "q_proj,v_proj", "alpha": 8}
    for _ in range(2):
        one.open_memory(tmp_path / "m", kind="lora", **options).close()
    with pytest.raises(BadInput, match=r"created with targets=\('q_proj', 'v_proj'\), not \('q"):
        one.open_memory(tmp_path / "m", targets="q_proj")


def test_without_peft_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(MissingExtra, match=r"engram-transformers\[lora\]"):
        fresh("lora", host_of("llama"))


def test_a_memory_that_cannot_enter_leaves_no_trace() -> None:
    one = host("llama")
    memory = fresh("lora", one)

    def fail(*_: object) -> None:
        raise RuntimeError("no")

    memory.enter = fail
    with pytest.raises(RuntimeError, match="no"):
        attach(one.model, memory)
    assert "engram_observer" not in one.model.__dict__ and "generate" not in one.model.__dict__
    detach(one.model)
