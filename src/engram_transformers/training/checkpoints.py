"""The state of an optimiser and its schedule in one safetensors file; nothing is pickled."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from engram_transformers.errors import StoreDamaged
from engram_transformers.stores.files import replace_file

FILE = "training.safetensors"
_RANDOM = "random"


def write_state(folder: Path, optimizer: Any, scheduler: Any) -> None:
    """Write what goes on from here needs besides the memories: all of it, or nothing."""
    tensors: dict[str, Tensor] = {_RANDOM: torch.get_rng_state()}
    parts = []
    for number, part in enumerate(optimizer.state_dict()["parts"]):
        for index, state in part["state"].items():
            tensors |= {f"{number}.{index}.{n}": t.detach().cpu() for n, t in state.items()}
        parts.append(part["param_groups"])
    # What a scheduler computes its rates with is code, and comes from the one that is resumed.
    rates = {n: v for n, v in scheduler.state_dict().items() if n != "lr_lambdas"}
    text = json.dumps({"parts": parts, "scheduler": rates})
    folder.mkdir(parents=True, exist_ok=True)
    replace_file(folder / FILE, [save(tensors, metadata={"state": text})])


def read_state(folder: Path, optimizer: Any, scheduler: Any) -> None:
    """Give an optimiser and a scheduler what `write_state` wrote.

    Raises:
        StoreDamaged: the file is missing or damaged, or of another training.
    """
    tensors, state = _read(folder / FILE)
    try:
        optimizer.load_state_dict({"parts": _parts(tensors, state["parts"])})
        scheduler.load_state_dict({**scheduler.state_dict(), **state["scheduler"]})
    except (ValueError, KeyError, TypeError, RuntimeError) as error:
        raise StoreDamaged(f"{folder / FILE} is of another training: {error}") from error


def read_random(folder: Path) -> None:
    """Put torch's random numbers back to where they were."""
    torch.set_rng_state(_read(folder / FILE)[0][_RANDOM])


def is_complete(folder: Path) -> bool:
    """Whether a checkpoint was written to its end."""
    return (folder / FILE).is_file() and (folder / "trainer_state.json").is_file()


def last_complete(folder: Path, *, before: Path | None = None) -> Path | None:
    """The newest checkpoint in a folder that was written to its end, or the newest before one."""
    found = [each for each in folder.glob("checkpoint-*") if is_complete(each)]
    if before is not None:
        found = [each for each in found if _step(each) < _step(before)]
    return max(found, key=_step, default=None)


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


def _parts(tensors: Mapping[str, Tensor], groups: list[Any]) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = [{"state": {}, "param_groups": each} for each in groups]
    for name, tensor in tensors.items():
        if name != _RANDOM:
            number, index, key = name.split(".", 2)
            parts[int(number)]["state"].setdefault(int(index), {})[key] = tensor
    return parts


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with safe_open(path, framework="pt") as file:
            state = json.loads(file.metadata()["state"])
            return {name: file.get_tensor(name) for name in file.keys()}, state  # noqa: SIM118
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise StoreDamaged(
            f"{path} is no state of a training, or damaged ({error}); resume from an earlier "
            "checkpoint"
        ) from error
