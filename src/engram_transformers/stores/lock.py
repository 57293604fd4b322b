"""One writer at a time: an advisory lock that the system drops when its holder dies."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from engram_transformers.errors import StoreError, StoreLocked

NAME = "write.lock"


def acquire(directory: Path) -> BaseFileLock:
    """Take the writer's lock of a directory, without waiting; `StoreLocked` names the holder."""
    path = directory / NAME
    # Read before trying: some releases of filelock empty the file while they try.
    holder = _holder(path)
    lock = FileLock(path, thread_local=False)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise StoreLocked(f"{directory} is being written by {holder}; try again later") from error
    except OSError as error:
        raise StoreError(f"{directory} is read-only: {error.strerror}") from error
    _sign(path)
    return lock


def _holder(path: Path) -> str:
    with suppress(OSError, ValueError):
        return f"process {int(path.read_bytes()[:20])}"
    return "another process"


def _sign(path: Path) -> None:
    # Only for the message above: a holder without a name still holds the lock.
    with suppress(OSError):
        path.write_text(f"{os.getpid()}\n")
