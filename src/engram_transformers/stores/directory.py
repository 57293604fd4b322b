"""A memory directory: `config.json`, `ledger.sqlite` and `memory.safetensors`.

A trained memory has `tensors-<write>.safetensors` besides, since its facts have no deltas.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from filelock import BaseFileLock

from engram_transformers.errors import (
    CannotForget,
    HostMismatch,
    StoreDamaged,
    StoreError,
    UnknownFact,
)
from engram_transformers.registry import KINDS
from engram_transformers.stores import config as configs
from engram_transformers.stores import lock as locks
from engram_transformers.stores import trained
from engram_transformers.stores.config import Description
from engram_transformers.stores.files import sync_directory
from engram_transformers.stores.ledger import Ledger
from engram_transformers.stores.peek import peek
from engram_transformers.stores.records import Act, Inverse, Note, Packed, Row, Stored, Write
from engram_transformers.stores.text import refuse_surrogates
from engram_transformers.stores.versions import FORMAT, MIGRATIONS, Migration
from engram_transformers.types import Fact, HostIdentity

if TYPE_CHECKING:  # listing facts must not cost an import of torch
    from torch import Tensor

    Tensors = dict[str, Tensor]

CONFIG, LEDGER, SNAPSHOT = "config.json", "ledger.sqlite", "memory.safetensors"
UNFINISHED = {LEDGER, f"{LEDGER}-journal", locks.NAME, f".{CONFIG}.new"}
"All that a creation that was cut short can leave behind."
DUE = 8
"A new snapshot is due once one fact in this many has changed since the last."


@dataclass(frozen=True)
class Stats:
    """How much a memory directory holds."""

    active: int
    forgotten: int
    "Facts that were stored once and are not active now."
    writes: int
    files: Mapping[str, int]
    "Bytes by file name."
    snapshot: int | None
    "The write that the snapshot is as of; None without one."

    @property
    def bytes(self) -> int:
        """Size of all files."""
        return sum(self.files.values())

    @property
    def bytes_per_fact(self) -> float:
        """Size of all files for each active fact; 0 without facts."""
        return self.bytes / self.active if self.active else 0.0


def is_memory(path: str | os.PathLike[str]) -> bool:
    """Whether a path is a memory directory whose creation was finished."""
    return (Path(path) / CONFIG).is_file()


def beside(path: Path) -> list[Path]:
    """The directories of memories that were trained together with the one in a directory."""
    return [path / kind for kind in KINDS if is_memory(path / kind)]


class Directory:
    """An open memory directory; use it as a context manager or close it."""

    def __init__(
        self, path: Path, description: Description, ledger: Ledger, lock: BaseFileLock | None
    ) -> None:
        self.path = path
        self.kind = description.kind
        self.config = description.config
        self.host = description.host
        self._ledger = ledger
        self._lock = lock
        self._distrusted = False

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        *,
        kind: str,
        config: Mapping[str, Any],
        host: HostIdentity,
    ) -> Directory:
        """A new, empty memory, open for writing; `StoreError` if something else is there.

        A creation that was cut short is finished by the next one: `config.json` comes last.
        """
        path = Path(path)
        _make(path)
        _check_vacant(path)
        lock = locks.acquire(path)
        try:
            _check_vacant(path)  # again: another process may have been faster
            description = configs.described(kind, config, host)
            ledger = Ledger.create(path / LEDGER)
            try:
                configs.write(path / CONFIG, description)
            except BaseException:
                ledger.close()
                raise
        except BaseException:
            lock.release()
            raise
        return cls(path, description, ledger, lock)

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        writable: bool = False,
        migrations: Mapping[int, Migration] = MIGRATIONS,
    ) -> Directory:
        """An existing memory; `StoreLocked` if it is to be written and somebody else does so.

        Readers take no lock: each of their calls sees one consistent state, and the next call
        what was written meanwhile.
        """
        path = Path(path)
        if not is_memory(path):
            raise StoreError(f"{path} is no memory directory: it has no {CONFIG}")
        lock = locks.acquire(path) if writable else None
        try:
            description = configs.read(path / CONFIG, migrations=migrations)
            ledger = Ledger.open(path / LEDGER, writable=writable, migrations=migrations)
            if writable and configs.read_raw(path / CONFIG)["format"] != FORMAT:
                configs.write(path / CONFIG, description)
        except BaseException:
            if lock is not None:
                lock.release()
            raise
        directory = cls(path, description, ledger, lock)
        if writable:
            found = directory._trained()
            trained.sweep(path, keep=found and found[0])
        return directory

    @property
    def writable(self) -> bool:
        """Whether this process holds the writer's lock."""
        return self._lock is not None

    def check_host(self, host: HostIdentity) -> None:
        """`HostMismatch` unless this memory was written for `host`."""
        if host.fingerprint == self.host.fingerprint:
            return
        if host.weights and host.weights == self.host.weights:
            raise HostMismatch(
                f"{self.path} was written for {self.host.id} with another tokenizer: the weights "
                "are equal, but its tokens, special tokens or splitting are not; use the tokenizer "
                "that it was written with, or teach its facts in a new directory"
            )
        raise HostMismatch(
            f"{self.path} was written for {self.host.id} ({self.host.fingerprint}), not for "
            f"{host.id} ({host.fingerprint}); teach its facts to this host in a new directory"
        )

    def facts(self, *, deltas: bool = True) -> list[Stored]:
        """All active facts, oldest first; with `deltas=False` each has an empty delta.

        A delta's tensors may share memory with those of other facts: clone before changing one.
        """
        with self._ledger.reading():
            rows = self._ledger.rows("removed IS NULL")
            found = self._deltas([row.row for row in rows]) if deltas else {}
        return [_stored(row, found.get(row.row, {})) for row in rows]

    def by_prompt(self, prompts: Iterable[str]) -> dict[str, list[Stored]]:
        """Active facts, without deltas, by those of the prompts that are taught.

        Prompts are compared normalised: composed (NFC) and with runs of whitespace as one space.
        """
        found = self._ledger.at_prompts(prompts)
        return {each: [_stored(row, {}) for row in rows] for each, rows in found.items()}

    def by_pair(self, pairs: Iterable[tuple[str, str]]) -> dict[tuple[str, str], list[Stored]]:
        """Active facts, without deltas, by those of the (subject, relation) that are taught."""
        found = self._ledger.at_pairs(pairs)
        return {each: [_stored(row, {}) for row in rows] for each, rows in found.items()}

    def get(self, id: str, *, deltas: bool = True) -> Stored:
        """The active fact with this id, or the only one whose id begins so; else `UnknownFact`."""
        with self._ledger.reading():
            row = self._only(id.strip().lower())
            found = self._deltas([row.row], snapshot=False)[row.row] if deltas else {}
            return _stored(row, found)

    def active(self, ids: Iterable[str]) -> set[str]:
        """Those of the ids under which a fact is active."""
        with self._ledger.reading():
            return {id for id in ids if self._ledger.rows("removed IS NULL AND id = ?", id)}

    def commit(
        self,
        act: Act,
        *,
        add: Sequence[tuple[Fact, Tensors]] = (),
        remove: Sequence[str] = (),
        who: str | None = None,
        why: str | None = None,
        source: str | None = None,
        receipt: Mapping[str, Any] | None = None,
        undoes: int | None = None,
        tensors: Tensors | None = None,
    ) -> int:
        """Remove and then add facts in one write; returns its number once it is safe on disk.

        All or nothing: `UnknownFact` for an id that is not active, `BadInput` for a fact that
        already is, `FactRefused` for text that is not Unicode, `StoreError` if the disk refuses,
        `CannotForget` for facts that go from a trained memory without new tensors.

        Args:
            tensors: of a trained memory, as they are after this write.
        """
        self._check_writable()
        if tensors is None:
            self.check_removable()
        for fact, _ in add:
            refuse_surrogates(fact)
        packed = _packed(add) if add else []
        note = Note(act, who, why, source, receipt, undoes)
        if tensors is None:
            return self._ledger.commit(note, add=packed, remove=remove)
        return self._commit_trained(note, packed, remove, tensors)

    def tensors(self) -> Tensors | None:
        """The tensors of a trained memory as of its last write; None before its first.

        `StoreDamaged` if they are not what that write put there.
        """
        found = self._trained()
        while found is not None:
            try:
                return trained.read_tensors(self.path, *found)
            except FileNotFoundError as error:
                # A writer may have replaced them just now; if not, they are lost.
                again = self._trained()
                if again == found:
                    lost = trained.path_of(self.path, found[0])
                    raise StoreDamaged(f"{lost} is missing; teach its facts again") from error
                found = again
        return None

    def check_removable(self) -> None:
        """`CannotForget` where all facts share tensors, from which none can be taken out."""
        if self._trained() is not None:
            raise CannotForget(
                f"the facts of {self.path} share the tensors of one {self.kind} memory, and none "
                "can be taken out; export them, and teach those that shall stay to a new memory"
            )

    def writes(self, *, after: int = 0) -> list[Write]:
        """The history, oldest first, from write number `after` + 1."""
        return self._ledger.writes(after=after)

    def inverse(self, write: int | None = None) -> Inverse:
        """What takes back `write`, or else the last one that taught or forgot and is in effect.

        `commit("undo", ...)` takes all three of its fields. `BadInput` if there is nothing to
        undo, or if a later write changed the same facts.
        """
        from engram_transformers.stores.undo import inverse

        return inverse(self._ledger, write)

    def snapshot(self) -> None:
        """Write the snapshot anew, if it is behind the ledger; `StoreError` if that fails."""
        from engram_transformers.stores import snapshot

        self._check_writable()
        with self._ledger.reading():
            head = self._ledger.head()
            if not self._distrusted and peek(self.path / SNAPSHOT) == head:
                return
            rows = self._ledger.rows("removed IS NULL")
            packed = self._ledger.packed([row.row for row in rows])
        snapshot.write(self.path / SNAPSHOT, head, packed)
        self._distrusted = False

    def snapshot_if_due(self) -> bool:
        """Write the snapshot if enough has changed to be worth it; whether it was written."""
        due = self._due()
        if due:
            self.snapshot()
        return due

    def stats(self) -> Stats:
        """Counts and sizes."""
        with self._ledger.reading() as db:
            head = peek(self.path / SNAPSHOT)
            return Stats(
                active=self._ledger.count("removed IS NULL"),
                forgotten=db.execute(FORGOTTEN).fetchone()[0],
                writes=self._ledger.head().number,
                files=_sizes(self.path),
                snapshot=None if head is None else head.number,
            )

    def close(self) -> None:
        """Bring the snapshot up to date if that is due, and let the next writer in."""
        if self._lock is not None:
            # The snapshot is only a copy: without it the next opening is slower, no more.
            with suppress(StoreError):
                self.snapshot_if_due()
        self._ledger.close()
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def __enter__(self) -> Directory:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _commit_trained(
        self,
        note: Note,
        add: Sequence[tuple[Fact, Packed]],
        remove: Sequence[str],
        tensors: Tensors,
    ) -> int:
        # The lock is ours, so nobody else takes this number.
        number = self._ledger.head().number + 1
        before = self._trained()
        checksum = trained.write_tensors(self.path, number, tensors)
        note = replace(note, receipt={**(note.receipt or {}), "tensors": checksum})
        try:
            self._ledger.commit(note, add=add, remove=remove)
        except BaseException:
            trained.sweep(self.path, keep=before and before[0])
            raise
        trained.sweep(self.path, keep=number)
        return number

    def _trained(self) -> tuple[int, str] | None:
        """The write that the tensors here are of, and their checksum; None where none are."""
        # No write of a trained memory is without tensors, so the last one tells.
        number, receipt = self._ledger.last_receipt()
        checksum = (receipt or {}).get("tensors")
        return None if checksum is None else (number, str(checksum))

    def _check_writable(self) -> None:
        if self._lock is None:
            raise StoreError(f"{self.path} is open for reading only; open it with writable=True")

    def _only(self, prefix: str) -> Row:
        found = self._ledger.rows("removed IS NULL AND id = ?", prefix) or self._beginning(prefix)
        if len(found) == 1:
            return found[0]
        if found:
            raise UnknownFact(f"{prefix!r} is short for several facts: {_ids(found)}")
        past = self._ledger.rows("removed IS NOT NULL AND id = ?", prefix)
        if past:
            raise UnknownFact(f"fact {prefix} was removed by write {past[-1].removed}")
        near = self._near(prefix)
        raise UnknownFact(f"no fact here has the id {prefix!r}" + (f"; near: {near}" * bool(near)))

    def _beginning(self, prefix: str) -> list[Row]:
        if not prefix:
            return []
        # A range, unlike LIKE, uses the index and knows no wildcards. Ids end before "g".
        between = "removed IS NULL AND id >= ? AND id < ? || 'g'"
        return self._ledger.rows(between, prefix, prefix, limit=4)

    def _near(self, id: str) -> str:
        for length in range(len(id) - 1, 1, -1):
            found = self._beginning(id[:length])
            if found:
                return _ids(found)
        return ""

    def _deltas(self, rows: Sequence[int], *, snapshot: bool = True) -> dict[int, Tensors]:
        from engram_transformers.stores.tensors import unpack

        known = self._trusted() if snapshot else {}
        packed = self._ledger.packed([row for row in rows if row not in known])
        try:
            return {row: known[row] if row in known else unpack(packed[row]) for row in rows}
        except ValueError as error:
            raise StoreDamaged(f"{self.path / LEDGER} is damaged: {error}") from error

    def _trusted(self) -> Mapping[int, Tensors]:
        """The snapshot's deltas, if it was taken from this very ledger.

        Rows never change once written: a snapshot that is behind is incomplete, not wrong.
        """
        from engram_transformers.stores import snapshot

        found = snapshot.read(self.path / SNAPSHOT)
        if found is None or self._ledger.stamp(found.head.number) != found.head.stamp:
            self._distrusted = True
            return {}
        return found.deltas

    def _due(self) -> bool:
        self._check_writable()
        with self._ledger.reading():
            if self._ledger.head().number == 0:
                return False
            head = peek(self.path / SNAPSHOT)
            if self._distrusted or head is None or self._ledger.stamp(head.number) != head.stamp:
                return True
            since = self._ledger.count("added > ? OR removed > ?", head.number, head.number)
            return since > 0 and since * DUE >= self._ledger.count("removed IS NULL")


