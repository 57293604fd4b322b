"""The database of edit masks: which edit was made at an activation like this one?"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, overload

import numpy as np
import torch
from torch import Tensor

from engram_transformers.errors import BadInput, CannotForget, MemoryFull, UnknownFact
from engram_transformers.memories.memoir.bits import (
    METRICS,
    Metric,
    Words,
    alike,
    as_rows,
    ones,
    pack,
    unpack,
    voted,
    width,
)
from engram_transformers.memories.memoir.files import as_json
from engram_transformers.memories.memoir.mask_files import Row, Shelf
from engram_transformers.memories.memoir.search import BACKENDS, filled, open_search
from engram_transformers.types import OnConflict


class Match(NamedTuple):
    """An edit that was found; a tuple, since the seed takes it apart as one."""

    edit_id: str
    mask: Tensor
    "(hidden,): the stored mask, of ones and zeros."
    similarity: float


@dataclass(frozen=True)
class Added:
    """What adding a mask did; false where the mask that was there before was kept."""

    edit_id: str
    stored: bool
    replaced: tuple[str, ...] = ()
    "Edits that gave way: of the same id, or at the same mask."

    def __bool__(self) -> bool:
        return self.stored


@dataclass(frozen=True)
class Merged:
    """Edits that became one."""

    kept: str
    gone: tuple[str, ...]


@dataclass
class _Entry:
    key: int
    words: Words
    metadata: dict[str, Any] = field(default_factory=dict)
    merged: tuple[str, ...] = ()
    "Ids of edits that were merged into this one."


class EditMaskDatabase:
    """Masks of edits, bit-packed, searched by likeness.

    Two edits at one mask could never be told apart, so they are a conflict, as two of one id are.

    Args:
        similarity_metric: `cosine`, `l2`, `inner_product` or `overlap`; see `bits.alike`.
        storage_dir: where the database is stored; what is there already is read.
        max_masks: how many it holds.
        backend: `plain` or `faiss`; the answers are the same.
        threshold: how much alike masks have to be, where a search does not say.
        host: what the masks were made with: the host's fingerprint, the fingerprinter's checksum.
            A stored database that names another one is refused.
        autosave: store after every change; otherwise call `save_to_disk`.

    Raises:
        HostMismatch: the stored database is for another host, or another number of features.
        StoreDamaged: it is truncated, or rows are missing.
    """

    def __init__(
        self,
        hidden_size: int,
        similarity_metric: Metric = "cosine",
        storage_dir: str | os.PathLike[str] | None = None,
        max_masks: int = 100_000,
        *,
        backend: Literal["plain", "faiss"] = "plain",
        threshold: float = 0.8,
        host: str | None = None,
        autosave: bool = True,
    ) -> None:
        for name, size in (("hidden_size", hidden_size), ("max_masks", max_masks)):
            if size < 1:
                raise BadInput(f"{name} is {size}; it has to be at least 1")
        for name, asked, able in (
            ("similarity_metric", similarity_metric, METRICS),
            ("backend", backend, tuple(BACKENDS)),
        ):
            if asked not in able:
                raise BadInput(f"{name} is {asked!r}; use one of {', '.join(able)}")
        self.hidden_size, self.similarity_metric = hidden_size, similarity_metric
        self.max_masks, self.backend, self.autosave = max_masks, backend, autosave
        self.threshold = threshold
        self._entries: dict[str, _Entry] = {}
        self._by_words: dict[bytes, str] = {}
        self._by_key: dict[int, str] = {}
        self._next = 0
        self._search = self._empty_search()
        self._shelf = None if storage_dir is None else Shelf(Path(storage_dir), hidden_size, host)
        if self._shelf is not None and self._shelf.exists():
            self._restore(self._shelf.read())

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, edit_id: str) -> bool:
        return edit_id in self._entries

    @property
    def ids(self) -> tuple[str, ...]:
        """All edits, oldest first."""
        return tuple(self._entries)

    # -- writing ---------------------------------------------------------------------------

    def add(
        self,
        edit_id: str,
        mask: Any,
        metadata: Mapping[str, Any] | None = None,
        *,
        on_conflict: OnConflict = "replace",
    ) -> Added:
        """Add the mask of an edit.

        Args:
            mask: (hidden,) of ones and zeros, at least one of them a one.
            metadata: anything that JSON can hold.
            on_conflict: what to do about an edit of this id, or at this mask.

        Raises:
            BadInput: such a mask or such metadata cannot be stored, or a conflict was to be
                rejected.
            MemoryFull: there are `max_masks` already.
        """
        words, note = self._checked(edit_id, mask, metadata)
        rivals = self._rivals(edit_id, words)
        if rivals and on_conflict == "keep":
            return Added(edit_id, stored=False)
        if rivals and on_conflict == "reject":
            raise BadInput(f"{edit_id!r} has the id or the mask of {rivals[0]!r}, which is stored")
        if on_conflict not in ("replace", "keep", "reject"):
            raise BadInput(f"on_conflict is {on_conflict!r}; use 'replace', 'keep' or 'reject'")
        if len(self) - len(rivals) >= self.max_masks:
            raise MemoryFull(
                f"the database holds {len(self)} masks and max_masks is {self.max_masks}. Remove "
                "edits, consolidate, or open it with a larger max_masks."
            )
        with self._change():
            for rival in rivals:
                self._drop(rival)
            self._put(edit_id, words, metadata=note, merged=())
        return Added(edit_id, stored=True, replaced=rivals)

    def remove(self, edit_id: str) -> bool:
        """Take an edit out, exactly; whether it was there.

        `CannotForget` for one that was merged into another, which has to be removed as a whole.
        """
        if edit_id not in self._entries:
            owner = self.resolve(edit_id)
            if owner is not None:
                raise CannotForget(
                    f"{edit_id!r} was merged into {owner!r} and cannot be taken out of it; remove "
                    f"{owner!r}"
                )
            return False
        with self._change():
            self._drop(edit_id)
        return True

    def consolidate(self, threshold: float = 0.95) -> tuple[Merged, ...]:
        """Merge edits whose masks are at least so much alike, for good; what became what.

        Going from the oldest on, an edit takes in all later ones that are like it. It keeps its
        id; its mask becomes the features that most of their masks have.
        """
        if not 0 < threshold <= 1:
            raise BadInput(f"threshold is {threshold}; it has to be above 0 and at most 1")
        merged = []
        with self._change():
            for leader in self.ids:
                group = self._like(leader, threshold) if leader in self._entries else []
                if group:
                    merged.append(self._merge(leader, group))
            if merged:
                self._rebuild()
        return tuple(merged)

    # -- reading ---------------------------------------------------------------------------

    @overload
    def find_closest(
        self, mask: Any, threshold: float | None = ..., top_k: Literal[1] = ...
    ) -> Match | None: ...
    @overload
    def find_closest(
        self, mask: Any, threshold: float | None, top_k: int
    ) -> Match | list[Match] | None: ...

    def find_closest(
        self, mask: Any, threshold: float | None = None, top_k: int = 1
    ) -> Match | list[Match] | None:
        """The edit whose mask is most like this one (hidden,), or None where none is alike enough.

        With `top_k` above 1, a list of so many, best first. Equally like ones come oldest first.
        """
        found = self.search(mask, threshold=threshold, top_k=top_k)[0]
        if top_k > 1:
            return found
        return found[0] if found else None

    def search(
        self, masks: Any, *, threshold: float | None = None, top_k: int = 1
    ) -> list[list[Match]]:
        """For each mask of (n, hidden), or for one, the edits like it, best first."""
        threshold = self.threshold if threshold is None else threshold
        if top_k < 1:
            raise BadInput(f"top_k is {top_k}; it has to be at least 1")
        return [
            [
                Match(self._by_key[key], self.mask_of(self._by_key[key]), score)
                for key, score in self._search.nearest(row, threshold=threshold, top_k=top_k)
            ]
            for row in pack(as_rows(masks, self.hidden_size))
        ]

    def mask_of(self, edit_id: str) -> Tensor:
        """(hidden,): the stored mask, of ones and zeros in float32."""
        return unpack(self._get(edit_id).words[None], self.hidden_size)[0]

    def metadata_of(self, edit_id: str) -> dict[str, Any]:
        """What was stored beside a mask."""
        return dict(self._get(edit_id).metadata)

    def resolve(self, edit_id: str) -> str | None:
        """The edit that answers to an id: itself, or the one that it was merged into."""
        if edit_id in self._entries:
            return edit_id
        owners = (id for id, entry in self._entries.items() if edit_id in entry.merged)
        return next(owners, None)

    def get_statistics(self) -> dict[str, Any]:
        """Counts and sizes."""
        sizes = ones(self._words()) if self._entries else np.zeros(1, np.int64)
        return {
            "masks": len(self),
            "merged": sum(len(entry.merged) for entry in self._entries.values()),
            "max_masks": self.max_masks,
            "hidden_size": self.hidden_size,
            "similarity_metric": self.similarity_metric,
            "backend": self.backend,
            "mean_active_features": float(sizes.mean()),
            "bytes_per_mask": width(self.hidden_size) * 8,
            "bytes": len(self) * width(self.hidden_size) * 8,
        }

    def save_to_disk(self) -> Path:
        """Store the database in its directory; where that is.

        `StoreLocked` where somebody else stored something there since it was read.
        """
        if self._shelf is None:
            raise BadInput("this database has no storage_dir; open it with one")
        rows = [
            Row(id, entry.words, metadata=entry.metadata, merged=entry.merged)
            for id, entry in self._entries.items()
        ]
        self._shelf.write(rows)
        return self._shelf.path

    # -- inside ----------------------------------------------------------------------------

    def _checked(
        self, edit_id: str, mask: Any, metadata: Mapping[str, Any] | None
    ) -> tuple[Words, dict[str, Any]]:
        if not isinstance(edit_id, str) or not edit_id:
            raise BadInput(f"an edit's id has to be some text, not {edit_id!r}")
        rows = as_rows(mask, self.hidden_size)
        if len(rows) != 1:
            raise BadInput(f"one mask was expected for {edit_id!r}, not {len(rows)}")
        if not bool(rows.any()):
            raise BadInput(f"the mask of {edit_id!r} has no active feature, so nothing finds it")
        note = as_json(dict(metadata or {}), name=f"the metadata of {edit_id!r}")
        return pack(rows)[0], note

    def _rivals(self, edit_id: str, words: Words) -> tuple[str, ...]:
        at_mask = self._by_words.get(words.tobytes())
        found = (self.resolve(edit_id), at_mask)
        return tuple(dict.fromkeys(id for id in found if id is not None))

    def _put(
        self, id: str, words: Words, *, metadata: dict[str, Any], merged: tuple[str, ...]
    ) -> None:
        key, self._next = self._next, self._next + 1
        self._entries[id] = _Entry(key, words, metadata, merged)
        self._by_words[words.tobytes()] = id
        self._by_key[key] = id
        self._search.add(key, words)

    def _drop(self, id: str) -> None:
        entry = self._entries.pop(id)
        del self._by_key[entry.key]
        # After a merge another edit can have come to the same mask.
        if self._by_words.get(entry.words.tobytes()) == id:
            del self._by_words[entry.words.tobytes()]
        self._search.remove(entry.key)

    def _get(self, id: str) -> _Entry:
        if id not in self._entries:
            raise UnknownFact(f"there is no edit {id!r} among {len(self)}")
        return self._entries[id]

    def _words(self) -> Words:
        return np.stack([entry.words for entry in self._entries.values()])

    def _like(self, leader: str, threshold: float) -> list[str]:
        words = self._entries[leader].words
        found = self._search.nearest(words, threshold=threshold, top_k=len(self))
        newer = (key for key, _ in found if key > self._entries[leader].key)
        return [self._by_key[key] for key in sorted(newer)]

    def _merge(self, leader: str, group: Sequence[str]) -> Merged:
        entry, others = self._entries[leader], [self._entries[id] for id in group]
        masks = unpack(np.stack([e.words for e in (entry, *others)]), self.hidden_size)
        for id in group:
            self._drop(id)
        entry.merged += tuple(
            i for id, e in zip(group, others, strict=True) for i in (id, *e.merged)
        )
        entry.words = pack(voted(masks.bool())[None])[0]
        return Merged(leader, tuple(group))

    def _rebuild(self) -> None:
        """Make everything that is looked up by anew from the entries."""
        entries = self._entries.items()
        rows = ((entry.key, entry.words) for _, entry in entries)
        self._search = filled(self._empty_search(), rows)
        self._by_words = {entry.words.tobytes(): id for id, entry in entries}
        self._by_key = {entry.key: id for id, entry in entries}

    def _empty_search(self) -> Any:
        words = width(self.hidden_size)
        return open_search(self.backend, words=words, metric=self.similarity_metric)

    def _restore(self, rows: Iterable[Row]) -> None:
        for row in rows:
            self._put(row.id, row.words, metadata=row.metadata, merged=row.merged)

    @contextmanager
    def _change(self) -> Iterator[None]:
        """Change the database and store it; where that fails, it is what it was before."""
        if self._shelf is None or not self.autosave:
            yield
            return
        before = {id: replace(entry) for id, entry in self._entries.items()}
        try:
            yield
            self.save_to_disk()
        except BaseException:
            self._entries = before
            self._rebuild()
            raise


def likeness(first: Tensor, second: Tensor, metric: Metric = "cosine") -> float:
    """How alike two masks (hidden,) are."""
    rows = pack(as_rows(torch.stack([first, second]), first.shape[-1]))
    sizes = ones(rows)
    shared = ones((rows[0] & rows[1])[None])[0]
    return float(alike(metric, shared, sizes[0], sizes[1]))
