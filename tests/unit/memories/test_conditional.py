"""The third seed's names, and a route as an option from teaching to opening again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from engram_transformers import add_engram, add_lora, save_engram
from engram_transformers.api import Host, load
from engram_transformers.attaching import attached, prompt_ends, silenced
from engram_transformers.errors import BadInput, HostMismatch
from engram_transformers.memories.engram import (
    ConditionalEngram,
    ConditionalEngramLayer,
    ConditionalEngramWrapper,
    Engram,
    LookupPatternDetector,
    create_conditional_engram,
)
from engram_transformers.memories.shared.routed import Routed, RoutedPart
from engram_transformers.routing import rules
from engram_transformers.types import Fact
from hosts import tiny, tiny_tokenizer

KEY, QUESTION = Fact("PORT:billing", "8443"), Fact("Who wrote the report?", "Ada")
OPTIONS = {"layers": (0, 1), "heads": 2, "width": 6, "layout": "span", "learning_rate": 1e-2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made: Path = tmp_path_factory.mktemp("hosts") / "tiny"
    tiny("llama").save_pretrained(made)
    tiny_tokenizer().save_pretrained(made)
    return made


@pytest.fixture(scope="module")
def host(folder: Path) -> Host:
    return load(str(folder))


def test_the_names_of_the_seed() -> None:
    assert ConditionalEngram is ConditionalEngramWrapper is Routed
    assert ConditionalEngramLayer is RoutedPart
    assert LookupPatternDetector is rules.LookupPatternDetector


def test_what_the_route_keeps_shut_is_refused_and_the_rest_is_loaded_by_the_seeds_function(
    host: Host, folder: Path, tmp_path: Path
) -> None:
    options = {**OPTIONS, "epochs": 200, "route": "rules"}
    with host.open_memory(tmp_path / "m", kind="engram", **options) as memory:
        receipt = memory.teach([KEY, QUESTION])
        assert receipt.taught == (KEY.id,)
        [refused] = receipt.refused
        assert refused.fact == QUESTION and "the host says" in refused.reason
        assert host.ask(KEY.prompt) == KEY.answer
        ids = torch.tensor([host.prompts([QUESTION.prompt], form="chat")[0]])
        with torch.no_grad(), prompt_ends(host.model, [ids.shape[1]]):
            said = host.model(input_ids=ids).logits
            with silenced(host.model):
                assert torch.equal(said, host.model(input_ids=ids).logits)
    model, tokenizer = create_conditional_engram(tmp_path / "m", model=str(folder))
    [memory] = attached(model)
    assert isinstance(memory, Engram) and memory.routed
    assert Host(model, tokenizer, host.identity).ask(KEY.prompt) == KEY.answer
    with memory.unrouted():
        assert not memory.routed


def test_a_lora_that_was_trained_with_it_is_not_left_out_silently(
    folder: Path, tmp_path: Path
) -> None:
    host = load(str(folder))
    add_engram(host.model, tokenizer=host.tokenizer, **OPTIONS)
    add_lora(host.model, tokenizer=host.tokenizer, rank=2)
    save_engram(host.model, tmp_path / "both", tokenizer=host.tokenizer)
    with pytest.raises(BadInput, match=r"trained together with a lora.*load_engram"):
        create_conditional_engram(tmp_path / "both", model=str(folder))


def test_what_is_no_trained_engram_memory_of_the_host_is_refused(
    host: Host, folder: Path, tmp_path: Path
) -> None:
    host.open_memory(tmp_path / "other", kind="lookup", address="exact").close()
    host.open_memory(tmp_path / "fresh", kind="engram", **OPTIONS).close()
    for name in ("other", "fresh"):
        with pytest.raises(BadInput, match="no trained Engram memory"):
            create_conditional_engram(tmp_path / name, model=str(folder))
    with pytest.raises(BadInput, match="route is 'never'"):
        host.open_memory(tmp_path / "x", kind="engram", route="never")
    stranger = tmp_path / "stranger"
    tiny("llama", seed=3).save_pretrained(stranger)
    tiny_tokenizer().save_pretrained(stranger)
    with host.open_memory(tmp_path / "m", kind="engram", **OPTIONS, epochs=1) as memory:
        memory.teach([KEY], check=False)
    with pytest.raises(HostMismatch):
        create_conditional_engram(tmp_path / "m", model=str(stranger))
