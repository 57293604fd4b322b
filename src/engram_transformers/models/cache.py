"""Folders that are made once and then trusted: locked while made, checked whenever used.

A cached folder holds a `manifest.json` with the size, time and sha256 of every file in it. Sizes
and modification times are compared at every use, which costs nothing; only a file whose time has
changed is hashed again. So an edit, a truncation and an interrupted copy are noticed; a disk that
changes bits without anybody writing is not, except by ``intact(folder, thorough=True)``.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import FileLock

from engram_transformers.errors import StoreError

MANIFEST = "manifest.json"
FORMAT = 1


def cache_dir() -> Path:
    """Where converted hosts are kept: ``ENGRAM_CACHE``, else the platform's cache folder."""
    chosen = os.environ.get("ENGRAM_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    return _platform_cache() / "engram-transformers"


def _platform_cache() -> Path:
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def sha256_of(path: Path) -> str:
    """The file's sha256 as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def made_once(target: Path, make: Callable[[Path], None]) -> Path:
    """`target`, filled by ``make(folder)`` unless an intact copy is there already.

    Several processes may ask at once: one makes, the others wait for it. What is made appears
    under its name complete or not at all. Raises `StoreError` where the folder cannot be written.
    """
    if intact(target):
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{target}.lock"):
            if not intact(target):
                _replace(target, make)
    except OSError as error:
        raise StoreError(
            f"cannot write {target} ({error.strerror or error}). "
            "Free some space, or point ENGRAM_CACHE to a folder that can be written."
        ) from error
    return target


def intact(folder: Path, *, thorough: bool = False) -> bool:
    """Whether every file that the manifest names is there as it was written.

    `thorough` hashes every file, not only those whose modification time has changed.
    """
    manifest = _read_manifest(folder)
    if manifest is None:
        return False
    changed = [
        name for name, entry in manifest.items() if thorough or not _same_time(folder / name, entry)
    ]
    if not all(_same_content(folder / name, manifest[name]) for name in changed):
        return False
    if changed and not thorough:
        _write_manifest(folder, _entries(folder, list(manifest)))
    return all((folder / name).stat().st_size == entry["size"] for name, entry in manifest.items())


def _replace(target: Path, make: Callable[[Path], None]) -> None:
    # We hold the lock, so whatever lies about under these names is from a process that died.
    for leftover in target.parent.glob(f"{target.name}.part-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{target.name}.part-", dir=target.parent))
    try:
        make(folder)
        _write_manifest(folder, _entries(folder, sorted(p.name for p in folder.iterdir())))
        _flush(folder)
        shutil.rmtree(target, ignore_errors=True)
        folder.rename(target)
        _flush(target.parent)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _entries(folder: Path, names: list[str]) -> dict[str, Any]:
    return {
        name: {
            "size": (folder / name).stat().st_size,
            "mtime_ns": (folder / name).stat().st_mtime_ns,
            "sha256": sha256_of(folder / name),
        }
        for name in names
    }


def _read_manifest(folder: Path) -> dict[str, Any] | None:
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if manifest["format"] == FORMAT:
            files: dict[str, Any] = manifest["files"]
            return files
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return None


def _write_manifest(folder: Path, files: dict[str, Any]) -> None:
    text = json.dumps({"format": FORMAT, "files": files}, indent=1)
    part = folder / f"{MANIFEST}.{os.getpid()}"
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(folder / MANIFEST)
    except OSError:
        # A cache on a read-only disk is as good; it is only hashed again the next time.
        if not (folder / MANIFEST).exists():
            raise


def _same_time(path: Path, entry: dict[str, Any]) -> bool:
    return path.exists() and path.stat().st_mtime_ns == entry["mtime_ns"]


def _same_content(path: Path, entry: dict[str, Any]) -> bool:
    return (
        path.exists()
        and path.stat().st_size == entry["size"]
        and sha256_of(path) == entry["sha256"]
    )


def _flush(folder: Path) -> None:
    """Push the folder's entries and files to the disk, so that a power cut cannot empty them."""
    if sys.platform == "win32":
        return
    for path in [*(p for p in folder.iterdir() if p.is_file()), folder]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
