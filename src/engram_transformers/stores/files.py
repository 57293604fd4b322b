"""Files that are either the old one or the new one, whatever happens in between."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

from engram_transformers.errors import StoreError


def replace_file(path: Path, parts: Iterable[bytes | memoryview]) -> None:
    """Write `parts` to `path` so that a kill or a power cut leaves the old file or the new one.

    Only the holder of the directory's lock may call this: the temporary name is always the same,
    so that what a killed writer left behind is cleaned up by the next.
    """
    temporary = path.with_name(f".{path.name}.new")
    try:
        _write_new(temporary, parts)
        os.replace(temporary, path)  # noqa: PTH105 - Path.replace is the same call
        sync_directory(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise StoreError(f"{path} could not be written: {error.strerror or error}") from error


def _write_new(path: Path, parts: Iterable[bytes | memoryview]) -> None:
    path.unlink(missing_ok=True)
    # Exclusive creation never follows a link that somebody else put there.
    with path.open("xb") as file:
        for part in parts:
            file.write(part)
        file.flush()
        os.fsync(file.fileno())


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable; a no-op where directories cannot be opened."""
    with contextlib.suppress(PermissionError):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
