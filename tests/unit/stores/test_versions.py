import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from engram_transformers.errors import StoreDamaged, StoreError, StoreTooNew
from engram_transformers.stores import Directory
from engram_transformers.stores.versions import FORMAT, MIGRATIONS, Migration


def set_formats(path: Path, *, config: int | None = None, ledger: int | None = None) -> None:
    if config is not None:
        found = json.loads((path / "config.json").read_text())
        found["format"] = config
        if config == 0:
            found["memory"] = found.pop("kind")
        (path / "config.json").write_text(json.dumps(found))
    if ledger is not None:
        with closing(sqlite3.connect(path / "ledger.sqlite", isolation_level=None)) as db:
            if ledger == 0:
                db.execute("ALTER TABLE writes RENAME COLUMN why TO reason")
            db.execute(f"PRAGMA user_version = {ledger}")


def rename_kind(found: dict[str, Any]) -> dict[str, Any]:
    assert found["format"] == 0
    return {**found, "kind": found.pop("memory")}


def rename_why(db: sqlite3.Connection) -> None:
    db.execute("ALTER TABLE writes RENAME COLUMN reason TO why")


STEPS = {0: Migration(rename_kind, rename_why)}


@pytest.fixture
def old(store: Directory, path: Path, batch) -> Path:
    store.commit("teach", add=batch(5), why="ops")
    store.close()
    set_formats(path, config=0, ledger=0)
    return path


def test_every_older_format_has_a_step() -> None:
    assert sorted(MIGRATIONS) == list(range(1, FORMAT))


def test_an_older_format_is_brought_up_to_date(old: Path, batch) -> None:
    with Directory.open(old, writable=True, migrations=STEPS) as found:
        assert found.kind == "lookup"
        assert found.writes()[0].why == "ops"
        assert len(found.facts()) == 5
    with Directory.open(old) as again:
        assert again.writes()[0].why == "ops"


def test_a_reader_does_not_migrate(old: Path) -> None:
    before = [(old / name).read_bytes() for name in ("config.json", "ledger.sqlite")]
    with pytest.raises(StoreError, match="open it once for writing"):
        Directory.open(old, migrations=STEPS)
    assert before == [(old / name).read_bytes() for name in ("config.json", "ledger.sqlite")]


def test_a_migration_that_fails_changes_nothing(old: Path) -> None:
    def fail(db: sqlite3.Connection) -> None:
        rename_why(db)
        raise KeyboardInterrupt

    before = (old / "ledger.sqlite").read_bytes()
    with pytest.raises(KeyboardInterrupt):
        Directory.open(old, writable=True, migrations={0: Migration(rename_kind, fail)})
    assert (old / "ledger.sqlite").read_bytes() == before
    Directory.open(old, writable=True, migrations=STEPS).close()


def test_a_migration_that_was_killed_between_the_files_goes_on(
    store: Directory, path: Path
) -> None:
    store.close()
    set_formats(path, config=0)
    with Directory.open(path, writable=True, migrations=STEPS) as found:
        assert found.kind == "lookup"
    assert json.loads((path / "config.json").read_text())["format"] == FORMAT


def test_steps_apply_in_order(monkeypatch, store: Directory, path: Path) -> None:
    store.close()
    done: list[str] = []
    steps = {
        number: Migration(
            lambda found, n=number: done.append(f"config {n}") or found,
            lambda db, n=number: done.append(f"ledger {n}"),
        )
        for number in (1, 2)
    }
    monkeypatch.setattr("engram_transformers.stores.versions.FORMAT", 3)
    monkeypatch.setattr("engram_transformers.stores.ledger.FORMAT", 3)
    Directory.open(path, writable=True, migrations=steps).close()
    assert done == ["config 1", "config 2", "ledger 1", "ledger 2"]


@pytest.mark.parametrize("writable", [False, True])
@pytest.mark.parametrize("file", ["config", "ledger"])
def test_a_newer_format_names_the_file_and_both_versions(
    store: Directory, path: Path, file: str, writable: bool
) -> None:
    store.close()
    set_formats(path, **{file: 7})
    with pytest.raises(StoreTooNew, match=rf"{file}\.\w+ has format 7.* up to {FORMAT}"):
        Directory.open(path, writable=writable)


def test_a_format_that_never_was_is_damage(old: Path) -> None:
    with pytest.raises(StoreDamaged, match="no version has written"):
        Directory.open(old, writable=True)
