"""An edit by itself: written into a host's weights, taken out again exactly, kept in a file.

A file `NAME.safetensors` holds two tensors for each block, `NAME.json` says for which host they
are. Either stands for both, and so does `NAME`, whatever dots it has.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from engram_transformers.errors import BadInput, HostMismatch, StoreDamaged, StoreError
from engram_transformers.models.adapter import Adapter
from engram_transformers.types import HostIdentity

FORMAT = 1


@dataclass(frozen=True)
class Factors:
    """A change of one projection's weight: ``values' reads``."""

    reads: Tensor
    "(n, inputs) in float32: how much of each value an input calls for."
    values: Tensor
    "(n, outputs) in float32: what is then written."

    def product(self, strength: float = 1.0) -> Tensor:
        """(outputs, inputs) in float32: what is added to the weight."""
        return (self.values.double().T @ self.reads.double() * strength).float()


@dataclass(frozen=True)
class Edit:
    """Changes of some blocks' projections, and how strongly they are made."""

    blocks: Mapping[int, Factors]
    strength: float = 1.0

    @contextmanager
    def written(self, adapter: Adapter) -> Iterator[None]:
        """While this lasts the host's weights are changed; then it has its own tensors again.

        Not the change taken away: that would round. The very tensors are put back.

        Raises:
            BadInput: the host's weights are packed, so that nothing can be added to them.
        """
        modules = {n: cast(Any, adapter.place("mlp_out", n).module) for n in self.blocks}
        own = {n: module.weight.data for n, module in modules.items()}
        try:
            for n, module in modules.items():
                module.weight.data = self._added(adapter, n, own[n])
            yield
        finally:
            for n, module in modules.items():
                module.weight.data = own[n]

    def _added(self, adapter: Adapter, block: int, weight: Tensor) -> Tensor:
        place, change = adapter.place("mlp_out", block), self.blocks[block].product(self.strength)
        inputs, outputs = adapter.linear_shape(place)
        if not weight.is_floating_point() or weight.numel() != inputs * outputs:
            raise BadInput(
                f"the weights of {adapter.model_type} are packed (quantised), so that an edit "
                "cannot be written into them; attach a memory of kind rank_one, which acts "
                "beside them"
            )
        turned = change.T if adapter.is_transposed(place) else change
        return (weight.float() + turned.to(weight.device)).to(weight)


def save_edit(
    edit: Edit, path: Path, *, host: HostIdentity, about: Mapping[str, Any]
) -> tuple[Path, Path]:
    """Write an edit to `path` with `.safetensors` and with `.json` behind it; both paths."""
    tensors: dict[str, Tensor] = {}
    for n, one in edit.blocks.items():
        tensors |= {f"{n}.reads": one.reads.contiguous(), f"{n}.values": one.values.contiguous()}
    files = edit_files(path)
    described = {
        "format": FORMAT,
        "host": {"id": host.id, "fingerprint": host.fingerprint},
        "blocks": sorted(edit.blocks),
        "strength": edit.strength,
        **about,
    }
    try:
        save_file(tensors, files[0])
        files[1].write_text(
            json.dumps(described, ensure_ascii=False, indent=2) + "\n", encoding="utf-8"
        )
    except (OSError, SafetensorError) as error:
        raise StoreError(f"the edit cannot be written to {path}: {error}") from error
    return files


def load_edit(path: Path, *, host: HostIdentity) -> Edit:
    """The edit that `save_edit` wrote.

    Args:
        path: as it was given there, or either of the two files.

    Raises:
        HostMismatch: it was found for another host.
        StoreDamaged: the files are not those of an edit.
    """
    tensor_file, description = edit_files(path)
    try:
        described = json.loads(description.read_text(encoding="utf-8"))
        tensors = load_file(tensor_file)
        found, blocks = described["host"], [int(n) for n in described["blocks"]]
        factors = {n: Factors(tensors[f"{n}.reads"], tensors[f"{n}.values"]) for n in blocks}
        strength = float(described["strength"])
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise StoreDamaged(f"{path} is no edit that was saved here: {error}") from error
    if found["fingerprint"] != host.fingerprint:
        raise HostMismatch(
            f"{path} is an edit of {found['id']} ({found['fingerprint']}), not of {host.id} "
            f"({host.fingerprint}); make it anew for this host"
        )
    return Edit(factors, strength)


def edit_files(path: Path) -> tuple[Path, Path]:
    """Where an edit of this name is: its tensors, and what they are."""
    name = path.name.removesuffix(".safetensors").removesuffix(".json")
    return path.with_name(f"{name}.safetensors"), path.with_name(f"{name}.json")


def same_weights(adapter: Adapter, before: Mapping[int, Tensor]) -> bool:
    """Whether the projections are, number by number, what they were."""
    return all(torch.equal(weight, before[n]) for n, weight in weights_of(adapter, before).items())


def weights_of(adapter: Adapter, blocks: Iterable[int]) -> dict[int, Tensor]:
    """By block, the weight of its MLP's output projection as it is now, copied."""
    modules = {n: cast(Any, adapter.place("mlp_out", n).module) for n in blocks}
    return {n: module.weight.detach().clone() for n, module in modules.items()}
