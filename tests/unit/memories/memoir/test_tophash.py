"""The fingerprint: the same mask in every process, from everything the activation holds."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engram_transformers.errors import BadInput, HostMismatch, StoreDamaged
from engram_transformers.memories.memoir import TopHashFingerprinter, reference


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_a_mask_has_top_k_ones_and_the_calls_of_the_seed_work(tmp_path: Path) -> None:
    fingerprinter = TopHashFingerprinter(
        hidden_size=4096, top_k=100, permutation_file=tmp_path / "memoir_permutation.pkl"
    )
    activations = torch.randn(4096)
    edit_mask = fingerprinter.generate_mask(activations)
    assert edit_mask.shape == (4096,) and edit_mask.sum() == 100
    assert fingerprinter.validate_determinism(activations)
    assert not (tmp_path / "memoir_permutation.pkl").exists()
    assert (tmp_path / "memoir_permutation.safetensors").exists()


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(st.integers(-3, 3), min_size=1, max_size=24),
    centre=st.integers(-2, 2),
    data=st.data(),
)
def test_equals_its_slow_twin_ties_included(
    values: list[int], centre: int, data: st.DataObject
) -> None:
    top_k = data.draw(st.integers(1, len(values)))
    fast = TopHashFingerprinter(len(values), top_k, seed=7)
    fast.set_background(torch.full((2, len(values)), float(centre)))
    slow = reference.mask(
        [float(v) for v in values],
        background=fast.background.tolist(),
        permutation=fast.permutation.tolist(),
        top_k=top_k,
    )
    assert fast.generate_mask(torch.tensor(values, dtype=torch.float32)).tolist() == slow


def test_a_batch_gives_each_row_the_mask_that_it_has_alone() -> None:
    fingerprinter = TopHashFingerprinter(64, 9)
    states = noise(5, 7, 64)
    ends = torch.tensor([7, 1, 3, 5, 2])
    masks = fingerprinter.generate_mask(states, ends=ends)
    for row, end in enumerate(ends):
        assert torch.equal(masks[row], fingerprinter.generate_mask(states[row, end - 1]))
    assert torch.equal(
        fingerprinter.generate_mask(states), fingerprinter.generate_mask(states[:, -1])
    )


def test_the_background_is_taken_off() -> None:
    fingerprinter = TopHashFingerprinter(32, 4)
    loud = torch.zeros(32)
    loud[:4] = 100.0
    activation = loud + torch.eye(32)[10:14].sum(dim=0)
    before = fingerprinter.generate_mask(activation)
    fingerprinter.set_background(loud.expand(3, -1))
    after = fingerprinter.generate_mask(activation)
    assert not torch.equal(before, after)
    assert set(after.nonzero()[:, 0].tolist()) == set(fingerprinter.permutation[10:14].tolist())


def test_another_process_makes_the_same_mask() -> None:
    code = (
        "import torch; from engram_transformers.memories.memoir import TopHashFingerprinter as F;"
        "f = F(512, 51, seed=3); a = torch.arange(512.).sin();"
        "print(f.checksum, f.generate_mask(a).nonzero()[:, 0].tolist())"
    )
    fingerprinter = TopHashFingerprinter(512, 51, seed=3)
    mask = fingerprinter.generate_mask(torch.arange(512.0).sin())
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"{fingerprinter.checksum} {mask.nonzero()[:, 0].tolist()}"


def test_the_permutation_is_this_one_for_good() -> None:
    """Stored masks depend on it: another release must not make another one."""
    assert TopHashFingerprinter(12, 3).permutation.tolist() == PERMUTATION_OF_42


PERMUTATION_OF_42 = [11, 5, 6, 10, 1, 2, 7, 0, 8, 4, 9, 3]


def test_activations_that_agree_on_many_features_have_masks_of_their_own() -> None:
    """Seed 4.4 (6): a cache keyed by 100 sampled features gave these two the same mask."""
    fingerprinter = TopHashFingerprinter(512, 51)
    one = noise(512)
    for kept in range(0, 512, 37):
        other = noise(512, seed=1)
        other[kept : kept + 100] = one[kept : kept + 100]
        other[::5] = one[::5]
        first, second = (fingerprinter.generate_mask(x) for x in (one, other))
        assert not torch.equal(first, second)


def test_a_file_brings_permutation_and_background_back(tmp_path: Path) -> None:
    first = TopHashFingerprinter(40, 5, seed=9)
    first.set_background(noise(6, 40))
    place = first.save(tmp_path / "p.safetensors")
    second = TopHashFingerprinter(40, 5, place, seed=9)
    assert second.checksum == first.checksum
    assert torch.equal(second.generate_mask(noise(3, 40)), first.generate_mask(noise(3, 40)))


def test_the_state_dict_holds_all_that_masks_depend_on() -> None:
    first, second = TopHashFingerprinter(40, 5, seed=9), TopHashFingerprinter(40, 5, seed=1)
    first.set_background(noise(6, 40))
    assert second.checksum != first.checksum
    second.load_state_dict(first.state_dict())
    assert second.checksum == first.checksum


def test_a_pickle_is_refused_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "memoir_permutation.pkl"
    path.write_bytes(pickle.dumps({"permutation": [1, 0]}))
    with pytest.raises(BadInput, match=r"pickle.*safetensors"):
        TopHashFingerprinter(2, 1, permutation_file=path)
    path.rename(tmp_path / "old")
    TopHashFingerprinter(2, 1, permutation_file=path)
    path.write_bytes(b"again")  # what was written beside it is what counts from now on
    assert TopHashFingerprinter(2, 1, permutation_file=path).top_k == 1


def test_a_file_of_another_host_or_seed_is_refused(tmp_path: Path) -> None:
    place = TopHashFingerprinter(16, 2).save(tmp_path / "p.safetensors")
    with pytest.raises(HostMismatch, match="hidden_size=16, not 17"):
        TopHashFingerprinter(17, 2, place)
    with pytest.raises(HostMismatch, match="seed=42, not 43"):
        TopHashFingerprinter(16, 2, place, seed=43)


@pytest.mark.parametrize("cut", [0, 5, 60, -1, -40])
def test_a_truncated_file_is_damaged(tmp_path: Path, cut: int) -> None:
    place = TopHashFingerprinter(16, 2).save(tmp_path / "p.safetensors")
    place.write_bytes(place.read_bytes()[:cut])
    with pytest.raises(StoreDamaged):
        TopHashFingerprinter(16, 2, place)


def test_a_changed_file_is_damaged(tmp_path: Path) -> None:
    place = TopHashFingerprinter(16, 2).save(tmp_path / "p.safetensors")
    raw = bytearray(place.read_bytes())
    raw[-3] ^= 1
    place.write_bytes(raw)
    with pytest.raises(StoreDamaged, match="checksum"):
        TopHashFingerprinter(16, 2, place)


@pytest.mark.parametrize(
    "hidden, top_k", [(0, 1), (4, 0), (4, 5)], ids=["no features", "none of them", "too many"]
)
def test_sizes_that_make_no_sense(hidden: int, top_k: int) -> None:
    with pytest.raises(BadInput):
        TopHashFingerprinter(hidden, top_k)


def test_activations_that_have_no_mask() -> None:
    fingerprinter = TopHashFingerprinter(8, 2)
    with pytest.raises(BadInput, match="hidden_size, 8"):
        fingerprinter.generate_mask(torch.zeros(9))
    with pytest.raises(BadInput, match="NaN"):
        fingerprinter.generate_mask(torch.full((8,), float("nan")))
    with pytest.raises(BadInput, match="ends"):
        fingerprinter.generate_mask(torch.zeros(2, 3, 8), ends=torch.tensor([0, 4]))


def test_properties_of_masks() -> None:
    fingerprinter = TopHashFingerprinter(64, 8)
    found = fingerprinter.analyze_mask_properties(fingerprinter.generate_mask(noise(5, 64)))
    assert found["masks"] == 5 and found["active_features"] == 8 and found["is_binary"]
    assert found["sparsity"] == 1 - 8 / 64 and found["chance_overlap"] == 8 / 64
    assert found["matches_top_k"] and 0 <= found["mean_overlap"] <= found["max_overlap"] <= 1
    alone = fingerprinter.analyze_mask_properties(torch.zeros(64))
    assert alone["mean_overlap"] is None and not alone["matches_top_k"]
