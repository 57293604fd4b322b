"""The residual layer: silent when fresh, each edit in its own columns, exact removal."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from engram_transformers.errors import BadInput, CannotForget, MemoryFull, UnknownFact
from engram_transformers.memories.memoir import ResidualMemoryLayer, reference


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def mask(*on: int, size: int = 12) -> torch.Tensor:
    out = torch.zeros(size)
    out[list(on)] = 1.0
    return out


def taught(*names: str) -> ResidualMemoryLayer:
    """Edits whose columns overlap, each with values of its own."""
    layer = ResidualMemoryLayer(5, features=12)
    for name in names:
        number = ord(name) - ord("a")
        layer.add_edit(name, mask(number, number + 1, number + 3))
        layer.write(name, noise(5, 3, seed=number))
    return layer


def test_the_calls_of_the_seed_work() -> None:
    memory_layer = ResidualMemoryLayer(hidden_size=4096, max_edits=10000, sparsity_ratio=0.01)
    edit_mask = torch.zeros(4096)
    edit_mask[:100] = 1.0
    memory_layer.add_edit("fact_correction_1", edit_mask, {"source": "user"})
    hidden_states = torch.randn(1, 10, 4096)
    residual_output = memory_layer(hidden_states, edit_mask=edit_mask, edit_id="fact_correction_1")
    assert residual_output.shape == (1, 10, 4096) and not residual_output.any()
    assert memory_layer.get_edit_info()["total_edits"] == 1 and memory_layer.top_k == 41
    assert memory_layer.get_edit_info("fact_correction_1")["metadata"] == {"source": "user"}


def test_a_fresh_memory_beside_a_real_layer_changes_no_bit() -> None:
    linear, layer = nn.Linear(12, 5), ResidualMemoryLayer(5, features=12)
    x = noise(2, 3, 12)
    y = linear(x)
    layer.add_edit("a", mask(1, 2))
    assert layer.beside(y, x, mask(1, 2).expand(2, -1)) is y
    assert layer(x).abs().sum() == 0


def test_it_adds_what_the_matrix_says_of_the_open_columns() -> None:
    layer = taught("a", "b")
    x, open_columns = noise(12), {0, 1, 4}
    edits = [
        {int(c): edit.values[:, i].tolist() for i, c in enumerate(edit.columns)}
        for edit in layer.edits.values()
        if edit.values is not None
    ]
    slow = reference.residual(x.tolist(), edits, open_columns=open_columns, hidden=5)
    torch.testing.assert_close(layer(x, mask(*open_columns)), torch.tensor(slow))


def test_rows_without_a_mask_and_tokens_before_the_end_stay_as_they_were() -> None:
    layer, x, y = taught("a"), noise(3, 4, 12), noise(3, 4, 5, seed=1)
    masks = torch.stack([layer.mask_of("a"), torch.zeros(12), layer.mask_of("a")])
    out = layer.beside(y, x, masks, since=torch.tensor([2, 0, 3]))
    assert torch.equal(out[1], y[1])
    assert torch.equal(out[0, :2], y[0, :2]) and torch.equal(out[2, :3], y[2, :3])
    torch.testing.assert_close(out[0, 2:], y[0, 2:] + layer(x[0, 2:], edit_id="a"))
    assert not torch.equal(out[2, 3], y[2, 3])


def test_a_row_that_is_silent_is_not_touched_by_what_another_row_holds() -> None:
    layer, x, y = taught("a"), noise(2, 4, 12), noise(2, 4, 5)
    x[1] = float("inf")  # 0 times infinity is no number
    out = layer.beside(y, x, torch.stack([layer.mask_of("a"), torch.zeros(12)]))
    assert torch.equal(out[1], y[1])


def test_only_the_values_of_the_edit_get_gradients_and_no_step_reaches_other_columns() -> None:
    layer = taught("a")
    before = layer.weight.clone()
    layer.add_edit("z", mask(8, 9, 10))
    x, wanted = noise(4, 12), noise(4, 5, seed=3)
    with layer.learning("z") as values:
        # The decay is there to show that it has nothing else to decay.
        optimizer = torch.optim.SGD([values], lr=0.1, weight_decay=0.1)
        for _ in range(40):
            loss = (layer(x, edit_id="z") - wanted).pow(2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    inside = layer.mask_of("z").bool()
    assert torch.equal(layer.weight[:, ~inside], before[:, ~inside])
    assert layer.weight[:, inside].abs().sum() > 0
    assert all(not tensor.requires_grad for tensor in layer.state_dict().values())
    assert not list(layer.parameters())


def test_an_edit_that_fails_to_learn_changes_nothing() -> None:
    layer = taught("a", "b")
    before = layer.weight.clone()
    with pytest.raises(RuntimeError, match="midway"), layer.learning("a") as values:
        values.data.fill_(9.0)
        raise RuntimeError("midway")
    assert torch.equal(layer.weight, before)


def test_learning_goes_on_from_what_was_written() -> None:
    layer = taught("a", "b")
    written = layer.edits["a"].values
    assert written is not None
    with layer.learning("a") as values:
        assert torch.equal(values, written)
    torch.testing.assert_close(layer.weight, taught("a", "b").weight)


def test_removing_the_last_edit_is_as_if_it_had_never_been() -> None:
    layer = taught("a", "b", "c")
    assert layer.remove_edit("c") and not layer.remove_edit("c")
    assert torch.equal(layer.weight, taught("a", "b").weight)


@pytest.mark.parametrize("gone", ["a", "b", "c"])
def test_removing_any_edit_leaves_what_the_others_alone_would_make(gone: str) -> None:
    layer = taught("a", "b", "c", "d")
    layer.remove_edit(gone)
    others = taught(*(name for name in "abcd" if name != gone))
    assert torch.equal(layer.weight, others.weight)


def test_an_edit_of_the_same_id_gives_way() -> None:
    layer = taught("a", "b")
    layer.add_edit("a", mask(10, 11))
    assert torch.equal(layer.weight, taught("b").weight) and len(layer) == 2


def test_consolidation_merges_and_keeps_the_matrix() -> None:
    layer = ResidualMemoryLayer(5, features=12)
    for name, on in (("a", (0, 1, 2)), ("far", (8, 9)), ("b", (0, 1, 3))):
        layer.add_edit(name, mask(*on))
        layer.write(name, noise(5, len(on), seed=len(name) + on[-1]))
    before = layer.weight.clone()
    assert layer.consolidate_edits(similarity_threshold=0.6) == 1
    assert list(layer.edits) == ["a", "far"] and layer.get_edit_info("a")["merged"] == ["b"]
    torch.testing.assert_close(layer.weight, before)
    assert torch.equal(layer.mask_of("a"), mask(0, 1, 2))
    assert layer.consolidate_edits(0.6) == 0
    with pytest.raises(CannotForget, match="remove 'a'"):
        layer.remove_edit("b")
    with pytest.raises(BadInput, match="merged"):
        layer.write("a", noise(5, 3))
    layer.remove_edit("a")
    assert not layer.weight[:, :8].any() and torch.equal(layer.weight[:, 8:], before[:, 8:])


def test_everything_comes_back_with_the_state_dict() -> None:
    layer = taught("a", "b", "c")
    layer.add_edit("empty", mask(3), {"why": "zoë"})
    layer.consolidate_edits(1.0)
    other = ResidualMemoryLayer(5, features=12)
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other.weight, layer.weight) and list(other.edits) == list(layer.edits)
    assert other.get_edit_info() == layer.get_edit_info()
    other.remove_edit("b")
    layer.remove_edit("b")
    assert torch.equal(other.weight, layer.weight)


def test_tensors_of_another_size_are_refused() -> None:
    with pytest.raises(RuntimeError, match="another size of host"):
        ResidualMemoryLayer(6, features=12).load_state_dict(taught("a").state_dict())
    with pytest.raises(RuntimeError, match="max_edits is 1"):
        ResidualMemoryLayer(5, 1, features=12).load_state_dict(taught("a", "b").state_dict())


def test_a_copy_is_independent() -> None:
    layer = taught("a", "b")
    other = copy.deepcopy(layer)
    other.remove_edit("a")
    assert torch.equal(layer.weight, taught("a", "b").weight) and "a" in layer.edits


def test_bad_input_has_typed_errors_and_changes_nothing() -> None:
    layer = taught("a")
    before = layer.weight.clone()
    with pytest.raises(UnknownFact):
        layer(noise(12), edit_id="nobody")
    with pytest.raises(BadInput, match="features"):
        layer(noise(13), mask(1))
    with pytest.raises(BadInput, match="shape"):
        layer(noise(2, 12), mask(1).expand(3, -1))
    with pytest.raises(BadInput, match="has room for"):
        layer.write("a", noise(5, 2))
    with pytest.raises(BadInput, match="NaN"):
        layer.write("a", torch.full((5, 3), float("nan")))
    with pytest.raises(BadInput, match="metadata"):
        layer.add_edit("b", mask(1), {"x": object()})
    with pytest.raises(BadInput, match="features in it"):
        layer.add_edit("b", mask())
    assert torch.equal(layer.weight, before) and list(layer.edits) == ["a"]
    small = ResidualMemoryLayer(5, max_edits=1, features=12)
    small.add_edit("a", mask(1))
    with pytest.raises(MemoryFull):
        small.add_edit("b", mask(2))
    assert small.add_edit("a", mask(2))