FORGOTTEN = """
SELECT count(DISTINCT id) FROM facts AS past WHERE removed IS NOT NULL
AND NOT EXISTS (SELECT 1 FROM facts WHERE id = past.id AND removed IS NULL)
"""


def _stored(row: Row, delta: Tensors) -> Stored:
    return Stored(row.id, row.fact, row.added, delta)


def _packed(add: Sequence[tuple[Fact, Tensors]]) -> list[tuple[Fact, Packed]]:
    # Forgetting packs nothing, and must not cost an import of torch.
    from engram_transformers.stores.tensors import pack

    return [(fact, pack(delta)) for fact, delta in add]


def _ids(rows: Sequence[Row]) -> str:
    return ", ".join(row.id for row in rows[:3]) + (", …" if len(rows) > 3 else "")


def _make(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
        sync_directory(path.parent)
    except FileExistsError as error:
        raise StoreError(f"{path} is a file; a memory needs a directory") from error
    except OSError as error:
        raise StoreError(f"{path} could not be created: {error.strerror}") from error


def _check_vacant(path: Path) -> None:
    names = {each.name for each in path.iterdir()}
    if CONFIG in names:
        raise StoreError(f"{path} is a memory already; open it")
    foreign = sorted(names - UNFINISHED)
    if foreign:
        raise StoreError(f"{path} holds {foreign[0]!r}; a memory needs a directory of its own")


def _sizes(path: Path) -> dict[str, int]:
    sizes = {}
    for each in path.iterdir():
        with suppress(FileNotFoundError):  # a journal comes and goes
            sizes[each.name] = each.stat().st_size
    return sizes
