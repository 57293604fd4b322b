"""How the ledger's file is opened, and what SQLite's errors mean to a user."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from engram_transformers.errors import EngramError, StoreDamaged, StoreError, StoreLocked

APPLICATION_ID = 0x454E4752  # "ENGR"
WAIT = 30.0
"Seconds to wait for another process that is in the middle of a read or a commit."
SETTINGS = (
    "synchronous = EXTRA",
    "cache_size = -65536",  # KiB: most writes fit, and keep readers waiting only while committing
    # A damaged or hostile file must not run code of its own, and must be noticed early.
    "trusted_schema = 0",
    "cell_size_check = 1",
)


@dataclass(frozen=True)
class Opened:
    """A connection, and the temporary copy that it reads from, where it had to make one."""

    db: sqlite3.Connection
    copy: tempfile.TemporaryDirectory[str] | None = None


def open_new(path: Path) -> Opened:
    """Open a ledger for writing, creating an empty file if there is none."""
    with named(path):
        return Opened(_connect(path, mode="rwc"))


def open_writing(path: Path) -> Opened:
    """Open an existing ledger for writing; `StoreDamaged` if SQLite finds fault with it."""
    _check_there(path)
    with named(path):
        return Opened(_opened(path, _check_ours, _check_whole))


def open_reading(path: Path) -> Opened:
    """Open an existing ledger for reading, from a read-only disk if need be."""
    _check_there(path)
    with named(path):
        # Not "ro": a writer that was killed leaves a journal that readers have to play back.
        # Where nothing may be written, SQLite falls back to reading by itself.
        try:
            return Opened(_opened(path, _check_ours, _forbid_writing))
        except sqlite3.OperationalError:
            if not _journal(path).exists():
                raise
        return _open_copy(path)


def _opened(path: Path, *checks: Callable[[Path, sqlite3.Connection], None]) -> sqlite3.Connection:
    db = _connect(path, mode="rw")
    try:
        for check in checks:
            check(path, db)
    except BaseException:
        db.close()
        raise
    return db


def _connect(path: Path, *, mode: str) -> sqlite3.Connection:
    db = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}",
        uri=True,
        timeout=WAIT,
        isolation_level=None,
        check_same_thread=False,
    )
    try:
        for setting in SETTINGS:
            db.execute(f"PRAGMA {setting}")
    except BaseException:
        db.close()
        raise
    return db


def _open_copy(path: Path) -> Opened:
    """Play a killed writer's journal back on a copy, where the original may not be written."""
    copy = tempfile.TemporaryDirectory(prefix="engram-ledger-")
    for source in (path, _journal(path)):
        shutil.copyfile(source, Path(copy.name) / source.name)
    return Opened(_opened(Path(copy.name) / path.name, _check_ours, _forbid_writing), copy)


def _journal(path: Path) -> Path:
    return path.with_name(f"{path.name}-journal")


def _check_there(path: Path) -> None:
    try:
        empty = path.stat().st_size == 0
    except OSError as error:
        raise StoreDamaged(f"{path} is missing: {error.strerror}") from error
    if empty:
        raise StoreDamaged(f"{path} is empty; restore it from a copy")


def _check_ours(path: Path, db: sqlite3.Connection) -> None:
    found = db.execute("PRAGMA application_id").fetchone()[0]
    db.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if found != APPLICATION_ID:
        raise StoreDamaged(f"{path} is an SQLite file, but no ledger of engram-transformers")


def _forbid_writing(path: Path, db: sqlite3.Connection) -> None:
    db.execute("PRAGMA query_only = 1")


def _check_whole(path: Path, db: sqlite3.Connection) -> None:
    # Writing to a damaged file would make it worse; this takes a tenth of the time of reading it.
    found = db.execute("PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        raise StoreDamaged(f"{path} is damaged ({found}); restore it from a copy")


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into ours, which name the file."""
    try:
        yield
    except sqlite3.Error as error:
        raise _ours(path, error) from error


def _ours(path: Path, error: sqlite3.Error) -> EngramError:
    # The low byte is the kind of error, the rest says where it struck.
    match getattr(error, "sqlite_errorcode", 0) & 0xFF:
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return StoreLocked(f"{path} stayed in use by another process for {WAIT:.0f} s")
        case sqlite3.SQLITE_FULL:
            return StoreError(f"{path} could not grow, the disk is full; nothing was written")
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM:
            return StoreError(f"{path} is read-only; nothing was written")
        case sqlite3.SQLITE_IOERR | sqlite3.SQLITE_CANTOPEN:
            return StoreError(f"{path} could not be read or written: {error}; nothing was written")
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB | sqlite3.SQLITE_ERROR:
            return StoreDamaged(f"{path} is damaged ({error}); restore it from a copy")
    return StoreError(f"{path} could not be used: {error}")
