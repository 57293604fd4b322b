"""add_engram, save_engram, load_engram: the third seed's interface, strict about what is loaded."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from engram_transformers import add_engram, load_engram, remove_engram, save_engram
from engram_transformers.api import Host
from engram_transformers.attaching import attached
from engram_transformers.errors import BadInput, HostMismatch, LayoutMismatch, PlaceNotFound
from engram_transformers.models.load import LoadedHost
from hosts import tiny, tiny_tokenizer

TOKENIZER = tiny_tokenizer()
IDS = torch.tensor([TOKENIZER("Which port does the billing service use?")["input_ids"]])


def engram(name: str = "llama", seed: int = 0, **options: Any) -> Any:
    given = {"memory_size": 1600, "inject_layers": [0, 1], "width": 4, "heads": 4}
    return add_engram(tiny(name, seed=seed), tokenizer=TOKENIZER, **{**given, **options})


def stirred(model: Any) -> Any:
    """The same with rows that say something."""
    [memory] = attached(model)
    with torch.no_grad():
        for part in memory.layers.values():
            part.table.normal_(generator=torch.Generator().manual_seed(0))
    return model


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    return model(IDS).logits


@pytest.mark.parametrize("gate_type", ["learned", "fixed", "content-based"])
@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2"])
def test_it_changes_nothing_until_it_is_trained(name: str, gate_type: str) -> None:
    model = engram(name, gate_type=gate_type)
    assert torch.equal(logits(model), logits(tiny(name)))
    assert not torch.equal(logits(stirred(model)), logits(tiny(name)))
    assert torch.equal(logits(model.remove_engram()), logits(tiny(name)))
    assert not hasattr(model, "save_engram")


def test_memory_size_is_that_of_a_layer() -> None:
    [memory] = attached(engram(memory_size=1600))
    for part in memory.layers.values():
        assert 1600 <= len(part.table) < 2400  # primes from 200 on, one for each of eight tables


@pytest.mark.parametrize("layout", ["deepseek", "qwen", "unigram"])
def test_what_is_saved_is_loaded_bit_for_bit(layout: str, tmp_path: Path) -> None:
    model = stirred(engram(layout=layout))
    assert model.save_engram(tmp_path / "e", tokenizer=TOKENIZER) == tmp_path / "e"
    other = load_engram(tiny("llama"), tmp_path / "e", tokenizer=TOKENIZER)
    assert torch.equal(logits(other), logits(model))
    fresh = engram(layout=layout)
    fresh.load_engram(tmp_path / "e", tokenizer=TOKENIZER)
    assert torch.equal(logits(fresh), logits(model))


def test_what_is_saved_is_a_memory_that_a_host_opens(tmp_path: Path) -> None:
    model = stirred(engram())
    save_engram(model, tmp_path / "e", tokenizer=TOKENIZER)
    loaded = LoadedHost.of(tiny("llama"), TOKENIZER)
    host = Host(loaded.model, loaded.tokenizer, loaded.identity)
    with host.open_memory(tmp_path / "e", read_only=True):
        assert torch.equal(logits(host.model), logits(model))


def test_saving_again_replaces_and_another_memory_is_left_alone(tmp_path: Path) -> None:
    model = engram()
    save_engram(model, tmp_path / "e", tokenizer=TOKENIZER)
    save_engram(stirred(model), tmp_path / "e", tokenizer=TOKENIZER)
    other = load_engram(tiny("llama"), tmp_path / "e", tokenizer=TOKENIZER)
    assert torch.equal(logits(other), logits(model))
    with pytest.raises(LayoutMismatch, match="rows"):
        save_engram(engram(memory_size=800), tmp_path / "e", tokenizer=TOKENIZER)


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"memory_size": 800}, LayoutMismatch, "rows=200.*100"),
        ({"layout": "qwen"}, LayoutMismatch, "layout='deepseek'.*'qwen'"),
        ({"inject_layers": [1]}, LayoutMismatch, "layers"),
        ({"seed": 1}, HostMismatch, "host"),
    ],
)
def test_another_layout_or_host_is_refused_and_loses_nothing(
    options: dict[str, Any], error: type[Exception], match: str, tmp_path: Path
) -> None:
    save_engram(stirred(engram()), tmp_path / "e", tokenizer=TOKENIZER)
    model = stirred(engram(**options))
    before = logits(model)
    with pytest.raises(error, match=match):
        model.load_engram(tmp_path / "e", tokenizer=TOKENIZER)
    assert torch.equal(logits(model), before)


def test_a_model_that_loads_nothing_is_left_bare(tmp_path: Path) -> None:
    save_engram(stirred(engram()), tmp_path / "e", tokenizer=TOKENIZER)
    model = tiny("llama", seed=3)
    with pytest.raises(HostMismatch):
        load_engram(model, tmp_path / "e", tokenizer=TOKENIZER)
    assert attached(model) == () and not hasattr(model, "load_engram")
    with pytest.raises(BadInput, match="no trained memory"):
        load_engram(model, tmp_path / "nothing", tokenizer=TOKENIZER)


def test_another_tokenizer_of_the_same_model_is_named_as_what_differs(tmp_path: Path) -> None:
    save_engram(engram(), tmp_path / "e")
    other = tiny_tokenizer()
    other.add_tokens(["<new>"])
    with pytest.raises(HostMismatch, match="another tokenizer"):
        load_engram(tiny("llama"), tmp_path / "e", tokenizer=other)


def test_a_deep_copy_saves_itself(tmp_path: Path) -> None:
    model = stirred(engram())
    twin = copy.deepcopy(model)
    with torch.no_grad():
        [memory] = attached(twin)
        memory.layers["0"].table.zero_()
    twin.save_engram(tmp_path / "twin", tokenizer=TOKENIZER)
    found = load_engram(tiny("llama"), tmp_path / "twin", tokenizer=TOKENIZER)
    assert torch.equal(logits(found), logits(twin))
    assert not torch.equal(logits(found), logits(model))


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"gate_type": "open"}, BadInput, "learned, fixed, content-based"),
        ({"inject_layers": [7]}, PlaceNotFound, "7"),
        ({"memory_size": 3}, BadInput, "8 tables need a row each"),
        ({"memory_size": 10**13}, BadInput, r"memory_size=\d"),
        ({"tables": 3}, BadInput, "no option 'tables'"),
        ({"heads": 2.5}, BadInput, "heads is 2.5"),
        ({"inject_layers": [0.5]}, BadInput, "layers"),
        ({"orders": "23"}, BadInput, "orders is '23'"),
        ({"memory_size": "many"}, BadInput, "memory_size is 'many'"),
    ],
)
def test_bad_options_are_refused_and_the_model_is_left_bare(
    options: dict[str, Any], error: type[Exception], match: str
) -> None:
    model = tiny("llama")
    with pytest.raises(error, match=match):
        add_engram(model, tokenizer=TOKENIZER, **{"heads": 4, **options})
    assert attached(model) == () and not hasattr(model, "save_engram")


def test_it_is_added_once() -> None:
    with pytest.raises(BadInput, match="already"):
        add_engram(engram(), tokenizer=TOKENIZER)
    with pytest.raises(BadInput, match="no trained memory"):
        remove_engram(tiny("llama"))
