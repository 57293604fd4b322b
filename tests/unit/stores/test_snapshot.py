import logging
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from engram_transformers.errors import StoreError
from engram_transformers.stores import Directory, snapshot
from engram_transformers.stores.peek import peek
from engram_transformers.stores.records import Head
from engram_transformers.stores.tensors import pack
from engram_transformers.types import Fact

NAME = "memory.safetensors"


@pytest.fixture
def full(store: Directory, batch) -> Directory:
    store.commit("teach", add=batch(20))
    store.commit("forget", remove=[batch(20)[3][0].id])
    store.snapshot()
    return store


def check(store: Directory, batch, same_bits) -> None:
    expected = [each for at, each in enumerate(batch(20)) if at != 3]
    for stored, (fact, delta) in zip(store.facts(), expected, strict=True):
        assert stored.fact == fact
        same_bits(delta, stored.delta)


def test_it_is_a_safetensors_file_with_few_tensors(full: Directory, path: Path) -> None:
    with safe_open(path / NAME, "pt") as file:
        assert file.metadata()["write"] == "2"
        assert set(file.keys()) == {"row", "layout", "keys:I32", "payload:F16", "scale:F32"}
        assert file.get_tensor("payload:F16").shape == (19 * 16,)
        assert file.get_tensor("row").tolist()[:4] == [1, 2, 3, 5]


def test_it_serves_the_deltas(full: Directory, batch, same_bits, monkeypatch) -> None:
    asked: list[int] = []
    packed = full._ledger.packed
    monkeypatch.setattr(full._ledger, "packed", lambda rows: asked.extend(rows) or packed(rows))
    check(full, batch, same_bits)
    assert asked == []


def test_what_came_after_it_is_read_from_the_ledger(full: Directory, batch, same_bits) -> None:
    more = batch(4, seed=1)
    full.commit("teach", add=more, remove=[batch(20)[0][0].id])
    found = full.facts()
    assert len(found) == 22
    for stored, (fact, delta) in zip(found[-4:], more, strict=True):
        assert stored.fact == fact
        same_bits(delta, stored.delta)


@pytest.mark.parametrize("damage", ["missing", "empty", "short", "header", "bit", "long", "huge"])
def test_whatever_happens_to_it_nothing_is_lost(
    full: Directory, path: Path, batch, same_bits, damage: str
) -> None:
    file = path / NAME
    good = file.read_bytes()
    bad = {
        "empty": b"",
        "short": good[:-1],
        "header": good[:8] + b"[" + good[9:],
        "bit": good[:-9] + bytes([good[-9] ^ 1]) + good[-8:],
        "long": good + b"\0",
        "huge": b"\xff" * 8 + good[8:],
    }
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(bad[damage])
    check(full, batch, same_bits)
    assert full.snapshot_if_due()
    assert file.read_bytes() == good


def test_damage_is_told(full: Directory, path: Path, caplog) -> None:
    (path / NAME).write_bytes(b"x")
    with caplog.at_level(logging.WARNING):
        full.facts()
    assert NAME in caplog.text


def test_one_of_another_directory_is_not_believed(
    full: Directory, path: Path, tmp_path: Path, host, batch, same_bits
) -> None:
    with Directory.create(tmp_path / "other", kind="lookup", config={}, host=host) as other:
        other.commit("teach", add=batch(20, seed=9))
        other.commit("forget", remove=[batch(20, seed=9)[3][0].id])
        other.snapshot()
    (path / NAME).write_bytes((tmp_path / "other" / NAME).read_bytes())
    check(full, batch, same_bits)


def test_one_that_is_newer_than_the_ledger_is_not_believed(
    full: Directory, path: Path, batch, same_bits
) -> None:
    rows = {1: pack({"keys": torch.zeros(3)})}
    snapshot.write(path / NAME, Head(9, "0" * 16), rows)
    check(full, batch, same_bits)


def test_another_version_of_it_is_rebuilt(full: Directory, path: Path, batch, same_bits) -> None:
    file = path / NAME
    file.write_bytes(file.read_bytes().replace(b'"version": "1"', b'"version": "2"'))
    check(full, batch, same_bits)
    assert full.snapshot_if_due()


def test_it_is_due_when_enough_has_changed(store: Directory, batch) -> None:
    assert not store.snapshot_if_due()
    store.commit("teach", add=batch(80))
    assert store.snapshot_if_due()
    assert not store.snapshot_if_due()
    store.commit("teach", add=batch(9, seed=1))
    assert not store.snapshot_if_due()
    store.commit("forget", remove=[fact.id for fact, _ in batch(3)])
    assert store.snapshot_if_due()


def test_closing_writes_it_when_due(store: Directory, path: Path, batch) -> None:
    store.commit("teach", add=batch(3))
    store.close()
    assert peek(path / NAME).number == 1


def test_empty_and_mixed_deltas(store: Directory, path: Path, same_bits) -> None:
    deltas = [
        {},
        {"x": torch.empty(0, 3)},
        {"x": torch.ones(2, dtype=torch.int64), "row": torch.ones(1)},
        {"x": torch.ones(2, dtype=torch.bfloat16), "layout": torch.ones((), dtype=torch.bool)},
        {},
    ]
    store.commit("teach", add=[(Fact(f"p{n}", "a"), each) for n, each in enumerate(deltas)])
    store.snapshot()
    assert snapshot.read(path / NAME) is not None
    for stored, delta in zip(store.facts(), deltas, strict=True):
        same_bits(delta, stored.delta)
    store.commit("forget", remove=[each.id for each in store.facts()])
    store.snapshot()
    assert store.facts() == []


def test_a_failed_one_leaves_the_old_one(full: Directory, path: Path, monkeypatch) -> None:
    good = (path / NAME).read_bytes()
    full.commit("forget", remove=[each.id for each in full.facts()])

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(StoreError, match=r"memory\.safetensors could not be written: No space"):
        full.snapshot()
    assert (path / NAME).read_bytes() == good
    assert not list(path.glob(".*"))


def test_readers_cannot_write_it(full: Directory, path: Path) -> None:
    full.close()
    with Directory.open(path) as reader, pytest.raises(StoreError, match="reading only"):
        reader.snapshot()
