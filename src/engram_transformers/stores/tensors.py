"""Small tensors as bytes: the safetensors layout, with the header kept apart from the data.

Facts written together nearly always have the same names, dtypes and shapes, so that one header
serves thousands of them. Eight length bytes, the header and the data make a safetensors file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import prod
from typing import Any

import numpy as np
import torch

from engram_transformers.errors import BadInput
from engram_transformers.stores.records import Packed

DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "U16": torch.uint16,
    "I16": torch.int16,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "U32": torch.uint32,
    "I32": torch.int32,
    "F32": torch.float32,
    "U64": torch.uint64,
    "I64": torch.int64,
    "F64": torch.float64,
}
NOT_IN_NUMPY = {torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2}
CODES = {dtype: code for code, dtype in DTYPES.items()}


@dataclass(frozen=True)
class Slot:
    """Where one tensor stands in the data of a delta; `start` and `stop` in bytes."""

    name: str
    code: str
    shape: tuple[int, ...]
    start: int
    stop: int

    @cached_property
    def count(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @cached_property
    def column(self) -> str:
        """Where a snapshot keeps it; the colon keeps this apart from the snapshot's own names."""
        return f"{self.name}:{self.code}"


@dataclass(frozen=True)
class Layout:
    """Names, dtypes and shapes of a delta's tensors, in the order of their bytes."""

    slots: tuple[Slot, ...]
    header: str

    @property
    def size(self) -> int:
        """Bytes of data that this layout describes."""
        return self.slots[-1].stop if self.slots else 0


def pack(delta: Mapping[str, torch.Tensor]) -> Packed:
    """The bytes of a delta; `BadInput` for what safetensors cannot hold."""
    header, parts = in_parts(delta)
    return Packed(header, b"".join(parts))


def in_parts(delta: Mapping[str, torch.Tensor]) -> tuple[str, list[memoryview]]:
    """As `pack`, but the data of each tensor where it is, not copied."""
    signature = tuple(
        (name, _code(name, value), tuple(value.shape)) for name, value in delta.items()
    )
    layout = plan(signature)
    return layout.header, [_raw(delta[slot.name]) for slot in layout.slots]


def _code(name: str, value: torch.Tensor) -> str:
    if not isinstance(value, torch.Tensor) or value.layout != torch.strided or value.is_meta:
        raise BadInput(f"{name!r} of a delta is no dense tensor: {type(value).__name__}")
    if value.dtype not in CODES:
        raise BadInput(f"{name!r} of a delta is {value.dtype}, which safetensors cannot hold")
    return CODES[value.dtype]


def _raw(value: torch.Tensor) -> memoryview:
    flat = value.detach().reshape(-1)
    if value.dtype in NOT_IN_NUMPY:
        flat = flat.view(torch.uint8)
    return flat.numpy(force=True).view(np.uint8).data


@lru_cache(maxsize=4096)
def plan(signature: tuple[tuple[str, str, tuple[int, ...]], ...]) -> Layout:
    """Lay tensors (name, dtype code, shape) out: widest first, so that each is aligned."""
    slots, at = [], 0
    for name, code, shape in sorted(
        signature, key=lambda item: (-DTYPES[item[1]].itemsize, item[0])
    ):
        stop = at + prod(shape) * DTYPES[code].itemsize
        slots.append(Slot(name, code, shape, at, stop))
        at = stop
    if any(not isinstance(slot.name, str) or slot.name == "__metadata__" for slot in slots):
        raise BadInput("the tensors of a delta need names other than '__metadata__'")
    return Layout(tuple(slots), json.dumps({s.name: _described(s) for s in slots}))


def _described(slot: Slot) -> dict[str, Any]:
    return {
        "dtype": slot.code,
        "shape": list(slot.shape),
        "data_offsets": [slot.start, slot.stop],
    }


@lru_cache(maxsize=4096)
def parse(header: str) -> Layout:
    """The layout that a stored header describes; `ValueError` if no such layout can be."""
    try:
        described = json.loads(header)
        layout = plan(tuple((n, d["dtype"], tuple(d["shape"])) for n, d in described.items()))
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise ValueError("the header of a delta cannot be read") from error
    if any(described[s.name] != _described(s) or min(s.shape, default=0) < 0 for s in layout.slots):
        raise ValueError("the header of a delta contradicts itself")
    return layout


def unpack(packed: Packed) -> dict[str, torch.Tensor]:
    """The delta that `pack` was given, bit for bit; `ValueError` if the bytes cannot be one."""
    return in_place(packed.header, memoryview(bytearray(packed.data)))


def in_place(header: str, data: memoryview) -> dict[str, torch.Tensor]:
    """As `unpack`, but the tensors are these bytes, which must be writable, and no copies."""
    layout = parse(header)
    if layout.size != len(data):
        raise ValueError(f"a delta has {len(data)} bytes in place of {layout.size}")
    return {slot.name: _tensor(data, slot) for slot in layout.slots}


def _tensor(buffer: memoryview, slot: Slot) -> torch.Tensor:
    dtype, count = DTYPES[slot.code], slot.count
    if not count:
        return torch.empty(slot.shape, dtype=dtype)
    flat = torch.frombuffer(buffer, dtype=dtype, count=count, offset=slot.start)
    return flat if len(slot.shape) == 1 else flat.reshape(slot.shape)
