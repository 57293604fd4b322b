"""What is cached is made once, appears complete or not at all, and is made again when damaged."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from engram_transformers.errors import StoreError
from engram_transformers.models.cache import cache_dir, intact, made_once

SLOW = """
import sys, time
from pathlib import Path
from engram_transformers.models.cache import made_once

def make(folder):
    with open(sys.argv[2], "a") as log:
        log.write("made\\n")
    (folder / "weights").write_bytes(b"x" * 1000)
    time.sleep(1.5)
    (folder / "config").write_text("{}")

target = made_once(Path(sys.argv[1]), make)
assert (target / "config").read_text() == "{}"
"""


def make(folder):
    (folder / "weights").write_bytes(b"0123456789")
    (folder / "config").write_text("{}")


def refuse(folder):
    raise AssertionError("made again")


@pytest.fixture
def target(tmp_path):
    return made_once(tmp_path / "hosts" / "a", make)


def test_a_second_time_it_is_not_made(target):
    assert made_once(target, refuse) == target
    assert intact(target, thorough=True)


def test_two_processes_at_once_make_it_once(tmp_path):
    log, target = tmp_path / "log", tmp_path / "hosts" / "a"
    command = [sys.executable, "-c", SLOW, str(target), str(log)]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    both = [subprocess.Popen(command, env=env) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    assert log.read_text() == "made\n"
    assert sorted(p.name for p in target.parent.iterdir()) == ["a", "a.lock"]


@pytest.mark.parametrize("content", [b"01234", b"0123456788", None])
def test_a_damaged_copy_is_made_again(target, content):
    if content is None:
        (target / "weights").unlink()
    else:
        (target / "weights").write_bytes(content)
    assert not intact(target)
    made_once(target, make)
    assert (target / "weights").read_bytes() == b"0123456789"


def test_damage_that_left_the_time_alone_is_found_when_thorough(target):
    path = target / "weights"
    before = path.stat()
    path.write_bytes(b"0123456788")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert intact(target)
    assert not intact(target, thorough=True)


def test_a_copy_with_other_times_is_hashed_once_and_trusted(target):
    os.utime(target / "weights")
    made_once(target, refuse)
    manifest = (target / "manifest.json").read_text()
    assert str((target / "weights").stat().st_mtime_ns) in manifest


@pytest.mark.parametrize("manifest", ["", "[]", '{"format": 2, "files": {}}', '{"format": 1}'])
def test_a_foreign_manifest_is_no_manifest(target, manifest):
    (target / "manifest.json").write_text(manifest)
    assert not intact(target)


def test_a_failed_making_leaves_nothing(tmp_path):
    def fail(folder):
        make(folder)
        raise ValueError("half way")

    with pytest.raises(ValueError, match="half way"):
        made_once(tmp_path / "hosts" / "a", fail)
    assert [p.name for p in (tmp_path / "hosts").iterdir() if p.is_dir()] == []


def test_leftovers_of_a_process_that_died_are_swept(tmp_path):
    leftover = tmp_path / "hosts" / "a.part-dead"
    leftover.mkdir(parents=True)
    (leftover / "weights").write_bytes(b"0")
    made_once(tmp_path / "hosts" / "a", make)
    assert not leftover.exists()


def test_a_folder_that_cannot_be_made_is_a_store_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="ENGRAM_CACHE"):
        made_once(tmp_path / "file" / "a", make)


def test_a_use_costs_next_to_nothing(target):
    start = time.perf_counter()
    made_once(target, refuse)
    assert time.perf_counter() - start < 0.1


def test_the_cache_is_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("ENGRAM_CACHE", str(tmp_path / "mine"))
    assert cache_dir() == tmp_path / "mine"
    monkeypatch.delenv("ENGRAM_CACHE")
    assert cache_dir().name == "engram-transformers"
