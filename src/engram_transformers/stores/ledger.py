"""The ledger: one SQLite file that holds every fact, delta and write. It alone is the truth.

The journal is SQLite's rollback journal, not a write-ahead log: between two commits the ledger
is one complete file that can be copied, and read from a read-only disk. `synchronous=EXTRA`
makes a commit survive a power cut, the removal of the journal included.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
import threading
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

from engram_transformers.errors import BadInput, StoreDamaged, UnknownFact
from engram_transformers.stores import connection
from engram_transformers.stores.connection import APPLICATION_ID, Opened, named
from engram_transformers.stores.records import Head, Note, Packed, Row, Write, undone
from engram_transformers.stores.text import key_of, normalise, pair_of, printable
from engram_transformers.stores.versions import (
    FORMAT,
    MIGRATIONS,
    Migration,
    check_readable,
    ledger_format,
    upgrade_ledger,
)
from engram_transformers.types import Fact

SCHEMA = """
CREATE TABLE writes (
    number INTEGER PRIMARY KEY, stamp TEXT NOT NULL, at TEXT NOT NULL, act TEXT NOT NULL,
    who TEXT, why TEXT, source TEXT, receipt TEXT, undoes INTEGER REFERENCES writes (number));
CREATE TABLE facts (
    row INTEGER PRIMARY KEY, id TEXT NOT NULL,
    added INTEGER NOT NULL REFERENCES writes (number),
    removed INTEGER REFERENCES writes (number),
    prompt_key INTEGER NOT NULL, pair_key INTEGER, checksum INTEGER NOT NULL,
    prompt TEXT NOT NULL, answer TEXT NOT NULL, paraphrases TEXT,
    subject TEXT, relation TEXT, source TEXT);
CREATE TABLE layouts (number INTEGER PRIMARY KEY, header TEXT NOT NULL UNIQUE);
CREATE TABLE deltas (
    row INTEGER PRIMARY KEY REFERENCES facts (row),
    layout INTEGER NOT NULL REFERENCES layouts (number), checksum INTEGER NOT NULL,
    data BLOB NOT NULL);
