"""The block: causal, one retrieval a row, on the activations that it has in fact."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from engram_transformers.errors import BadInput, HostMismatch, UnknownFact
from engram_transformers.memories.memoir import (
    EditMaskDatabase,
    MEMOIRTransformerBlock,
    TopHashFingerprinter,
)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def block(**options: Any) -> MEMOIRTransformerBlock:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return MEMOIRTransformerBlock(64, 4, 160, **{"top_k": 12, **options}).eval()


PROMPT, OTHER = noise(1, 6, 64, seed=1), noise(1, 6, 64, seed=2)
TARGET = noise(64, seed=3)


def to_target(output: torch.Tensor) -> torch.Tensor:
    """How far the last token's output is from the target."""
    return (output[:, -1] - TARGET).pow(2).mean()


def taught(**options: Any) -> MEMOIRTransformerBlock:
    one = block(**options)
    one.add_edit("first", PROMPT, {"why": "test"})
    one.learn_edit("first", PROMPT, to_target, steps=300, learning_rate=0.05, good=1e-3)
    return one


def test_the_calls_of_the_seed_work() -> None:
    """With the seed's names and shapes, at an eighth of its size in every direction."""
    one = MEMOIRTransformerBlock(
        hidden_size=512, num_attention_heads=4, intermediate_size=2048, enable_memoir=True
    )
    hidden_states = torch.randn(1, 10, 512)
    edit_mask = torch.zeros(512)
    edit_mask[:100] = 1.0
    output, attention_weights = one(hidden_states, edit_mask=edit_mask, edit_id="correction_1")
    assert output.shape == (1, 10, 512) and attention_weights.shape == (1, 4, 10, 10)
    output, _ = one(hidden_states, enable_memoir_retrieval=True)
    assert one.get_last_retrieval_info() is None
    one.set_retrieval_threshold(0.8)
    mask = one.add_edit("correction_1", hidden_states)
    assert mask.sum() == 50
    output, _ = one(hidden_states, enable_memoir_retrieval=True)
    retrieval_info = one.get_last_retrieval_info()
    assert retrieval_info is not None
    assert retrieval_info["edit_id"] == "correction_1" and retrieval_info["similarity"] == 1.0


def test_it_is_causal() -> None:
    one, x = block(), noise(2, 7, 64)
    y, weights = one(x)
    changed = x.clone()
    changed[:, 4:] = noise(2, 3, 64, seed=9)
    assert torch.equal(one(changed)[0][:, :4], y[:, :4])
    assert not weights.triu(1).any()
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(2, 4, 7))


def test_padding_changes_nothing() -> None:
    one = taught()
    padded = torch.cat([PROMPT, noise(1, 3, 64, seed=8)], dim=1)
    real = torch.tensor([[1] * 6 + [0] * 3])
    out, _ = one(padded, attention_mask=real)
    assert one.get_last_retrieval_info()
    torch.testing.assert_close(out[:, :6], one(PROMPT)[0])
    with pytest.raises(BadInput, match="right"):
        one(padded, attention_mask=real.flip(1))


def test_a_fresh_memory_changes_no_bit() -> None:
    with_memory, without = block(), block(enable_memoir=False)
    assert torch.equal(with_memory(PROMPT)[0], without(PROMPT)[0])
    with_memory.add_edit("entered but not learnt", PROMPT)
    assert torch.equal(with_memory(PROMPT)[0], without(PROMPT)[0])


@pytest.mark.parametrize("features", ["input", "inner"])
def test_what_was_learnt_is_found_again_by_itself(features: str) -> None:
    """Seed 4.4 (1) to (3): written and read on the same, real activations, in one database."""
    one, bare = taught(memory_features=features), block(enable_memoir=False)
    out, _ = one(PROMPT)
    assert to_target(out) <= 2e-3 < to_target(bare(PROMPT)[0])
    info = one.get_last_retrieval_info()
    assert info is not None and info["edit_id"] == "first" and info["row"] == 0
    assert torch.equal(out[:, :-1], bare(PROMPT)[0][:, :-1])
    near = PROMPT + 0.02 * noise(1, 6, 64, seed=5)
    assert to_target(one(near)[0]) < to_target(bare(near)[0]) / 10
    assert torch.equal(one(OTHER)[0], bare(OTHER)[0])
    assert one.get_last_retrieval_info() is None


def test_each_row_of_a_batch_gets_its_own_edit() -> None:
    one = taught()
    one.add_edit("second", OTHER)
    one.learn_edit("second", OTHER, lambda y: to_target(-y), steps=300, learning_rate=0.05)
    alone = [one(x)[0] for x in (PROMPT, OTHER, noise(1, 6, 64, seed=7))]
    out, _ = one(torch.cat([PROMPT, OTHER, noise(1, 6, 64, seed=7)]))
    info = one.get_last_retrieval_info()
    assert info is not None
    assert [row and row["edit_id"] for row in info["rows"]] == ["first", "second", None]
    torch.testing.assert_close(out, torch.cat(alone))


