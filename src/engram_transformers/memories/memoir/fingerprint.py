"""TopHash: a sparse binary mask that stands for an activation, the same in every process.

With ``a`` an activation, ``b`` the mean activation of a background and ``p`` a fixed permutation,
the mask has ones at ``p[i]`` for the `top_k` features ``i`` at which ``|a - b|`` is largest.
Features that are equally large go in the order of their index. Source: MEMOIR (Wang et al. 2025,
arXiv 2506.07899), whose released code keeps the permutation in no file, so that a restart loses
every edit; ours is a buffer, made from the seed alone, and stored with a checksum.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from engram_transformers.errors import BadInput, HostMismatch, StoreDamaged
from engram_transformers.memories.memoir.files import (
    PICKLES,
    checksum,
    read_tensors,
    write_tensors,
)

WHAT = "a TopHash permutation"


class TopHashFingerprinter(nn.Module):
    """Makes masks of `top_k` active features out of activations of `hidden_size` features.

    Args:
        permutation_file: a safetensors file to read the permutation from, or to write it to where
            there is none yet. For a path that ends as a pickle does, the file beside it that ends
            in `.safetensors` is meant; a pickle itself is refused, since reading one can run code.
        seed: decides the permutation; of a file that exists, it has to be the one it was made from.

    Raises:
        BadInput: sizes that make no sense, or a pickle.
        HostMismatch: the file belongs to activations of another size, or to another seed.
        StoreDamaged: the file is truncated, foreign or was changed.
    """

    permutation: Tensor
    background: Tensor

    def __init__(
        self,
        hidden_size: int,
        top_k: int,
        permutation_file: str | os.PathLike[str] | None = None,
        seed: int = 42,
    ) -> None:
        super().__init__()
        if hidden_size < 1:
            raise BadInput(f"hidden_size is {hidden_size}; it has to be at least 1")
        if not 1 <= top_k <= hidden_size:
            raise BadInput(f"top_k is {top_k}; it has to be from 1 to hidden_size, {hidden_size}")
        self.hidden_size, self.top_k, self.seed = hidden_size, top_k, seed
        self.register_buffer("permutation", torch.empty(0, dtype=torch.int64))
        self.register_buffer("background", torch.zeros(hidden_size))
        path = None if permutation_file is None else safe_path(permutation_file)
        if path is not None and path.exists():
            self._read(path)
        else:
            self.permutation = permutation_of(hidden_size, seed)
            if path is not None:
                self.save(path)

    @property
    def checksum(self) -> str:
        """Sixteen hexadecimal digits; masks can be compared where they are equal."""
        tensors = {"permutation": self.permutation, "background": self.background}
        return checksum({**tensors, "top_k": torch.tensor(self.top_k)})

    @torch.no_grad()
    def set_background(self, activations: Tensor) -> None:
        """Centre by the mean of these activations (n, hidden) from now on.

        Masks made before and after cannot be compared, and `checksum` changes with it.
        """
        self._check(activations)
        rows = activations.detach().reshape(-1, self.hidden_size)
        if not len(rows):
            raise BadInput("a background needs at least one activation")
        # In double precision on the processor, so that batch and device do not decide the mean.
        self.background = rows.cpu().double().mean(dim=0).float().to(self.background.device)

    @torch.no_grad()
    def generate_mask(self, activations: Tensor, *, ends: Tensor | None = None) -> Tensor:
        """Masks of ones and zeros in float32, each with `top_k` ones.

        Args:
            activations: (hidden,), (batch, hidden), or (batch, time, hidden), of which one token
                a row counts.
            ends: (batch,) for each row, how many of its tokens count as read: the last of these is
                taken. The last one of all, unless said otherwise.
        """
        self._check(activations)
        chosen = _at_ends(activations, ends) if activations.ndim == 3 else activations
        distance = (chosen.float() - self.background.to(chosen.device)).abs()
        mask = torch.zeros_like(distance)
        mask[..., self.permutation.to(mask.device)] = largest(distance, self.top_k).to(mask)
        return mask

    def validate_determinism(self, activations: Tensor, num_trials: int = 5) -> bool:
        """Whether activations give the same masks again, alone as in a batch, and whether the
        permutation is one."""
        first = self.generate_mask(activations)
        again = (self.generate_mask(activations.clone()) for _ in range(num_trials))
        if not all(torch.equal(first, mask) for mask in again):
            return False
        rows = first.reshape(-1, self.hidden_size)
        single = activations[:, -1] if activations.ndim == 3 else activations
        alone = [self.generate_mask(row) for row in single.reshape(-1, self.hidden_size)]
        order = torch.arange(self.hidden_size, device=self.permutation.device)
        return torch.equal(rows, torch.stack(alone)) and torch.equal(
            self.permutation.sort().values, order
        )

    def analyze_mask_properties(self, mask: Tensor) -> dict[str, Any]:
        """Counts of a mask (hidden,) or of masks (n, hidden): active features, and how many two
        of them share, beside how many two random ones would."""
        rows = mask.reshape(-1, self.hidden_size).float()
        active = rows.sum(dim=1)
        shared = (rows @ rows.T)[tuple(torch.triu_indices(len(rows), len(rows), offset=1))]
        return {
            "masks": len(rows),
            "hidden_size": self.hidden_size,
            "active_features": float(active.mean()),
            "sparsity": 1 - float(active.mean()) / self.hidden_size,
            "is_binary": bool(((rows == 0) | (rows == 1)).all()),
            "matches_top_k": bool((active == self.top_k).all()),
            "mean_overlap": float(shared.mean()) / self.top_k if len(shared) else None,
            "max_overlap": float(shared.max()) / self.top_k if len(shared) else None,
            "chance_overlap": self.top_k / self.hidden_size,
        }

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write permutation and background as safetensors; where they were put."""
        place = safe_path(path)
        tensors = {"permutation": self.permutation.int(), "background": self.background}
        facts = {"what": WHAT, "hidden_size": str(self.hidden_size), "seed": str(self.seed)}
        write_tensors(place, tensors, facts)
        return place

    def _read(self, path: Path) -> None:
        stored = read_tensors(path, what=WHAT)
        for name in ("hidden_size", "seed"):
            asked, found = str(getattr(self, name)), stored.facts.get(name)
            if found != asked:
                raise HostMismatch(
                    f"{path} was made with {name}={found}, not {asked}; its masks cannot be "
                    f"compared with others. Ask for {name}={found}, or name another file."
                )
        permutation = stored.tensors["permutation"].long()
        if not torch.equal(permutation.sort().values, torch.arange(self.hidden_size)):
            raise StoreDamaged(f"{path} holds no permutation of {self.hidden_size} features")
        self.permutation, self.background = permutation, stored.tensors["background"]

    def _check(self, activations: Tensor) -> None:
        if activations.ndim not in (1, 2, 3) or activations.shape[-1] != self.hidden_size:
            raise BadInput(
                f"activations have shape {tuple(activations.shape)}; the last of one to three "
                f"dimensions has to be hidden_size, {self.hidden_size}"
            )
        if not bool(torch.isfinite(activations).all()):
            raise BadInput("activations hold infinite values or NaN, which have no largest ones")


