"""The format that this library writes, and the steps that lead to it from older ones."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engram_transformers.errors import StoreDamaged, StoreError, StoreTooNew

FORMAT = 1
"Format of `config.json` and of the ledger; a change to either needs a migration."


@dataclass(frozen=True)
class Migration:
    """One step from a format to the next, in both files. Each step sees only its own format."""

    config: Callable[[dict[str, Any]], dict[str, Any]]
    ledger: Callable[[sqlite3.Connection], None]
    "Runs inside a transaction that it must neither commit nor roll back."


MIGRATIONS: Mapping[int, Migration] = {}
"The step that leads away from each older format."


def steps(
    path: Path, found: int, *, migrations: Mapping[int, Migration] = MIGRATIONS
) -> list[Migration]:
    """The steps from the format of `path` to ours; `StoreTooNew` if it is ahead of us."""
    if found > FORMAT:
        raise StoreTooNew(
            f"{path} has format {found}, written by a newer version; this one reads up to "
            f"{FORMAT}. Update engram-transformers."
        )
    missing = [number for number in range(found, FORMAT) if number not in migrations]
    if missing:
        raise StoreDamaged(f"{path} has format {missing[0]}, which no version has written")
    return [migrations[number] for number in range(found, FORMAT)]


def upgraded_config(
    path: Path, config: dict[str, Any], *, migrations: Mapping[int, Migration] = MIGRATIONS
) -> dict[str, Any]:
    """What `config.json` says, in our format; changes no file."""
    for step in steps(path, config["format"], migrations=migrations):
        config = {**step.config(config), "format": config["format"] + 1}
    return config


def upgrade_ledger(
    path: Path, db: sqlite3.Connection, *, migrations: Mapping[int, Migration] = MIGRATIONS
) -> None:
    """Bring a ledger to our format, inside the caller's transaction: all steps or none."""
    for step in steps(path, ledger_format(db), migrations=migrations):
        step.ledger(db)
    db.execute(f"PRAGMA user_version = {FORMAT}")


def check_readable(
    path: Path, found: int, *, migrations: Mapping[int, Migration] = MIGRATIONS
) -> None:
    """A reader cannot migrate a ledger: say so if `path` would need it."""
    if steps(path, found, migrations=migrations):
        raise StoreError(
            f"{path} has format {found}, older than {FORMAT}; open it once for writing to bring "
            "it up to date"
        )


def ledger_format(db: sqlite3.Connection) -> int:
    """The format of an open ledger."""
    return int(db.execute("PRAGMA user_version").fetchone()[0])
