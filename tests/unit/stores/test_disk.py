"""What a full, a read-only and a slow disk do to a memory directory."""

import contextlib
import os
import shutil
import sqlite3
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from engram_transformers.errors import StoreError, StoreLocked
from engram_transformers.stores import Directory, connection

resource = pytest.importorskip("resource")
LEDGER = "ledger.sqlite"


@contextlib.contextmanager
def no_file_beyond(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextlib.contextmanager
def without_rights(path: Path) -> Iterator[None]:
    """Nobody may write below `path`, not even root: it becomes somebody else for the while."""
    root, mode = os.geteuid() == 0, path.stat().st_mode
    path.chmod(0o555)
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
        path.chmod(mode)


@pytest.fixture
def public() -> Iterator[Path]:
    """A directory that everybody may reach, unlike pytest's own."""
    path = Path(tempfile.mkdtemp())
    path.chmod(0o755)
    yield path / "acme"
    shutil.rmtree(path)


@pytest.mark.parametrize("room", [0, 5000, 40_000, 150_000])
def test_a_commit_that_does_not_fit_leaves_nothing(
    store: Directory, path: Path, batch, room: int
) -> None:
    store.commit("teach", add=batch(20))
    before = store.facts(deltas=False)
    with no_file_beyond((path / LEDGER).stat().st_size + room - 4096):
        with pytest.raises(StoreError, match="nothing was written"):
            store.commit("teach", add=batch(2000, seed=1))
        assert store.facts(deltas=False) == before
    assert store.commit("teach", add=batch(2000, seed=1)) == 2
    assert len(store.facts()) == 2020


def test_a_snapshot_that_does_not_fit_leaves_the_old_one(
    store: Directory, path: Path, batch
) -> None:
    store.commit("teach", add=batch(20))
    store.snapshot()
    good = (path / "memory.safetensors").read_bytes()
    store.commit("teach", add=batch(2000, seed=1))
    refused = pytest.raises(StoreError, match=r"memory\.safetensors could not be written")
    with no_file_beyond(len(good)), refused:
        store.snapshot()
    assert (path / "memory.safetensors").read_bytes() == good
    with no_file_beyond(len(good)):
        store.close()  # it was due, could not be, and nothing is lost
    with Directory.open(path) as found:
        assert len(found.facts()) == 2020


def test_a_full_disk(path: Path, host, batch) -> None:
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(path)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs the right to mount a small disk")
    try:
        with Directory.create(path, kind="lookup", config={}, host=host) as store:
            store.commit("teach", add=batch(20))
            with pytest.raises(StoreError, match="disk is full; nothing was written"):
                store.commit("teach", add=batch(2000, seed=1))
            assert store.commit("teach", add=batch(2, seed=2)) == 2
        with Directory.open(path) as found:
            assert len(found.facts()) == 22
    finally:
        subprocess.run(["umount", str(path)], check=True)


def test_a_read_only_directory_can_be_read(public: Path, host, batch, same_bits) -> None:
    with Directory.create(public, kind="lookup", config={}, host=host) as store:
        store.commit("teach", add=batch(20))
    with without_rights(public):
        with Directory.open(public) as found:
            for stored, (fact, delta) in zip(found.facts(), batch(20), strict=True):
                assert stored.fact == fact
                same_bits(delta, stored.delta)
        with pytest.raises(StoreError, match="read-only"):
            Directory.open(public, writable=True)
        with pytest.raises(StoreError, match="could not be"):
            Directory.create(public / "inner", kind="lookup", config={}, host=host)


def test_a_ledger_that_may_not_be_written(public: Path, host, batch) -> None:
    with Directory.create(public, kind="lookup", config={}, host=host) as store:
        store.commit("teach", add=batch(20))
    (public / LEDGER).chmod(0o444)
    public.chmod(0o777)
    (public / "write.lock").chmod(0o666)
    root = os.geteuid() == 0
    try:
        if root:
            os.seteuid(65534)
        with Directory.open(public, writable=True) as found:
            with pytest.raises(StoreError, match=r"ledger\.sqlite is read-only; nothing"):
                found.commit("teach", add=batch(1, seed=1))
            assert len(found.facts()) == 20
    finally:
        if root:
            os.seteuid(0)


def leave_hot_journal(path: Path) -> None:
    """What a writer that was killed in the middle of a commit leaves behind."""
    db = sqlite3.connect(path / LEDGER, isolation_level=None)
    db.execute("PRAGMA cache_size = 1")
    db.execute("BEGIN IMMEDIATE")
    db.execute("UPDATE facts SET answer = 'half written', checksum = 0")
    copy = path / "copy"
    copy.mkdir()
    for name in (LEDGER, f"{LEDGER}-journal"):
        shutil.copy(path / name, copy / name)
    db.close()
    for name in (LEDGER, f"{LEDGER}-journal"):
        shutil.copy(copy / name, path / name)
    shutil.rmtree(copy)


@pytest.mark.parametrize("rights", [True, False])
def test_what_a_killed_writer_left_is_rolled_back(public: Path, host, batch, rights: bool) -> None:
    with Directory.create(public, kind="lookup", config={}, host=host) as store:
        store.commit("teach", add=batch(300))
    leave_hot_journal(public)
    assert b"half written" in (public / LEDGER).read_bytes()
    before = (public / LEDGER).read_bytes()
    around = contextlib.nullcontext() if rights else without_rights(public)
    with around, Directory.open(public) as found:
        assert [each.fact for each in found.facts()] == [fact for fact, _ in batch(300)]
    assert ((public / LEDGER).read_bytes() == before) is not rights
    with Directory.open(public, writable=True) as found:
        assert len(found.facts()) == 300


def test_a_reader_that_never_ends_is_an_error_not_a_wait(
    path: Path, host, batch, monkeypatch
) -> None:
    monkeypatch.setattr(connection, "WAIT", 0.1)
    with Directory.create(path, kind="lookup", config={}, host=host) as store:
        store.commit("teach", add=batch(2))
        with contextlib.closing(sqlite3.connect(path / LEDGER, isolation_level=None)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT * FROM facts").fetchone()
            with pytest.raises(StoreLocked, match="in use by another process"):
                store.commit("teach", add=batch(2, seed=1))
        assert store.commit("teach", add=batch(2, seed=1)) == 2