def test_after_the_prompt_the_same_edit_stays_on() -> None:
    one, bare = taught(), block(enable_memoir=False)
    longer = torch.cat([PROMPT, noise(1, 3, 64, seed=8)], dim=1)
    out, _ = one(longer, prompt_ends=torch.tensor([6]))
    assert one.get_last_retrieval_info()
    plain = bare(longer)[0]
    assert torch.equal(out[:, :5], plain[:, :5])
    assert not any(torch.equal(out[:, t], plain[:, t]) for t in range(5, 9))


def test_retrieval_can_be_turned_off_forced_and_made_stricter() -> None:
    one, bare = taught(), block(enable_memoir=False)
    off, _ = one(PROMPT, enable_memoir_retrieval=False)
    assert torch.equal(off, bare(PROMPT)[0]) and one.get_last_retrieval_info() is None
    assert one.force_edit_retrieval("first")
    forced, _ = one(OTHER)
    info = one.get_last_retrieval_info()
    assert info is not None and info["forced"] and not torch.equal(forced, bare(OTHER)[0])
    assert one.force_edit_retrieval(None)
    assert torch.equal(one(OTHER)[0], bare(OTHER)[0])
    near = PROMPT + 0.3 * noise(1, 6, 64, seed=5)
    one.set_retrieval_threshold(0.2)
    one(near)
    assert one.get_last_retrieval_info()
    one.set_retrieval_threshold(1.0)
    one(near)
    assert one.get_last_retrieval_info() is None
    with pytest.raises(BadInput):
        one.set_retrieval_threshold(0)
    with pytest.raises(UnknownFact):
        one.force_edit_retrieval("nobody")


def test_removing_and_merging_reach_memory_and_database() -> None:
    one, bare = taught(), block(enable_memoir=False)
    near = PROMPT + 0.3 * noise(1, 6, 64, seed=5)
    one.add_edit("near", near)
    one.learn_edit("near", near, to_target, steps=50)
    assert one.consolidate_edits(0.5) == 1
    assert one.database.ids == tuple(one.memory.edits) == ("first",)
    assert torch.equal(one.database.mask_of("first"), one.memory.mask_of("first"))
    assert one.remove_edit("first") and not one.remove_edit("first")
    assert torch.equal(one(PROMPT)[0], bare(PROMPT)[0]) and not one.memory.weight.any()


def test_an_edit_at_the_same_prompt_replaces_the_one_before() -> None:
    one = taught()
    one.add_edit("corrected", PROMPT)
    assert one.database.ids == tuple(one.memory.edits) == ("corrected",)
    assert not one.memory.weight.any()


def test_an_edit_that_cannot_be_stored_leaves_everything_as_it_was() -> None:
    one = taught(database=EditMaskDatabase(64, max_masks=1))
    before = one.memory.weight.clone()
    with pytest.raises(OverflowError):
        one.add_edit("second", OTHER)
    assert list(one.memory.edits) == ["first"] and torch.equal(one.memory.weight, before)


def test_a_loss_that_is_no_number_changes_nothing() -> None:
    one = taught()
    before = one.memory.weight.clone()
    with pytest.raises(BadInput, match="learning_rate"):
        one.learn_edit("first", PROMPT, lambda y: y.sum() * float("nan"))
    assert torch.equal(one.memory.weight, before)


def test_edits_come_back_with_the_tensors_and_are_found() -> None:
    one, other = taught(), block()
    other.load_state_dict(one.state_dict())
    assert torch.equal(other(PROMPT)[0], one(PROMPT)[0])
    assert other.get_last_retrieval_info()


def test_a_copy_is_independent() -> None:
    one, bare = taught(), block(enable_memoir=False)
    other = copy.deepcopy(one)
    other.remove_edit("first")
    one(PROMPT)
    assert one.get_last_retrieval_info()
    assert torch.equal(other(PROMPT)[0], bare(PROMPT)[0])


def test_a_stored_database_serves_the_block_that_comes_back(tmp_path: Path) -> None:
    one = taught(database=EditMaskDatabase(64, storage_dir=tmp_path))
    other = block(database=EditMaskDatabase(64, storage_dir=tmp_path))
    assert other(PROMPT) and other.get_last_retrieval_info() is None  # its memory lacks the edit
    other.load_state_dict(one.state_dict())
    assert torch.equal(other(PROMPT)[0], one(PROMPT)[0])


def test_parts_of_another_size_are_refused() -> None:
    with pytest.raises(HostMismatch, match="database is for 65"):
        block(database=EditMaskDatabase(65))
    with pytest.raises(HostMismatch, match="fingerprinter is for 160"):
        block(fingerprinter=TopHashFingerprinter(160, 4))
    with pytest.raises(BadInput, match="heads"):
        MEMOIRTransformerBlock(64, 5, 160)
    with pytest.raises(BadInput, match="end at"):
        block()(PROMPT, prompt_ends=torch.tensor([7]))
