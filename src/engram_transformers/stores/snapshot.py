"""The snapshot: the deltas of all active facts in one safetensors file, for fast opening.

Equally named tensors of all facts are laid end to end, so that the file has a handful of tensors
however many facts there are. It is a copy of what the ledger holds, and any doubt about it is
settled by reading the ledger instead.
"""

from __future__ import annotations

import json
import logging
import zlib
from array import array
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from engram_transformers.stores.files import replace_file
from engram_transformers.stores.peek import VERSION, head_of
from engram_transformers.stores.records import Head, Packed
from engram_transformers.stores.tensors import DTYPES, Layout, Slot, parse, plan, unpack

ROWS, LAYOUTS = "row", "layout"
LOG = logging.getLogger(__name__)

Column = tuple[str, str]
"A tensor of the file: its name and its dtype code."


@dataclass(frozen=True)
class Snapshot:
    """Deltas by row of the ledger, as of one write."""

    head: Head
    deltas: dict[int, dict[str, Tensor]]


def write(path: Path, head: Head, deltas: Mapping[int, Packed]) -> None:
    """Replace the snapshot by one of these rows, atomically; `StoreError` if it cannot be."""
    headers = {p.header: None for p in deltas.values()}
    columns = _columns(deltas.values())
    columns[ROWS, "I64"] = [array("q", deltas).tobytes()]
    columns[LAYOUTS, "I64"] = [_numbers(headers, deltas.values())]
    layout = plan(
        tuple(
            (name, code, (sum(map(len, parts)) // DTYPES[code].itemsize,))
            for (name, code), parts in columns.items()
        )
    )
    parts = [part for slot in layout.slots for part in columns[slot.name, slot.code]]
    replace_file(path, [_start(layout, _metadata(head, headers, parts)), *parts])


def read(path: Path) -> Snapshot | None:
    """The snapshot; None if it is missing or cannot be trusted."""
    try:
        return _decoded(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError) as error:
        LOG.warning("%s is not readable (%s); reading the ledger instead", path, error)
        return None


def _columns(deltas: Iterable[Packed]) -> dict[Column, list[bytes]]:
    columns: defaultdict[Column, list[bytes]] = defaultdict(list)
    for each in deltas:
        for slot in parse(each.header).slots:
            columns[slot.column, slot.code].append(each.data[slot.start : slot.stop])
    return dict(columns)


def _numbers(headers: Collection[str], deltas: Iterable[Packed]) -> bytes:
    number = {header: at for at, header in enumerate(headers)}
    return array("q", [number[each.header] for each in deltas]).tobytes()


def _metadata(head: Head, headers: Collection[str], parts: Iterable[bytes]) -> dict[str, str]:
    metadata = {
        "version": VERSION,
        "write": str(head.number),
        "stamp": head.stamp,
        "layouts": json.dumps(list(headers)),
    }
    return {**metadata, "checksum": _checksum(metadata, parts)}


def _checksum(metadata: Mapping[str, str], parts: Iterable[bytes]) -> str:
    words = [value for name, value in metadata.items() if name != "checksum"]
    checksum = zlib.crc32(json.dumps(words).encode())
    for part in parts:
        checksum = zlib.crc32(part, checksum)
    return f"{checksum:08x}"


def _start(layout: Layout, metadata: Mapping[str, str]) -> bytes:
    header = json.dumps({"__metadata__": metadata, **json.loads(layout.header)}).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header


def _decoded(raw: bytes) -> Snapshot | None:
    size = int.from_bytes(raw[:8], "little")
    described, data = json.loads(raw[8 : 8 + size]), raw[8 + size :]
    metadata = described.pop("__metadata__")
    head = head_of(metadata)
    if head is None:
        return None
    if metadata["checksum"] != _checksum(metadata, [data]):
        raise ValueError("its checksum is wrong")
    columns = unpack(Packed(json.dumps(described), data))
    layouts = [parse(header) for header in json.loads(metadata["layouts"])]
    return Snapshot(head, _deltas(columns, layouts))


def _deltas(columns: dict[str, Tensor], layouts: list[Layout]) -> dict[int, dict[str, Tensor]]:
    rows = columns.pop(ROWS).tolist()
    which = [layouts[number] for number in columns.pop(LAYOUTS).tolist()]
    pieces = _pieces(columns, which)
    return {
        row: {slot.name: next(pieces[slot.column]) for slot in layout.slots}
        for row, layout in zip(rows, which, strict=True)
    }


def _pieces(columns: dict[str, Tensor], layouts: list[Layout]) -> dict[str, Iterator[Tensor]]:
    slots: defaultdict[str, list[Slot]] = defaultdict(list)
    for layout in layouts:
        for slot in layout.slots:
            slots[slot.column].append(slot)
    if slots.keys() != columns.keys():
        raise ValueError("its tensors are not those of its layouts")
    return {
        name: map(_shaped, torch.split(columns[name], [s.count for s in each]), each)
        for name, each in slots.items()
    }


def _shaped(piece: Tensor, slot: Slot) -> Tensor:
    return piece if len(slot.shape) == 1 else piece.reshape(slot.shape)
