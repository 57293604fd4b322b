"""The tensors of a trained memory: those of the last write, whole, or an error that says so."""

from __future__ import annotations

import json
import sqlite3
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from engram_transformers.errors import CannotForget, StoreDamaged, StoreError
from engram_transformers.stores import Directory, trained
from engram_transformers.types import Fact

Tensors = dict[str, torch.Tensor]


def tensors(seed: int) -> Tensors:
    noise = torch.Generator().manual_seed(seed)
    return {
        "parts.0.dW": torch.randn(3, 5, generator=noise),
        "half": torch.randn(7, generator=noise).half(),
    }


def facts(*names: str) -> Any:
    return [(Fact(name, "answer"), {}) for name in names]


def equal(found: Tensors | None, seed: int) -> bool:
    wanted = tensors(seed)
    return found is not None and all(torch.equal(found[name], wanted[name]) for name in wanted)


def names(path: Path) -> list[str]:
    return sorted(each.name for each in path.iterdir() if "tensors-" in each.name)


def test_the_tensors_of_the_last_write_are_kept_and_no_others(store: Directory) -> None:
    assert store.tensors() is None
    store.commit("teach", add=facts("a"), tensors=tensors(1))
    assert equal(store.tensors(), 1)
    assert store.commit("teach", add=facts("b"), tensors=tensors(2), receipt={"checked": True}) == 2
    assert equal(store.tensors(), 2) and names(store.path) == ["tensors-2.safetensors"]
    assert store.writes()[-1].receipt == {
        "checked": True,
        "tensors": (store.writes()[-1].receipt or {})["tensors"],
    }
    assert store.stats().files["tensors-2.safetensors"] > 0


def test_the_file_is_one_that_others_can_read(store: Directory) -> None:
    store.commit("teach", add=facts("a"), tensors=tensors(1))
    assert equal(load_file(store.path / "tensors-1.safetensors"), 1)


def test_a_reader_sees_them_without_a_lock(store: Directory, path: Path) -> None:
    store.commit("teach", add=facts("a"), tensors=tensors(1))
    with Directory.open(path) as reader:
        assert equal(reader.tensors(), 1)
        store.commit("teach", add=facts("b"), tensors=tensors(2))
        assert equal(reader.tensors(), 2)


def test_a_reader_that_is_overtaken_reads_again(
    store: Directory, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.commit("teach", add=facts("a"), tensors=tensors(1))
    honest = trained.read_tensors

    def overtaken(*args: Any) -> Tensors:
        monkeypatch.setattr(trained, "read_tensors", honest)
        store.commit("teach", add=facts("b"), tensors=tensors(2))
        return honest(*args)

    with Directory.open(path) as reader:
        monkeypatch.setattr(trained, "read_tensors", overtaken)
        assert equal(reader.tensors(), 2)


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_a_commit_that_fails_leaves_the_old_tensors(
    store: Directory, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    store.commit("teach", add=facts("a"), tensors=tensors(1))

    def fail(*_: Any, **__: Any) -> int:
        raise error("full")

    with monkeypatch.context() as patch:
        patch.setattr(store._ledger, "commit", fail)
        with pytest.raises(error):
            store.commit("teach", add=facts("b"), tensors=tensors(2))
    assert equal(store.tensors(), 1) and names(store.path) == ["tensors-1.safetensors"]


def test_a_writer_killed_between_file_and_ledger_leaves_the_old_state(
    store: Directory, path: Path
) -> None:
    store.commit("teach", add=facts("a"), tensors=tensors(1))
    store.close()
    trained.write_tensors(path, 2, tensors(2))
    (path / ".tensors-3.safetensors.new").write_bytes(b"half")
    with Directory.open(path) as reader:
        assert equal(reader.tensors(), 1)
    with Directory.open(path, writable=True) as again:
        assert names(path) == ["tensors-1.safetensors"] and equal(again.tensors(), 1)
        again.commit("teach", add=facts("b"), tensors=tensors(3))
        assert equal(again.tensors(), 3)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def flip(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)


def swap(path: Path) -> None:
    trained.write_tensors(path.parent, 1, tensors(9))


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [cut, flip, swap, empty, Path.unlink])
def test_damage_is_noticed(store: Directory, damage: Callable[[Path], None]) -> None:
    store.commit("teach", add=facts("a"), tensors=tensors(1))
    damage(store.path / "tensors-1.safetensors")
    with pytest.raises(StoreDamaged, match=r"tensors-1\.safetensors"):
        store.tensors()


def test_a_header_that_lies_is_noticed(store: Directory) -> None:
    store.commit("teach", add=facts("a"), tensors=tensors(1))
    path = store.path / "tensors-1.safetensors"
    raw = path.read_bytes()
    size = int.from_bytes(raw[:8], "little")
    text = raw[8 : 8 + size].replace(b"[3, 5]", b"[5, 5]")
    path.write_bytes(raw[:8] + text + raw[8 + size :])
    checksum = trained._checksum(text, raw[8 + size :])
    with sqlite3.connect(store.path / "ledger.sqlite") as db:
        db.execute("UPDATE writes SET receipt = ?", (json.dumps({"tensors": checksum}),))
    with pytest.raises(StoreDamaged, match="damaged"):
        store.tensors()


def test_nothing_goes_from_a_trained_memory_without_new_tensors(store: Directory) -> None:
    store.commit("teach", add=facts("a"), tensors=tensors(1))
    [one] = store.facts()
    for attempt in (
        lambda: store.commit("forget", remove=[one.id]),
        lambda: store.commit("teach", add=facts("b")),
        store.check_removable,
    ):
        with pytest.raises(CannotForget):
            attempt()
    store.commit("teach", add=facts("b"), remove=[one.id], tensors=tensors(2))
    assert [each.fact.prompt for each in store.facts()] == ["b"]


def test_a_full_disk_leaves_the_old_tensors(
    store: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.commit("teach", add=facts("a"), tensors=tensors(1))

    def full(*_: Any) -> None:
        raise StoreError("could not be written: no space left")

    with monkeypatch.context() as patch:
        patch.setattr(trained, "replace_file", full)
        with pytest.raises(StoreError, match="no space"):
            store.commit("teach", add=facts("b"), tensors=tensors(2))
    assert equal(store.tensors(), 1) and len(store.facts()) == 1


def test_a_large_table_is_not_copied_on_its_way(store: Directory) -> None:
    table = {"table": torch.ones(1 << 20), "bias": torch.ones(3)}
    peaks = []
    for work in (lambda: store.commit("teach", tensors=table), store.tensors):
        tracemalloc.start()
        work()
        peaks.append(tracemalloc.get_traced_memory()[1] / table["table"].nbytes)
        tracemalloc.stop()
    # What is read is held once.
    assert peaks[0] < 0.1 and peaks[1] < 1.1


@pytest.mark.parametrize(
    "given",
    [
        torch.arange(12.0).reshape(3, 4).T,
        torch.ones(2, 3, dtype=torch.bfloat16, requires_grad=True),
        torch.tensor(True),
        torch.zeros(0, 4),
    ],
)
def test_any_tensor_comes_back_and_can_be_changed(store: Directory, given: torch.Tensor) -> None:
    store.commit("teach", tensors={"it": given, "more": torch.ones(1)})
    found = (store.tensors() or {})["it"]
    assert found.dtype == given.dtype and torch.equal(found, given)
    found.zero_()
    assert torch.equal((store.tensors() or {})["it"], given)
