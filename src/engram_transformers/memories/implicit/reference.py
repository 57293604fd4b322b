"""The slow twin of a layer: one text, token by token, slot by slot. Imported by tests only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from engram_transformers.memories.implicit.layer import EPS, SEED_RATE, ImplicitLayer


@dataclass
class Slot:
    """One slot that was written."""

    key: Tensor
    value: Tensor
    strength: float


@torch.no_grad()
def read_one_by_one(layer: ImplicitLayer, x: Tensor) -> Tensor:
    """(time, hidden): the layer's output for the states of one text that begins with nothing."""
    chunk, original = layer.config.chunk, layer.config.form == "original"
    h = [_unit(state) for state in x]
    slots: list[Slot] = []
    if original:
        slots = [Slot(row, row[:0], 0.0) for row in layer.start]
    out = []
    for t, state in enumerate(x):
        out.append(state + (_seed_read if original else _read)(layer, h, t, slots))
        if (t + 1) % chunk == 0:
            write = {"slots": _put, "linformer": _project, "original": _drift}[layer.config.form]
            slots = write(layer, h, range(t + 1 - chunk, t + 1), slots)
    return torch.stack(out)


def _read(layer: ImplicitLayer, h: Sequence[Tensor], t: int, slots: list[Slot]) -> Tensor:
    if not slots:
        return torch.zeros_like(h[t])
    query = _unit(layer.query @ _mixed(layer, h, t))
    scale = math.sqrt(layer.config.width) * layer.config.temperature
    logits = [float(query @ slot.key) / scale + math.log(slot.strength) for slot in slots]
    weights = torch.softmax(torch.tensor([*logits, float(layer.null)]), 0)
    read = sum(float(weight) * slot.value for weight, slot in zip(weights, slots, strict=False))
    return layer.size * layer.gain * (layer.out @ read)


def _put(layer: ImplicitLayer, h: Sequence[Tensor], at: range, slots: list[Slot]) -> list[Slot]:
    config = layer.config
    gates = {t: _gate(layer, h[t]) for t in at}
    chosen = sorted(at, key=lambda t: -gates[t])[: config.writes]
    new = [Slot(_key(layer, h, t), layer.value @ h[t], config.rate * gates[t]) for t in chosen]
    old = [Slot(one.key, one.value, one.strength * config.decay) for one in slots]
    return sorted([*new, *old], key=lambda slot: -slot.strength)[: config.slots]


def _project(layer: ImplicitLayer, h: Sequence[Tensor], at: range, slots: list[Slot]) -> list[Slot]:
    config = layer.config
    keys = torch.stack([_gate(layer, h[t]) * _key(layer, h, t) for t in at])
    values = torch.stack([_gate(layer, h[t]) * (layer.value @ h[t]) for t in at])
    old = [Slot(one.key, one.value, one.strength * config.decay) for one in slots]
    new = [Slot(row @ keys, row @ values, config.rate) for row in layer.project]
    return [*old, *new][-config.slots :]


def _seed_read(layer: ImplicitLayer, h: Sequence[Tensor], t: int, slots: list[Slot]) -> Tensor:
    if not slots[0].strength:
        return torch.zeros_like(h[t])
    products = torch.stack([_unit(h[t]) @ _unit(slot.key) for slot in slots])
    return layer.size * (layer.out @ (products / math.sqrt(layer.hidden)))


def _drift(layer: ImplicitLayer, h: Sequence[Tensor], at: range, slots: list[Slot]) -> list[Slot]:
    config, units = layer.config, {t: _length_one(h[t]) for t in at}
    sums = [torch.zeros_like(slot.key) for slot in slots]
    for t in at:
        products = torch.stack([units[t] @ _length_one(slot.key) for slot in slots])
        scaled = products / math.sqrt(layer.hidden) / config.temperature + 1e-8
        for index, weight in enumerate(torch.softmax(scaled, 0)):
            sums[index] = sums[index] + weight * _gate(layer, h[t]) * units[t]
    found = []
    for slot, total in zip(slots, sums, strict=True):
        update = _length_one(total)
        rate = SEED_RATE * config.rate / (1 + update.norm())
        found.append(Slot(_length_one(slot.key + rate * update), slot.value, 1.0))
    return found


def _key(layer: ImplicitLayer, h: Sequence[Tensor], t: int) -> Tensor:
    return _unit(layer.key_weight @ _mixed(layer, h, t - 1))


def _mixed(layer: ImplicitLayer, h: Sequence[Tensor], t: int) -> Tensor:
    """The convolution at token `t`, also just before the first one."""
    taps = (tap * h[t - back] for back, tap in enumerate(layer.taps) if t - back >= 0)
    return sum(taps, torch.zeros_like(h[0]))


def _gate(layer: ImplicitLayer, state: Tensor) -> float:
    if layer.config.update == "always":
        return 1.0
    return float(torch.sigmoid(state @ layer.important + layer.importance))


def _unit(x: Tensor) -> Tensor:
    return x / (x.square().mean() + EPS).sqrt()


def _length_one(x: Tensor) -> Tensor:
    length: Tensor = x.norm()
    return x / length.clamp_min(1e-12)
