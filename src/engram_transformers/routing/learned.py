"""A learned gate: how surely a prompt is a look-up, from the host's own state at its end.

    f = W2 relu(W1 z + b1) + b2,    z = (h - mean) / spread,    p = sigmoid(slope f + shift)

with `h` the state of the prompt's last token behind one block, as the third seed scaffolds it
(hidden to hidden / 4 to 1) but without its mean over the sequence, which differs between reading
and decoding. Width 0 leaves the inner layer out: logistic regression. `slope` and `shift` are
fitted on prompts that the net was not trained on (Platt 1999). Trained by `training/gate.py`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.nn import functional

from engram_transformers.errors import (
    BadInput,
    HostMismatch,
    StoreDamaged,
    StoreError,
    StoreTooNew,
)
from engram_transformers.routing.route import BareHost, Ids, Routing
from engram_transformers.stores.files import replace_file

FORMAT = 1
DESCRIPTION, TENSORS = "gate.json", "gate.safetensors"


class LearnedGate(nn.Module):
    """Gives states a probability that their prompts are look-ups.

    Args:
        hidden: size of the host's states.
        layer: the block behind which they are read.
        width: units of the inner layer; None is hidden / 4, 0 none at all.
        host: fingerprint of the host.
    """

    mean: Tensor
    spread: Tensor
    calibration: Tensor

    def __init__(self, hidden: int, *, layer: int, host: str, width: int | None = None) -> None:
        super().__init__()
        self.hidden, self.layer, self.host = hidden, layer, host
        self.width = hidden // 4 if width is None else width
        sizes = [hidden, self.width, 1] if self.width else [hidden, 1]
        self.linears = nn.ModuleList(nn.Linear(one, other) for one, other in pairwise(sizes))
        self.register_buffer("mean", torch.zeros(hidden))
        self.register_buffer("spread", torch.ones(hidden))
        self.register_buffer("calibration", torch.tensor([1.0, 0.0]))

    def scores(self, states: Tensor) -> Tensor:
        """(n,): the net's own logits of states (n, hidden), before calibration."""
        x = (states.float() - self.mean) / self.spread
        for i, linear in enumerate(self.linears):
            x = linear(functional.relu(x) if i else x)
        return x[..., 0]

    def forward(self, states: Tensor) -> Tensor:
        """(n,): calibrated probabilities of states (n, hidden)."""
        slope, shift = self.calibration
        return torch.sigmoid(slope * self.scores(states) + shift)

    def save(self, directory: Path | str, *, about: Mapping[str, Any] | None = None) -> None:
        """Write the gate into a directory, `gate.json` last.

        Args:
            about: what else `gate.json` shall say, as plain data: how the gate was scored.
        """
        folder, data = Path(directory), save(dict(self.state_dict()))
        description = {
            "format": FORMAT,
            "host": self.host,
            "hidden": self.hidden,
            "layer": self.layer,
            "width": self.width,
            "sha256": hashlib.sha256(data).hexdigest(),
            "about": dict(about or {}),
        }
        try:
            text = json.dumps(description, indent=2).encode()
        except TypeError as error:
            raise BadInput(f"what is said about a gate must be plain JSON data: {error}") from error
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"{folder} cannot be made: {error.strerror or error}") from error
        replace_file(folder / TENSORS, [data])
        replace_file(folder / DESCRIPTION, [text, b"\n"])

    @classmethod
    def load(cls, directory: Path | str, *, host: str) -> LearnedGate:
        """The gate in a directory.

        Raises:
            BadInput: there is no gate.
            HostMismatch: it was trained on the states of another host.
            StoreDamaged: its files are damaged, or are not those of one gate.
        """
        folder = Path(directory)
        found = _described(folder / DESCRIPTION)
        if found["host"] != host:
            raise HostMismatch(
                f"the gate in {folder} was trained on the host {found['host']}, and this one is "
                f"{host}; train one for it with `engram gate`"
            )
        gate = cls(found["hidden"], layer=found["layer"], host=host, width=found["width"])
        try:
            gate.load_state_dict(_tensors(folder / TENSORS, found["sha256"]))
        except RuntimeError as error:
            raise StoreDamaged(f"{folder} is damaged: its tensors are no such gate's") from error
        return gate.eval()


@dataclass(frozen=True)
class LearnedRoute:
    """Open where a gate takes a prompt for a look-up; costs a pass up to the gate's block."""

    gate: LearnedGate
    host: BareHost
    threshold: float = 0.5

    @torch.no_grad()
    def decide(self, prompt: Ids) -> Routing:
        """May a memory act on a prompt of these ids?"""
        state = self.host.state(prompt, self.gate.layer)
        score = float(self.gate(state.cpu()[None])[0])
        reason = f"the gate takes it for a look-up with a probability of {score:.3f}"
        return Routing(score >= self.threshold, score, self.threshold, reason)


_TYPES = {"host": str, "hidden": int, "layer": int, "width": int, "sha256": str}


def _described(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise BadInput(f"there is no trained gate in {path.parent}: no {path.name}") from error
    except (OSError, ValueError) as error:
        raise StoreDamaged(f"{path} cannot be read: {error}") from error
    if isinstance(found, dict) and type(found.get("format")) is int and found["format"] > FORMAT:
        raise StoreTooNew(f"{path} has the format {found['format']}; this library reads {FORMAT}")
    right = isinstance(found, dict) and found.get("format") == FORMAT
    if not right or any(type(found.get(name)) is not kind for name, kind in _TYPES.items()):
        raise StoreDamaged(f"{path} is damaged: it does not describe a gate")
    return dict(found)


def _tensors(path: Path, sha256: str) -> dict[str, Tensor]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise StoreDamaged(f"{path} cannot be read: {error.strerror or error}") from error
    if hashlib.sha256(data).hexdigest() != sha256:
        raise StoreDamaged(f"{path} is damaged: it is not what {DESCRIPTION} names")
    return dict(load(data))
