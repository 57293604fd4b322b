"""A mask database on disk: the masks in a safetensors file, everything else in JSON.

`masks.json` names the tensor file and its checksum, and is replaced after that file is there. A
writer that dies in between leaves the old database and a stray file, which the next one removes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from engram_transformers.errors import HostMismatch, StoreDamaged, StoreError, StoreLocked
from engram_transformers.memories.memoir.bits import Words, ones, width
from engram_transformers.memories.memoir.files import (
    checksum,
    read_json,
    read_tensors,
    write_json,
    write_tensors,
)
from engram_transformers.stores.lock import acquire

WHAT = "edit masks"
FORMAT = 1


@dataclass(frozen=True)
class Row:
    """One edit as it is stored."""

    id: str
    words: Words
    metadata: dict[str, Any]
    merged: tuple[str, ...]


class Shelf:
    """The directory of one database.

    Args:
        host: what the masks were made with; None takes any.
    """

    def __init__(self, path: Path, hidden_size: int, host: str | None) -> None:
        self.path, self.hidden_size, self.host = path, hidden_size, host
        self.index = path / "masks.json"
        self._seen: str | None = None
        "Checksum of the index that was read or written last."

    def exists(self) -> bool:
        """Whether there is a stored database, or what is left of one."""
        return self.index.exists() or any(self.path.glob("masks-*.safetensors"))

    def read(self) -> list[Row]:
        """All edits, oldest first."""
        if not self.index.is_file():
            raise StoreDamaged(f"{self.path} holds masks, but {self.index.name} is missing")
        content = read_json(self.index, what=WHAT)
        self._check_host(content)
        try:
            edits, name = list(content["edits"]), str(content["tensors"])
            words = self._words(name, content["checksum"], rows=len(edits))
            rows = [_row(one, mask) for one, mask in zip(edits, words, strict=True)]
        except (KeyError, TypeError, AttributeError) as error:
            raise StoreDamaged(f"{self.index} lacks {error} or has it wrong") from error
        if len({row.id for row in rows}) != len(rows):
            raise StoreDamaged(f"{self.index} names an edit twice")
        if content.get("edits_checksum") != _digest(edits):
            raise StoreDamaged(f"{self.index} is damaged: its edits are not those that were stored")
        self._seen = _digest(content)
        self.host = self.host or content["host"]
        return rows

    def write(self, rows: Sequence[Row]) -> None:
        """Replace what is stored; `StoreLocked` where somebody else has replaced it since."""
        masks = (
            np.stack([r.words for r in rows]) if rows else np.zeros((0, width(self.hidden_size)))
        )
        tensors = {"masks": torch.from_numpy(masks.astype(np.uint64).view(np.uint8).copy())}
        made = checksum(tensors)
        with self._alone():
            name = f"masks-{made}.safetensors"
            if not (self.path / name).exists():
                write_tensors(self.path / name, tensors, {"what": WHAT})
            content = self._content(rows, name=name, made=made)
            write_json(self.index, content)
            self._seen = _digest(content)
            self._sweep(keep=name)

    def _content(self, rows: Sequence[Row], *, name: str, made: str) -> dict[str, Any]:
        edits = [
            {"id": row.id, "metadata": row.metadata, "merged": list(row.merged)} for row in rows
        ]
        return {
            "what": WHAT,
            "format": FORMAT,
            "hidden_size": self.hidden_size,
            "host": self.host,
            "tensors": name,
            "checksum": made,
            "edits_checksum": _digest(edits),
            "edits": edits,
        }

    def _check_host(self, content: dict[str, Any]) -> None:
        found = content.get("hidden_size")
        if content.get("format") != FORMAT:
            raise StoreDamaged(f"{self.index} has format {content.get('format')!r}, not {FORMAT}")
        if found != self.hidden_size:
            raise HostMismatch(
                f"{self.path} holds masks of {found} features, not {self.hidden_size}; open it "
                "for the host that it was written for"
            )
        if self.host is not None and content.get("host") not in (None, self.host):
            raise HostMismatch(
                f"{self.path} holds masks made with {content['host']}, not {self.host}: they "
                "cannot be compared. Open it with the host and the permutation it was written for."
            )

    def _words(self, name: str, made: str, *, rows: int) -> Words:
        path = self.path / Path(name).name
        try:
            stored = read_tensors(path, what=WHAT)
        except StoreError as error:
            raise StoreDamaged(f"{self.index} names masks that cannot be read: {error}") from error
        if stored.facts.get("checksum") != made:
            raise StoreDamaged(f"{path} is not the file that {self.index.name} names")
        masks = stored.tensors["masks"]
        if masks.shape != (rows, width(self.hidden_size) * 8) or masks.dtype != torch.uint8:
            raise StoreDamaged(
                f"{path} has {len(masks)} rows for {rows} edits in {self.index.name}"
            )
        words = masks.numpy().view(np.uint64)
        if rows and not bool((ones(words) > 0).all()):
            raise StoreDamaged(f"{path} has a mask without any active feature")
        return words

    def _sweep(self, *, keep: str) -> None:
        for each in self.path.glob("masks-*.safetensors"):
            if each.name != keep:
                with suppress(OSError):  # the next writer tries again
                    each.unlink()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"{self.path} cannot be created: {error.strerror}") from error
        lock = acquire(self.path)
        try:
            there = _digest(read_json(self.index, what=WHAT)) if self.index.exists() else None
            if there != self._seen:
                raise StoreLocked(
                    f"{self.path} was changed by somebody else since it was read; open it again"
                )
            yield
        finally:
            lock.release()


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _row(stored: dict[str, Any], words: Words) -> Row:
    return Row(str(stored["id"]), words, dict(stored["metadata"]), tuple(stored["merged"]))