def largest(values: Tensor, count: int) -> Tensor:
    """(..., n) bool: the `count` largest of the last dimension; among equals, the first ones."""
    # The order in which topk gives equals is not the same everywhere; its last value is.
    least = values.topk(count, dim=-1).values[..., -1:]
    above, equal = values > least, values == least
    missing = count - above.sum(dim=-1, keepdim=True)
    return above | (equal & (equal.cumsum(dim=-1) <= missing))


def permutation_of(size: int, seed: int) -> Tensor:
    """A permutation that depends on the seed and on no library's random numbers."""
    keys = [hashlib.blake2b(f"{seed} {i}".encode(), digest_size=16).digest() for i in range(size)]
    return torch.tensor(sorted(range(size), key=keys.__getitem__), dtype=torch.int64)


def safe_path(path: str | os.PathLike[str]) -> Path:
    """Where a permutation asked for at `path` is; `BadInput` if only a pickle is there."""
    asked = Path(path)
    if asked.suffix.lower() not in PICKLES:
        return asked
    place = asked.with_suffix(".safetensors")
    if asked.exists() and not place.exists():
        raise BadInput(
            f"{asked} is a pickle, which can run code when it is read, so it is not read. Move it "
            f"away: a permutation is then made from the seed and written to {place}. Masks made "
            "with the old one cannot be compared with new ones; teach their edits again."
        )
    return place


def _at_ends(activations: Tensor, ends: Tensor | None) -> Tensor:
    if ends is None:
        return activations[:, -1]
    inside = (ends >= 1) & (ends <= activations.shape[1])
    if ends.shape != activations.shape[:1] or not bool(inside.all()):
        raise BadInput(f"ends are {ends.tolist()} for activations {tuple(activations.shape)}")
    rows = torch.arange(len(activations), device=activations.device)
    return activations[rows, ends.to(activations.device) - 1]
