"""The mask database: exact answers, the same from both back ends, and a store that tells damage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engram_transformers.errors import (
    BadInput,
    CannotForget,
    HostMismatch,
    MemoryFull,
    StoreDamaged,
    StoreLocked,
    UnknownFact,
)
from engram_transformers.memories.memoir import EditMaskDatabase, bits, reference
from engram_transformers.memories.memoir.search import FaissSearch, PlainSearch

METRICS = ("cosine", "l2", "inner_product", "overlap")


def mask(*on: int, size: int = 70) -> torch.Tensor:
    out = torch.zeros(size)
    out[list(on)] = 1.0
    return out


def filled(**options: Any) -> EditMaskDatabase:
    db = EditMaskDatabase(70, **options)
    for name, start in (("a", 0), ("b", 5), ("c", 30)):
        db.add(name, mask(*range(start, start + 10)), {"name": name})
    return db


def test_the_calls_of_the_seed_work(tmp_path: Path) -> None:
    db = EditMaskDatabase(
        hidden_size=4096, similarity_metric="cosine", storage_dir=tmp_path / "memoir_masks"
    )
    edit_mask = torch.zeros(4096)
    edit_mask[:100] = 1.0
    db.add("edit_1", edit_mask, {"description": "User correction"})
    result = db.find_closest(edit_mask, threshold=0.8)
    assert result
    edit_id, original_mask, similarity = result
    assert edit_id == "edit_1" and similarity == 1.0
    # Seed 4.4 (5): it gave back the mask scaled to length one, which scaled the edit.
    assert torch.equal(original_mask, edit_mask)


sets = st.frozensets(st.integers(0, 20), min_size=1, max_size=9)


@settings(max_examples=80, deadline=None)
@given(
    stored=st.lists(sets, max_size=14, unique=True),
    gone=st.sets(st.integers(0, 13)),
    query=sets,
    metric=st.sampled_from(METRICS),
    threshold=st.sampled_from([0.0, 0.3, 0.5, 0.8, 1.0]),
    top_k=st.integers(1, 5),
)
def test_both_back_ends_equal_the_slow_twin_ties_included(
    stored: list[frozenset[int]],
    gone: set[int],
    query: frozenset[int],
    metric: Any,
    threshold: float,
    top_k: int,
) -> None:
    kept: dict[str, set[int]] = {}
    plain, faiss = (EditMaskDatabase(21, metric, backend=b) for b in ("plain", "faiss"))
    for db in (plain, faiss):
        for number, one in enumerate(stored):
            db.add(str(number), mask(*one, size=21))
            kept[str(number)] = set(one)
        for number in gone & set(range(len(stored))):
            assert db.remove(str(number))
            kept.pop(str(number), None)
    wanted = reference.nearest(
        set(query), {id: kept[id] for id in plain.ids}, metric=metric, threshold=threshold,
        top_k=top_k,
    )  # fmt: skip
    for db in (plain, faiss):
        found = db.search(mask(*query, size=21), threshold=threshold, top_k=top_k)[0]
        assert [(one.edit_id, one.similarity) for one in found] == wanted
        assert all(torch.equal(one.mask, mask(*kept[one.edit_id], size=21)) for one in found)


@pytest.mark.parametrize("search", [PlainSearch, FaissSearch])
def test_among_many_equals_the_oldest_comes_first(search: Any) -> None:
    one = search(4, "cosine")
    rows = bits.pack(torch.eye(256, dtype=torch.bool) | (torch.arange(256) < 8))
    for key in range(9, 200):
        one.add(key, rows[key])
    found = one.nearest(rows[0], threshold=0.1, top_k=3)
    assert [key for key, _ in found] == [9, 10, 11]


def test_counting_ones_by_table_gives_what_numpy_gives() -> None:
    words = np.random.default_rng(0).integers(0, 2**63, (5, 3)).astype(np.uint64)
    by_table = bits._table_count(words)
    assert by_table.tolist() == [[int(w).bit_count() for w in row] for row in words]
    assert bits.popcount(words).tolist() == by_table.tolist()


@pytest.mark.parametrize("features", [1, 63, 64, 65, 200])
def test_packing_is_exact(features: int) -> None:
    masks = torch.rand(9, features, generator=torch.Generator().manual_seed(1)) < 0.3
    packed = bits.pack(masks)
    assert packed.shape == (9, bits.width(features))
    assert torch.equal(bits.unpack(packed, features), masks.float())


@pytest.mark.parametrize("backend", ["plain", "faiss"])
def test_a_search_sees_what_was_added_since(backend: Any) -> None:
    """Seed 4.4 (5): its cache of searches was not cleared by adding, and answered None."""
    db = EditMaskDatabase(70, backend=backend)
    assert db.find_closest(mask(1, 2, 3)) is None
    db.add("late", mask(1, 2, 3))
    found = db.find_closest(mask(1, 2, 3))
    assert found is not None and found.edit_id == "late"


@pytest.mark.parametrize("backend", ["plain", "faiss"])
def test_the_threshold_of_each_search_counts(backend: Any) -> None:
    """Seed 4.4 (5): its cache of searches ignored the threshold."""
    db = filled(backend=backend)
    query = mask(*range(2, 12))
    assert db.find_closest(query, threshold=0.9) is None
    found = db.find_closest(query, threshold=0.7)
    assert found is not None and found.edit_id == "a" and found.similarity == 0.8
    assert db.find_closest(query, threshold=0.9) is None


@pytest.mark.parametrize("backend", ["plain", "faiss"])
def test_after_removing_its_neighbourhood_can_be_searched(backend: Any) -> None:
    """Seed 4.4 (5): a search near a removed mask raised KeyError."""
    db = filled(backend=backend)
    assert db.remove("a") and not db.remove("a")
    found = db.find_closest(mask(*range(10)), threshold=0.1)
    assert found is not None and found.edit_id == "b"
    db.add("a", mask(*range(10)))
    again = db.find_closest(mask(*range(10)))
    assert again is not None and again.edit_id == "a"


def test_top_k_above_one_gives_a_list() -> None:
    found = filled().find_closest(mask(*range(10)), 0.1, 5)
    assert isinstance(found, list) and [one.edit_id for one in found] == ["a", "b"]


def test_an_edit_of_the_same_id_or_at_the_same_mask_is_replaced() -> None:
    db = filled()
    assert db.add("a", mask(60, 61)).replaced == ("a",)
    assert db.add("d", mask(60, 61)).replaced == ("a",)
    assert db.ids == ("b", "c", "d")
    assert not db.add("e", mask(60, 61), on_conflict="keep") and "e" not in db
    with pytest.raises(BadInput, match="'d'"):
        db.add("e", mask(60, 61), on_conflict="reject")
    assert len(db) == 3


def test_consolidation_merges() -> None:
    db = EditMaskDatabase(70, "overlap")
    db.add("a", mask(*range(10)))
    db.add("b", mask(*range(1, 11)))
    db.add("far", mask(*range(40, 50)))
    db.add("c", mask(*range(1, 10), 12))
    merged = db.consolidate(0.8)
    assert [(one.kept, one.gone) for one in merged] == [("a", ("b", "c"))]
    assert db.ids == ("a", "far") and db.resolve("c") == "a" and db.get_statistics()["merged"] == 2
    assert torch.equal(db.mask_of("a"), mask(*range(10)))  # 1 to 9 by votes, 0 as the first
    found = db.find_closest(mask(*range(1, 11)), threshold=0.8)
    assert found is not None and found.edit_id == "a"
    with pytest.raises(CannotForget, match="remove 'a'"):
        db.remove("b")
    assert db.consolidate(0.8) == () and db.remove("a") and db.resolve("b") is None


def test_an_edit_taught_again_after_a_merge_replaces_the_merged_one() -> None:
    db = EditMaskDatabase(70)
    db.add("a", mask(*range(10)))
    db.add("b", mask(*range(1, 11)))
    db.consolidate(0.8)
    assert db.add("b", mask(50, 51)).replaced == ("a",) and db.ids == ("b",)


@pytest.mark.parametrize("backend", ["plain", "faiss"])
def test_a_stored_database_is_the_same_when_it_is_opened(tmp_path: Path, backend: Any) -> None:
    db = filled(storage_dir=tmp_path, backend=backend, host="h")
    db.add("d", mask(*range(1, 11)))
    db.consolidate(0.8)
    again = EditMaskDatabase(70, storage_dir=tmp_path, host="h")
    assert again.ids == db.ids and again.metadata_of("a") == {"name": "a"}
    assert again.resolve("d") == "a" and torch.equal(again.mask_of("a"), db.mask_of("a"))
    assert len(list(tmp_path.glob("masks-*"))) == 1
    assert not list(tmp_path.glob("*.pkl"))
    again.remove("a")
    assert EditMaskDatabase(70, storage_dir=tmp_path).ids == ("b", "c")


def test_an_empty_database_can_be_stored(tmp_path: Path) -> None:
    db = EditMaskDatabase(70, storage_dir=tmp_path)
    db.add("a", mask(1))
    db.remove("a")
    assert len(EditMaskDatabase(70, storage_dir=tmp_path)) == 0


def test_a_database_of_another_host_is_refused(tmp_path: Path) -> None:
    filled(storage_dir=tmp_path, host="smollm2 0123")
    with pytest.raises(HostMismatch, match="smollm2 0123, not qwen"):
        EditMaskDatabase(70, storage_dir=tmp_path, host="qwen")
    with pytest.raises(HostMismatch, match="70 features, not 71"):
        EditMaskDatabase(71, storage_dir=tmp_path)


def test_a_missing_row_is_noticed(tmp_path: Path) -> None:
    filled(storage_dir=tmp_path)
    index = tmp_path / "masks.json"
    content = json.loads(index.read_text())
    content["edits"].pop()
    index.write_text(json.dumps(content))
    with pytest.raises(StoreDamaged, match="3 rows for 2 edits"):
        EditMaskDatabase(70, storage_dir=tmp_path)


def test_changed_metadata_is_noticed(tmp_path: Path) -> None:
    filled(storage_dir=tmp_path)
    index = tmp_path / "masks.json"
    index.write_text(index.read_text().replace('"name": "a"', '"name": "z"'))
    with pytest.raises(StoreDamaged, match="not those that were stored"):
        EditMaskDatabase(70, storage_dir=tmp_path)


@pytest.mark.parametrize("cut", [0, 7, -40, -1])
@pytest.mark.parametrize("which", ["masks.json", "masks-*.safetensors"])
def test_a_truncated_file_is_damaged(tmp_path: Path, which: str, cut: int) -> None:
    filled(storage_dir=tmp_path)
    (path,) = tmp_path.glob(which)
    raw = path.read_bytes().rstrip()
    path.write_bytes(raw[:cut])
    with pytest.raises(StoreDamaged):
        EditMaskDatabase(70, storage_dir=tmp_path)


@pytest.mark.parametrize("which", ["masks.json", "masks-*.safetensors"])
def test_a_missing_file_is_damaged(tmp_path: Path, which: str) -> None:
    filled(storage_dir=tmp_path)
    next(tmp_path.glob(which)).unlink()
    with pytest.raises(StoreDamaged):
        EditMaskDatabase(70, storage_dir=tmp_path)


def test_two_writers_do_not_lose_each_others_edits(tmp_path: Path) -> None:
    filled(storage_dir=tmp_path)
    one, other = (EditMaskDatabase(70, storage_dir=tmp_path) for _ in range(2))
    one.add("d", mask(66))
    with pytest.raises(StoreLocked, match="open it again"):
        other.add("e", mask(67))
    assert other.ids == ("a", "b", "c")  # what could not be stored is not there either
    found = other.find_closest(mask(*range(10)))
    assert found is not None and found.edit_id == "a"
    assert EditMaskDatabase(70, storage_dir=tmp_path).ids == ("a", "b", "c", "d")


def test_metadata_that_cannot_be_stored_is_refused_before_anything_changes(tmp_path: Path) -> None:
    """Seed 4.4 (5): saving failed in silence where metadata held a report object."""
    db = filled(storage_dir=tmp_path)
    with pytest.raises(BadInput, match="metadata of 'd'"):
        db.add("d", mask(66), {"report": object()})
    assert "d" not in db and len(EditMaskDatabase(70, storage_dir=tmp_path)) == 3


def test_a_full_database_says_so_and_still_replaces() -> None:
    db = EditMaskDatabase(70, max_masks=2)
    db.add("a", mask(1))
    db.add("b", mask(2))
    with pytest.raises(MemoryFull, match="max_masks is 2"):
        db.add("c", mask(3))
    assert db.add("a", mask(4)) and db.ids == ("b", "a")


@pytest.mark.parametrize(
    "wrong",
    [torch.zeros(70), torch.zeros(71), torch.full((70,), 0.5), torch.ones(2, 70)],
    ids=["nothing active", "another size", "not binary", "two of them"],
)
def test_masks_that_are_none(wrong: torch.Tensor) -> None:
    with pytest.raises(BadInput):
        EditMaskDatabase(70).add("a", wrong)


def test_options_that_there_are_not() -> None:
    for options in ({"similarity_metric": "jaccard"}, {"backend": "hnsw"}, {"max_masks": 0}):
        with pytest.raises(BadInput):
            EditMaskDatabase(70, **options)  # type: ignore[arg-type]
    with pytest.raises(UnknownFact):
        EditMaskDatabase(70).mask_of("a")
    with pytest.raises(BadInput, match="storage_dir"):
        EditMaskDatabase(70).save_to_disk()
    with pytest.raises(BadInput, match="top_k"):
        EditMaskDatabase(70).search(mask(1), top_k=0)
    with pytest.raises(BadInput, match="on_conflict"):
        EditMaskDatabase(70).add("a", mask(1), on_conflict="both")  # type: ignore[arg-type]


def test_statistics() -> None:
    found = filled().get_statistics()
    assert found["masks"] == 3 and found["mean_active_features"] == 10
    assert found["bytes_per_mask"] == 16 and found["bytes"] == 48
    assert EditMaskDatabase(70).get_statistics()["masks"] == 0


def test_a_mask_of_the_default_host_takes_less_than_a_kilobyte() -> None:
    assert EditMaskDatabase(1536).get_statistics()["bytes_per_mask"] == 192