CREATE UNIQUE INDEX active_facts ON facts (id) WHERE removed IS NULL;
CREATE INDEX active_prompts ON facts (prompt_key) WHERE removed IS NULL;
CREATE INDEX active_pairs ON facts (pair_key) WHERE removed IS NULL AND pair_key IS NOT NULL;
CREATE INDEX facts_added ON facts (added);
CREATE INDEX facts_removed ON facts (removed) WHERE removed IS NOT NULL;
CREATE INDEX past_facts ON facts (id) WHERE removed IS NOT NULL;
"""
ROW = "row, id, added, removed, checksum, prompt, answer, paraphrases, subject, relation, source"
AMONG = "IN (SELECT value FROM json_each(?))"
"One query for any number of values; SQLite limits how many parameters a query has."


class Ledger:
    """An open ledger. Safe to use from several threads, never across a fork."""

    def __init__(self, path: Path, opened: Opened) -> None:
        self.path = path
        self._db = opened.db
        self._copy = opened.copy
        self._lock = threading.RLock()

    @classmethod
    def create(cls, path: Path) -> Ledger:
        """A new ledger, or the empty one that an earlier, unfinished creation left."""
        ledger = cls(path, connection.open_new(path))
        with ledger._closed_on_error(), ledger.writing() as db:
            if not db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                _lay_out(db)
        with ledger._closed_on_error():
            ledger._check_unused()
        return ledger

    @classmethod
    def open(
        cls, path: Path, *, writable: bool, migrations: Mapping[int, Migration] = MIGRATIONS
    ) -> Ledger:
        """An existing ledger, brought to our format if it is opened for writing."""
        opener = connection.open_writing if writable else connection.open_reading
        ledger = cls(path, opener(path))
        with ledger._closed_on_error():
            ledger._bring_up_to_date(writable=writable, migrations=migrations)
        return ledger

    def close(self) -> None:
        """Give the file back."""
        self._db.close()
        if self._copy is not None:
            self._copy.cleanup()

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """One consistent state for everything that is read inside."""
        with self._lock, named(self.path):
            if self._db.in_transaction:
                yield self._db
                return
            self._db.execute("BEGIN")
            try:
                yield self._db
            finally:
                self._roll_back()

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """All of what is written inside, on disk when this ends, or none of it."""
        with self._lock, named(self.path):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            finally:
                self._roll_back()

    def head(self) -> Head:
        """The last write; number 0 in a new ledger."""
        with self.reading() as db:
            found = db.execute("SELECT number, stamp FROM writes ORDER BY number DESC LIMIT 1")
            return Head(*(found.fetchone() or (0, "")))

    def stamp(self, number: int) -> str | None:
        """The stamp of one write; None if there is no such write."""
        with self.reading() as db:
            found = db.execute("SELECT stamp FROM writes WHERE number = ?", (number,)).fetchone()
            return None if found is None else str(found[0])

    def last_receipt(self) -> tuple[int, Mapping[str, Any] | None]:
        """Number of the last write (0: none) and what its receipt says."""
        with self.reading() as db:
            query = "SELECT number, receipt FROM writes ORDER BY number DESC LIMIT 1"
            found = db.execute(query).fetchone()
            return (0, None) if found is None else (int(found[0]), self._json(found[1]))

    def rows(self, where: str, *values: object, limit: int = -1) -> list[Row]:
        """Rows of facts that satisfy a condition in SQL, oldest first; `limit` -1 is none."""
        with self.reading() as db:
            found = db.execute(
                f"SELECT {ROW} FROM facts WHERE {where} ORDER BY row LIMIT {limit}", values
            )
            return [self._row(*each) for each in found]

    def count(self, where: str, *values: object) -> int:
        """How many rows of facts satisfy a condition in SQL."""
        with self.reading() as db:
            found = db.execute(f"SELECT count(*) FROM facts WHERE {where}", values)
            return int(found.fetchone()[0])

    def active(self, ids: Iterable[str]) -> dict[str, Row]:
        """Active rows by their whole ids, of those facts that have one."""
        return {row.id: row for row in self.rows(f"removed IS NULL AND id {AMONG}", _list(ids))}

    def at_prompts(self, prompts: Iterable[str]) -> dict[str, list[Row]]:
        """Active rows by those prompts that are the same as theirs once normalised."""
        wanted = {each: normalise(each) for each in prompts}
        keys = _list(map(key_of, wanted.values()))
        found = defaultdict(list)
        for row in self.rows(f"removed IS NULL AND prompt_key {AMONG}", keys):
            found[normalise(row.fact.prompt)].append(row)
        return {each: found[same] for each, same in wanted.items() if same in found}

    def at_pairs(self, pairs: Iterable[tuple[str, str]]) -> dict[tuple[str, str], list[Row]]:
        """Active rows by those (subject, relation) that are theirs once normalised."""
        wanted = {each: (normalise(each[0]), normalise(each[1])) for each in pairs}
        keys = _list(key_of(*each) for each in wanted.values())
        found = defaultdict(list)
        for row in self.rows(f"removed IS NULL AND pair_key {AMONG}", keys):
            found[pair_of(row.fact)].append(row)
        return {each: found[same] for each, same in wanted.items() if same in found}

    def packed(self, rows: Sequence[int]) -> dict[int, Packed]:
        """Deltas by row."""
        with self.reading() as db:
            headers = dict(db.execute("SELECT number, header FROM layouts").fetchall())
            found = db.execute(
                f"SELECT row, layout, checksum, data FROM deltas WHERE row {AMONG}", (_list(rows),)
            )
            deltas = {row: self._packed(row, headers.get(n), *rest) for row, n, *rest in found}
        if len(deltas) < len(set(rows)):
            raise StoreDamaged(f"{self.path} is damaged: {len(rows) - len(deltas)} deltas missing")
        return deltas

    def commit(
        self, note: Note, *, add: Sequence[tuple[Fact, Packed]], remove: Sequence[str]
    ) -> int:
        """Record one write, removals first; returns its number once it is safe on disk."""
        with self.writing() as db:
            self._check_undoes(note)
            gone = self._removable(remove)
            ids = [fact.id for fact, _ in add]
            self._check_addable(ids, removed=set(remove))
            number = self.head().number + 1
            _record(db, number, note)
            _retire(db, number, gone)
            _store(db, number, ids, add)
        return number

    def writes(self, *, after: int = 0) -> list[Write]:
        """The history, oldest first, from write number `after` + 1."""
        with self.reading() as db:
            found = db.execute(
                "SELECT number, at, act, who, why, source, receipt, undoes FROM writes "
                "WHERE number > ? ORDER BY number",
                (after,),
            ).fetchall()
            added, removed = self._changes("added", after), self._changes("removed", after)
            gone = self.undone()
        return [
            Write(
                number=number,
                at=at,
                act=act,
                who=who,
                why=why,
                source=source,
                receipt=self._json(receipt),
                undoes=undoes,
                added=tuple(added[number]),
                removed=tuple(removed[number]),
                undone=number in gone,
            )
            for number, at, act, who, why, source, receipt, undoes in found
        ]

    def undone(self) -> set[int]:
        """Numbers of the writes that are not in effect any more."""
        with self.reading() as db:
            return undone(
                db.execute("SELECT number, undoes FROM writes WHERE undoes IS NOT NULL").fetchall()
            )

    def _changes(self, column: str, after: int) -> defaultdict[int, list[str]]:
        changes: defaultdict[int, list[str]] = defaultdict(list)
        with self.reading() as db:
            for number, id in db.execute(
                f"SELECT {column}, id FROM facts WHERE {column} > ? ORDER BY row", (after,)
            ):
                changes[number].append(id)
        return changes

    def _row(
        self, row: int, id: str, added: int, removed: int | None, checksum: int, *text: str | None
    ) -> Row:
        if checksum != _checksum(id, text):
            raise StoreDamaged(f"{self.path} is damaged: fact {id} does not have its own text")
        prompt, answer, paraphrases, *rest = text
        others = tuple(self._json(paraphrases) or ())
        return Row(row, id, Fact(prompt or "", answer or "", others, *rest), added, removed)

    def _packed(self, row: int, header: str | None, checksum: int, data: bytes) -> Packed:
        if header is None or zlib.crc32(data) != checksum:
            raise StoreDamaged(f"{self.path} is damaged: the delta of row {row} is not readable")
        return Packed(header, data)

    def _json(self, text: str | None) -> Any:
        if text is None:
            return None
        try:
            return json.loads(text)
        except ValueError as error:
            raise StoreDamaged(f"{self.path} is damaged: {text[:40]!r} is no JSON") from error

    def _check_undoes(self, note: Note) -> None:
        if note.undoes is None:
            return
        if self.stamp(note.undoes) is None or note.undoes in self.undone():
            raise BadInput(f"write {note.undoes} cannot be undone: it is not in effect")

    def _removable(self, ids: Sequence[str]) -> list[Row]:
        if len(set(ids)) < len(ids):
            raise BadInput("the same fact is to be removed twice in one write")
        found = self.active(ids)
        missing = [id for id in ids if id not in found]
        if missing:
            raise UnknownFact(f"fact {missing[0]} is not in this memory; nothing was removed")
        return list(found.values())

    def _check_addable(self, ids: Sequence[str], *, removed: set[str]) -> None:
        if len(set(ids)) < len(ids):
            raise BadInput("the same prompt and answer are to be stored twice in one write")
        there = self.active(ids).keys() - removed
        if there:
            raise BadInput(f"fact {min(there)} is stored already; remove it in the same write")

    def _check_unused(self) -> None:
        with self.reading() as db:
            if db.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
                raise StoreDamaged(f"{self.path} is an SQLite file, but no ledger of ours")
            if ledger_format(db) != FORMAT or self.head().number:
                raise StoreDamaged(f"{self.path} holds facts, but its config.json is missing")

    def _bring_up_to_date(self, *, writable: bool, migrations: Mapping[int, Migration]) -> None:
        with self.reading() as db:
            found = ledger_format(db)
        if found == FORMAT:
            return
        if not writable:
            check_readable(self.path, found, migrations=migrations)
        with self.writing() as db:
            upgrade_ledger(self.path, db, migrations=migrations)

    @contextmanager
    def _closed_on_error(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self.close()
            raise

    def _roll_back(self) -> None:
        # After an error SQLite may have rolled back by itself; the next open repeats it if not.
        with suppress(sqlite3.Error):
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")


def _lay_out(db: sqlite3.Connection) -> None:
    for statement in SCHEMA.split(";"):
        db.execute(statement)
    db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    db.execute(f"PRAGMA user_version = {FORMAT}")


def _record(db: sqlite3.Connection, number: int, note: Note) -> None:
    # ASCII escapes let the receipt hold any string, file names that are no Unicode included.
    receipt = None if note.receipt is None else json.dumps(dict(note.receipt))
    words = [printable(each) for each in (note.who, note.why, note.source)]
    at = datetime.now(UTC).isoformat(timespec="milliseconds")
    db.execute(
        "INSERT INTO writes VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (number, secrets.token_hex(8), at, note.act, *words, receipt, note.undoes),
    )


def _retire(db: sqlite3.Connection, number: int, rows: Sequence[Row]) -> None:
    db.executemany("UPDATE facts SET removed = ? WHERE row = ?", [(number, r.row) for r in rows])


def _store(
    db: sqlite3.Connection, number: int, ids: Sequence[str], add: Sequence[tuple[Fact, Packed]]
) -> None:
    layouts = {each: _layout(db, each) for each in dict.fromkeys(p.header for _, p in add)}
    first = db.execute("SELECT coalesce(max(row), 0) + 1 FROM facts").fetchone()[0]
    db.executemany(
        "INSERT INTO facts VALUES (?, ?, ?, NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            (row, id, number, *_columns(id, fact))
            for row, id, (fact, _) in zip(count(first), ids, add, strict=False)
        ),
    )
    db.executemany(
        "INSERT INTO deltas VALUES (?, ?, ?, ?)",
        (
            (row, layouts[each.header], zlib.crc32(each.data), each.data)
            for row, (_, each) in enumerate(add, first)
        ),
    )


def _columns(id: str, fact: Fact) -> tuple[Any, ...]:
    pair = pair_of(fact)
    keys = key_of(normalise(fact.prompt)), None if pair is None else key_of(*pair)
    others = json.dumps(fact.paraphrases, ensure_ascii=False) if fact.paraphrases else None
    text = fact.prompt, fact.answer, others, fact.subject, fact.relation, fact.source
    return *keys, _checksum(id, text), *text


def _checksum(id: str, text: Sequence[str | None]) -> int:
    return zlib.crc32("\0".join([id, *("" if t is None else f"={t}" for t in text)]).encode())


def _list(values: Iterable[str | int]) -> str:
    """Values as one parameter for `AMONG`."""
    return json.dumps(list(values))


def _layout(db: sqlite3.Connection, header: str) -> int:
    db.execute("INSERT OR IGNORE INTO layouts (header) VALUES (?)", (header,))
    found = db.execute("SELECT number FROM layouts WHERE header = ?", (header,))
    return int(found.fetchone()[0])
