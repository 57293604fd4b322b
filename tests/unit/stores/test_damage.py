import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from engram_transformers.errors import StoreDamaged, StoreError
from engram_transformers.stores import Directory

LEDGER = "ledger.sqlite"


@pytest.fixture
def closed(store: Directory, path: Path, batch) -> Path:
    store.commit("teach", add=batch(40))
    store.close()
    (path / "memory.safetensors").unlink()
    return path


def execute(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path / LEDGER, isolation_level=None)) as db:
        for statement in statements:
            db.execute(statement)


def truncate(path: Path) -> None:
    raw = (path / LEDGER).read_bytes()
    (path / LEDGER).write_bytes(raw[: len(raw) // 2])


def scribble(path: Path) -> None:
    raw = bytearray((path / LEDGER).read_bytes())
    for start in range(4096, len(raw), 4096):
        raw[start : start + 64] = b"\xa5" * 64
    (path / LEDGER).write_bytes(raw)


def read(path: Path, *, writable: bool) -> None:
    with Directory.open(path, writable=writable) as store:
        store.facts()


DAMAGE: dict[str, Callable[[Path], object]] = {
    "missing": lambda path: (path / LEDGER).unlink(),
    "empty": lambda path: (path / LEDGER).write_bytes(b""),
    "text": lambda path: (path / LEDGER).write_text("no database " * 1000),
    "truncated": truncate,
    "scribbled": scribble,
    "foreign": lambda path: execute(path, "PRAGMA application_id = 7"),
    "no tables": lambda path: execute(path, "DROP TABLE deltas"),
}


@pytest.mark.parametrize("writable", [False, True])
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_ledger_is_named_and_left_alone(
    closed: Path, damage: str, writable: bool
) -> None:
    DAMAGE[damage](closed)
    file = closed / LEDGER
    before = file.read_bytes() if file.exists() else None
    with pytest.raises(StoreDamaged, match=r"ledger\.sqlite"):
        read(closed, writable=writable)
    assert before == (file.read_bytes() if file.exists() else None)
    with pytest.raises(StoreDamaged):  # and the lock is free again
        read(closed, writable=True)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE facts SET answer = 'other' WHERE row = 3",
        "UPDATE facts SET subject = NULL WHERE row = 3",
        "UPDATE facts SET id = 'abc' WHERE row = 3",
        "UPDATE deltas SET data = zeroblob(length(data)) WHERE row = 3",
        "UPDATE deltas SET layout = 99 WHERE row = 3",
        "UPDATE layouts SET header = '{}' WHERE number = 3",
        "UPDATE layouts SET header = 'x' WHERE number = 3",
        "DELETE FROM deltas WHERE row = 3",
        "DELETE FROM layouts",
    ],
)
def test_a_changed_row_is_noticed(closed: Path, statement: str) -> None:
    execute(closed, statement)
    with Directory.open(closed) as store, pytest.raises(StoreDamaged, match=r"ledger\.sqlite"):
        store.facts()


def test_a_damaged_receipt_is_named(closed: Path) -> None:
    execute(closed, "UPDATE writes SET receipt = '{'")
    with Directory.open(closed) as store, pytest.raises(StoreDamaged, match=r"ledger\.sqlite"):
        store.writes()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"format": "1"}',
        '{"format": true}',
        '{"format": 1}',
        "[" * 99999,
        "\udc80",
    ],
)
def test_a_damaged_config_is_named_and_left_alone(closed: Path, text: str) -> None:
    file = closed / "config.json"
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    before = file.read_bytes()
    for writable in (False, True):
        with pytest.raises(StoreDamaged, match=r"config\.json"):
            Directory.open(closed, writable=writable)
    assert file.read_bytes() == before


@pytest.mark.parametrize("field", ["kind", "config", "host", "library", "created"])
@pytest.mark.parametrize("value", [None, 3, ["x"]])
def test_every_field_of_the_config_is_checked(closed: Path, field: str, value: object) -> None:
    file = closed / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), field: value}))
    with pytest.raises(StoreDamaged, match=r"config\.json"):
        Directory.open(closed)


def test_what_is_no_memory_says_so(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(StoreError, match="no memory directory"):
            Directory.open(path)
    assert list(tmp_path.iterdir()) == []
