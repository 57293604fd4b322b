"""The tensors of a trained memory: one safetensors file for each write, of which the newest counts.

The file is on disk before the ledger names it. A writer that dies in between leaves a file that no
write knows; the one before is still there, and the next write sweeps the stray away.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from engram_transformers.errors import StoreDamaged
from engram_transformers.stores.files import replace_file

if TYPE_CHECKING:  # what only lists facts must not pay for torch
    from torch import Tensor

_OURS = re.compile(r"\.?tensors-\d+\.safetensors(\.new)?")


def path_of(directory: Path, write: int) -> Path:
    """Where the tensors of a write are."""
    return directory / f"tensors-{write}.safetensors"


def write_tensors(directory: Path, write: int, tensors: Mapping[str, Tensor]) -> str:
    """Put tensors on disk as those of a write, atomically; the checksum of what they are."""
    from engram_transformers.stores.tensors import in_parts

    described, parts = in_parts(tensors)
    header = {"__metadata__": {"write": str(write)}, **json.loads(described)}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    replace_file(path_of(directory, write), [len(text).to_bytes(8, "little"), text, *parts])
    return _checksum(text, *parts)


def read_tensors(directory: Path, write: int, checksum: str) -> dict[str, Tensor]:
    """The tensors of a write.

    Raises:
        FileNotFoundError: they are not there, or not any more.
        StoreDamaged: they are not those that the write put there.
    """
    from engram_transformers.stores.tensors import in_place

    path = path_of(directory, write)
    raw = _read(path)
    size = int.from_bytes(raw[:8], "little")
    text, data = bytes(raw[8 : 8 + size]), raw[8 + size :]
    if _checksum(text, data) != checksum:
        raise StoreDamaged(f"{path} is damaged: it is not what write {write} put there")
    try:
        header = json.loads(text)
        header.pop("__metadata__")
        return in_place(json.dumps(header), data)
    except (ValueError, LookupError, AttributeError) as error:
        raise StoreDamaged(f"{path} is damaged: {error}") from error


def sweep(directory: Path, *, keep: int | None) -> None:
    """Remove the tensors of all writes but one, and what a killed writer left."""
    kept = None if keep is None else path_of(directory, keep).name
    for each in directory.iterdir():
        if _OURS.fullmatch(each.name) and each.name != kept:
            with suppress(OSError):  # the next sweep tries again
                each.unlink()


def _read(path: Path) -> memoryview:
    # Writable, and read once: the tensors stay where they are read to.
    raw = bytearray(path.stat().st_size)
    with path.open("rb") as file:
        return memoryview(raw)[: file.readinto(raw)]


def _checksum(*parts: bytes | memoryview) -> str:
    found = 0
    for part in parts:
        found = zlib.crc32(part, found)
    return f"{found:08x}"
