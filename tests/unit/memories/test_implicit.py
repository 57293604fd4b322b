"""The implicit memory: causal, by sequence, the same however it is read, kept and emptied."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from cases import FACTS, TRAINED, disturb, host_of
from engram_transformers.attaching import attach, attached, detach, silenced
from engram_transformers.errors import (
    BadInput,
    HostMismatch,
    PlaceNotFound,
    StoreDamaged,
    StoreError,
    TrainingDiverged,
    UnsupportedCall,
)
from engram_transformers.memories.implicit import Implicit, ImplicitConfig
from engram_transformers.memories.implicit.reference import read_one_by_one
from engram_transformers.memories.lookup import Lookup, LookupConfig
from engram_transformers.models.fresh import fresh_decoder
from engram_transformers.training.fit import fit

FORMS = ("slots", "linformer", "original")
HOST = host_of("llama")


def opened(**options: Any) -> Any:
    """A memory whose tensors are as if they had been trained."""
    config = ImplicitConfig(**{**TRAINED["implicit"], **options})
    memory = disturb(Implicit.open(HOST.adapter, HOST.tokens, config))
    with torch.no_grad():
        for part in memory.parts:
            part.out.mul_(20.0)
    return memory


@pytest.fixture(params=FORMS)
def memory(request: pytest.FixtureRequest) -> Iterator[Any]:
    found = opened(form=request.param)
    with attach(HOST.model, found):
        yield found


def ids(rows: int, tokens: int, *, seed: int = 0) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.randint(2, 500, (rows, tokens), generator=draw)


@torch.no_grad()
def logits(given: Tensor, **options: Any) -> Tensor:
    found: Tensor = HOST.model(input_ids=given, **options).logits
    return found


def close(one: Tensor, other: Tensor) -> bool:
    return torch.allclose(one, other, atol=2e-4, rtol=1e-4)


def test_later_tokens_change_nothing_before_them(memory: Any) -> None:
    given = ids(1, 14)
    whole = logits(given)
    for cut in range(1, 14):
        other = torch.cat([given[:, :cut], ids(1, 14 - cut, seed=cut)], 1)
        assert close(logits(other)[:, :cut], whole[:, :cut])
    # And what is read later does depend on what was written before.
    other = torch.cat([ids(1, 4, seed=9), given[:, 4:]], 1)
    with silenced(HOST.model):
        without = logits(given)[:, 4:] - logits(other)[:, 4:]
    assert not close(whole[:, 4:] - logits(other)[:, 4:], without)


def test_the_first_chunk_is_what_the_bare_host_says_bit_for_bit(memory: Any) -> None:
    given = ids(2, 4)
    with silenced(HOST.model):
        bare = logits(given)
    assert torch.equal(logits(given), bare)
    assert not close(logits(ids(2, 12))[:, 4:], bare[:, :1])


def test_sequences_of_a_batch_know_nothing_of_each_other(memory: Any) -> None:
    given = ids(3, 13)
    whole = logits(given)
    for row in range(3):
        assert close(logits(given[row : row + 1]), whole[row : row + 1])
    other = given.clone()
    other[1] = ids(1, 13, seed=5)[0]
    assert torch.equal(logits(other)[[0, 2]], whole[[0, 2]])


def test_any_split_into_cached_chunks_equals_one_pass(memory: Any) -> None:
    given = ids(2, 11)
    whole = logits(given)
    for at in (1, 3, 4, 5, 8, 10):
        with torch.no_grad():
            first = HOST.model(input_ids=given[:, :at], use_cache=True)
        assert close(logits(given[:, at:], past_key_values=first.past_key_values), whole[:, at:])


def test_a_cropped_cache_goes_on_as_if_no_more_had_been_read(memory: Any) -> None:
    given = ids(1, 12)
    for at in (2, 4, 7, 9):
        with torch.no_grad():
            past = HOST.model(input_ids=given, use_cache=True).past_key_values
        past.crop(at - 12)
        other = ids(1, 5, seed=3)
        whole = logits(torch.cat([given[:, :at], other], 1))[:, at:]
        assert close(logits(other, past_key_values=past), whole)


def test_packed_texts_begin_with_empty_slots(memory: Any) -> None:
    one, other = ids(1, 9), ids(1, 10, seed=1)
    positions = torch.cat([torch.arange(9), torch.arange(10)])[None]
    packed = logits(torch.cat([one, other], 1), position_ids=positions, use_cache=False)
    assert close(packed[:, :9], logits(one)) and close(packed[:, 9:], logits(other))


def test_windows_are_read_one_after_another(memory: Any) -> None:
    """All windows in one call equal a session that reads them in turn."""
    texts = ids(2, 12).view(2, 3, 4)
    with memory.windows(3):
        found = logits(texts.flatten(0, 1)).view(2, 3, 4, -1)
    for text, wanted in zip(texts, found, strict=True):
        memory.reset()
        for window, expected in zip(text, wanted, strict=True):
            assert close(logits(window[None])[0], expected)
            memory.read(window.tolist())
    memory.reset()
    with memory.windows(3, others=1):
        swapped = logits(texts.flatten(0, 1)).view(2, 3, 4, -1)
    assert close(swapped[:, 0], found[:, 0]) and not close(swapped[:, 1:], found[:, 1:])
    with pytest.raises(BadInput, match="whole windows"), memory.windows(2):
        logits(ids(3, 4))


def test_it_equals_its_slow_twin(memory: Any) -> None:
    given = ids(1, 11)
    part, seen = memory.parts[0], []
    hook = part.register_forward_hook(lambda module, args, out: seen.append((args[0], out)))
    logits(given)
    hook.remove()
    x, out = seen[0]
    assert close(read_one_by_one(part, x[0]), out[0])


def test_reset_is_as_if_nothing_had_been_read(memory: Any) -> None:
    given = ids(2, 10)
    before = logits(given)
    assert memory.read("The billing service listens on port 8443.") > 8 and memory.held
    after = logits(given)
    assert not close(after, before) and not close(after[:, :4], before[:, :4])
    memory.reset()
    assert torch.equal(logits(given), before) and not memory.held


def test_what_is_held_is_saved_and_loaded_exactly(memory: Any, tmp_path: Path) -> None:
    path, given = tmp_path / "session.safetensors", ids(2, 10)
    memory.read("Which port does the billing service use?")
    said = logits(given)
    memory.save(path)
    memory.read("Who wrote the report about the harbour?")
    assert not torch.equal(logits(given), said)
    memory.load(path)
    assert torch.equal(logits(given), said)
    disturb(memory, seed=4)
    with pytest.raises(HostMismatch, match="other trained tensors"):
        memory.load(path)
    (tmp_path / "no.safetensors").write_bytes(b"nothing of the kind")
    with pytest.raises(StoreDamaged):
        memory.load(tmp_path / "no.safetensors")
    with pytest.raises(StoreError):
        memory.load(tmp_path / "absent.safetensors")


def test_slots_are_no_parameters_and_are_not_stored_with_them(memory: Any) -> None:
    names = set(memory.state_dict())
    memory.read("Which port does the billing service use?")
    assert set(memory.state_dict()) == names
    assert not any(slots.values.requires_grad for slots in memory.held.values())


def test_generation_goes_on_from_what_is_held(memory: Any) -> None:
    memory.read("The billing service listens on port 8443.")
    given = ids(1, 3)
    options = {"max_new_tokens": 9, "do_sample": False, "pad_token_id": 0, "num_beams": 3}
    said = HOST.model.generate(input_ids=given, **options)
    assert torch.equal(HOST.model.generate(input_ids=given, **options, use_cache=False), said)


CHANGES: dict[str, Any] = {
    "slots": 3, "writes": 1, "chunk": 5, "rate": 0.2, "decay": 0.5, "norm": "layer",
    "temperature": 1.0, "kernel": 2, "update": "always", "reset_every": 2, "layers": (1,),
    "form": "linformer", "width": 4,
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_each_option_changes_what_is_said(name: str) -> None:
    given = ids(1, 24)
    found = []
    for options in ({}, {name: CHANGES[name]}):
        with attach(HOST.model, opened(**options)):
            found.append(logits(given))
    assert not close(*found)


@pytest.mark.parametrize(("name", "value"), [("norm", "none"), ("temperature", 2.0), ("rate", 0.2)])
def test_options_of_the_original_change_what_it_does(name: str, value: Any) -> None:
    found = []
    for options in ({}, {name: value}):
        memory = opened(form="original", **options)
        with attach(HOST.model, memory):
            memory.read(ids(1, 24)[0].tolist())
            found.append(torch.cat([slots.keys for slots in memory.held.values()]))
            found.append(logits(ids(1, 8)))
    assert not torch.equal(found[0], found[2]) or not torch.equal(found[1], found[3])


def test_slots_are_emptied_after_so_many_chunks() -> None:
    memory = opened(reset_every=2)
    with attach(HOST.model, memory):
        memory.read(ids(1, 12)[0].tolist())
        [slots, _] = memory.held.values()
        # Three chunks: the third is alone in the slots.
        assert int((slots.strength > 0).sum()) == 2 and slots.chunks == 3


def test_what_cannot_be_says_so() -> None:
    for wrong in (
        {"slots": 0}, {"form": "lstm"}, {"norm": "l3"}, {"update": "never"}, {"rate": 0.0},
        {"decay": 1.5}, {"temperature": 0.0}, {"reset_every": -1}, {"layers": (1, 1)},
        {"writes": 9, "chunk": 8, "form": "linformer"}, {"writes": 40, "chunk": 64}, {"window": 0},
    ):  # fmt: skip
        with pytest.raises(BadInput):
            ImplicitConfig(**wrong)  # type: ignore[arg-type]
    for wrong in ({"chunk": 600}, {"window": 600}):
        with pytest.raises(BadInput, match="reads 512 at most"):
            Implicit.open(HOST.adapter, HOST.tokens, ImplicitConfig(**wrong))  # type: ignore[arg-type]
    with pytest.raises(PlaceNotFound):
        Implicit.open(HOST.adapter, HOST.tokens, ImplicitConfig(layers=(7,)))
    memory = opened()
    with pytest.raises(BadInput, match="not attached"):
        memory.read("anything")
    with attach(HOST.model, memory), pytest.raises(BadInput, match="empty text"):
        memory.read("")


def test_a_cache_that_it_has_not_seen_is_refused() -> None:
    other = Lookup(LookupConfig(address="exact"), adapter=HOST.adapter, tokens=HOST.tokens)
    with attach(HOST.model, other):
        with torch.no_grad():
            past = HOST.model(input_ids=ids(1, 6), use_cache=True).past_key_values
        with attach(HOST.model, opened()), pytest.raises(UnsupportedCall, match="6 tokens"):
            logits(ids(1, 2), past_key_values=past)


def test_numbers_that_are_none_stop_a_reading_and_leave_what_was_held() -> None:
    memory = opened()
    with attach(HOST.model, memory):
        memory.read("Who wrote the report?")
        held = memory.held[0]
        weight = HOST.model.get_input_embeddings().weight
        before = weight[7].clone()
        try:
            with torch.no_grad():
                weight[7] = float("nan")
            with pytest.raises(TrainingDiverged, match="as they were"):
                memory.read([5, 6, 7, 8, 9])
        finally:
            with torch.no_grad():
                weight[7] = before
        assert memory.held[0] is held


def test_a_copy_holds_its_own() -> None:
    memory = opened()
    with attach(HOST.model, memory):
        twin = copy.deepcopy(HOST.model)
        other: Any = attached(twin)[0]
        other.read("Who wrote the report?")
        assert other.held and not memory.held
        detach(twin)


def test_training_teaches_it_to_find_what_an_earlier_window_said() -> None:
    """A pair in the first window, its first half in the second: chance is one in eight."""
    model = fresh_decoder(vocab=18, hidden=32, blocks=2, heads=2, inner=32, context=4, seed=0)
    config = ImplicitConfig(
        layers=(1,), slots=8, writes=4, width=32, chunk=4, kernel=2, learning_rate=1e-2
    )
    memory = Implicit(config, (1,), hidden=32)
    tensors = [*model.parameters(), *memory.parameters()]
    optimizer = torch.optim.AdamW(tensors, lr=1e-2)
    draw = torch.Generator().manual_seed(0)

    def texts(count: int) -> tuple[Tensor, Tensor]:
        pairs = torch.stack([torch.randperm(8, generator=draw)[:2] for _ in range(count)])
        values = 8 + torch.randint(0, 8, (count, 2), generator=draw)
        told = torch.stack([pairs[:, 0], values[:, 0], pairs[:, 1], values[:, 1]], 1)
        asked = torch.stack([torch.full((count,), 16), pairs[:, 0], values[:, 0], values[:, 0]], 1)
        return torch.stack([told, asked], 1), values[:, 0]

    with attach(model, memory):
        for _ in range(120):
            given, wanted = texts(32)
            with memory.windows(2):
                said = model(input_ids=given.flatten(0, 1)).logits[1::2, 1]
            loss = torch.nn.functional.cross_entropy(said, wanted)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        given, wanted = texts(100)
        shares = {}
        with torch.no_grad():
            for name, windows in (("right", 2), ("empty", 1)):
                with memory.windows(windows):
                    said = model(input_ids=given.flatten(0, 1)).logits[1::2, 1]
                shares[name] = float((said.argmax(-1) == wanted).float().mean())
    assert shares["right"] > 0.9 and shares["empty"] < 0.3


def test_facts_that_are_too_short_for_it_are_refused_with_what_to_do() -> None:
    memory = Implicit.open(HOST.adapter, HOST.tokens, ImplicitConfig(chunk=128))
    with attach(HOST.model, memory), pytest.raises(BadInput, match="smaller chunk"):
        fit(HOST.adapter, HOST.tokens, memory, FACTS[:2])
