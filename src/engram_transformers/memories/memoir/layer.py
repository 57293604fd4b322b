"""The residual memory: a masked matrix beside a layer whose own weights never change.

    y = W0 a + Wm (m * a)

`Wm` is the sum of what the edits wrote, each in the columns of its own mask. Each edit's part is
kept beside the sum, so that taking one out leaves the others as they were: the columns are summed
up again, in the order in which the edits were written.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from engram_transformers.errors import BadInput, CannotForget, MemoryFull, UnknownFact
from engram_transformers.memories.memoir.bits import as_rows, voted
from engram_transformers.memories.memoir.files import as_json
from engram_transformers.memories.memoir.masks import likeness


@dataclass
class Edit:
    """One edit's part of the matrix."""

    mask: Tensor
    "(features,) of bool: the columns that it may write to, and that are open when it fires."
    metadata: dict[str, Any] = field(default_factory=dict)
    columns: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))
    "(n,): the columns that it wrote to."
    values: Tensor | None = None
    "(hidden, n): what it wrote there; None before it wrote anything."
    merged: tuple[str, ...] = ()
    created: float = 0.0
    "Seconds since 1970."


class ResidualMemoryLayer(nn.Module):
    """Adds to a layer's output what edits wrote; nothing before the first one.

    Args:
        hidden_size: outputs of the layer that it stands beside.
        max_edits: how many edits it holds.
        sparsity_ratio: share of the features that an edit's mask is meant to have open (`top_k`
            says how many); masks that are handed in may be larger.
        features: inputs of the layer that it stands beside; as many as outputs, unless said
            otherwise.
    """

    weight: Tensor

    def __init__(
        self,
        hidden_size: int,
        max_edits: int = 10_000,
        sparsity_ratio: float = 0.01,
        *,
        features: int | None = None,
    ) -> None:
        super().__init__()
        if hidden_size < 1 or max_edits < 1:
            raise BadInput(f"hidden_size is {hidden_size} and max_edits {max_edits}; use 1 or more")
        if not 0 < sparsity_ratio <= 1:
            raise BadInput(f"sparsity_ratio is {sparsity_ratio}; it has to be above 0, 1 at most")
        self.hidden_size, self.max_edits = hidden_size, max_edits
        self.sparsity_ratio, self.features = sparsity_ratio, features or hidden_size
        self.register_buffer("weight", torch.zeros(hidden_size, self.features), persistent=False)
        self.edits: dict[str, Edit] = {}
        self._learning: tuple[str, Tensor] | None = None

    def __len__(self) -> int:
        return len(self.edits)

    @property
    def top_k(self) -> int:
        """How many features an edit's mask is meant to have open."""
        return max(1, round(self.sparsity_ratio * self.features))

    @property
    def written(self) -> bool:
        """Whether any edit wrote anything, or is about to."""
        values = (edit.values for edit in self.edits.values())
        return self._learning is not None or any(one is not None for one in values)

    # -- acting ----------------------------------------------------------------------------

    def forward(
        self, activations: Tensor, edit_mask: Tensor | None = None, edit_id: str | None = None
    ) -> Tensor:
        """``Wm (m * a)``, (..., hidden): zero without a mask.

        Args:
            activations: (..., features), what goes into the layer beside.
            edit_mask: (features,) for all, or (batch, features) for each row.
            edit_id: the edit whose mask is taken where `edit_mask` is not given.
        """
        if activations.shape[-1] != self.features:
            raise BadInput(
                f"activations have {activations.shape[-1]} features, the memory {self.features}"
            )
        mask = self.mask_of(edit_id) if edit_mask is None and edit_id is not None else edit_mask
        if mask is None:
            return activations.new_zeros((*activations.shape[:-1], self.hidden_size))
        gated = activations.to(self.weight) * self._fitted(mask, activations)
        out = nn.functional.linear(gated, self.weight)
        if self._learning is not None:
            _, values = self._learning
            columns = self.edits[self._learning[0]].mask.nonzero()[:, 0].to(gated.device)
            out = out + nn.functional.linear(gated[..., columns], values)
        return out.to(activations.dtype)

    def beside(
        self,
        output: Tensor,
        activations: Tensor,
        edit_masks: Tensor | None,
        *,
        since: Tensor | None = None,
    ) -> Tensor:
        """The layer's output with the memory's part; `output` itself where nothing fires.

        Args:
            output: (batch, time, hidden).
            activations: (batch, time, features).
            edit_masks: (batch, features); a row without any feature is left as it is.
            since: (batch,) the first token of each row at which the memory acts.
        """
        if edit_masks is None or not self.written:
            return output
        rows = edit_masks.bool().any(dim=1).nonzero()[:, 0].to(output.device)
        if not len(rows):
            return output
        part = self(activations[rows], edit_masks[rows])
        if since is not None:
            at = torch.arange(output.shape[1], device=output.device)
            acts = at >= since.to(output.device)[rows, None]
            changed = torch.where(acts[..., None], output[rows] + part, output[rows])
        else:
            changed = output[rows] + part
        return output.index_put((rows,), changed)

    # -- editing ---------------------------------------------------------------------------

    def add_edit(
        self, edit_id: str, edit_mask: Tensor, metadata: Mapping[str, Any] | None = None
    ) -> bool:
        """Make room for an edit in the columns of its mask; one of this id gives way.

        It changes nothing until something is written, by `write` or while `learning`.

        Raises:
            MemoryFull: there are `max_edits` already.
        """
        if not isinstance(edit_id, str) or not edit_id:
            raise BadInput(f"an edit's id has to be some text, not {edit_id!r}")
        mask = as_rows(edit_mask, self.features)
        if len(mask) != 1 or not bool(mask.any()):
            raise BadInput(f"the mask of {edit_id!r} has to be a single one, with features in it")
        note = as_json(dict(metadata or {}), name=f"the metadata of {edit_id!r}")
        if edit_id not in self.edits and len(self) >= self.max_edits:
            raise MemoryFull(
                f"the memory holds {len(self)} edits and max_edits is {self.max_edits}. Remove "
                "some, consolidate them, or make it larger."
            )
        if edit_id in self.edits:
            self.remove_edit(edit_id)
        self.edits[edit_id] = Edit(mask[0], note, created=time.time())
        return True

    @torch.no_grad()
    def write(self, edit_id: str, values: Tensor) -> None:
        """Write values (hidden, open columns) of an edit, in the order of its columns, for good."""
        edit = self._unmerged(edit_id)
        columns = edit.mask.nonzero()[:, 0]
        if values.shape != (self.hidden_size, len(columns)):
            raise BadInput(
                f"values have shape {tuple(values.shape)}; {edit_id!r} has room for "
                f"{(self.hidden_size, len(columns))}"
            )
        if not bool(torch.isfinite(values).all()):
            raise BadInput(f"what {edit_id!r} is to write holds infinite values or NaN")
        new = edit.values is None
        edit.columns, edit.values = columns, values.detach().float().cpu().clone()
        # What is written last is added last, so that a sum made anew is the same one, and the
        # first time nothing has to be summed up anew.
        self.edits[edit_id] = self.edits.pop(edit_id)
        if new:
            self.weight[:, columns.to(self.weight.device)] += edit.values.to(self.weight)
        else:
            self._sum_up(columns)

    @contextmanager
    def learning(self, edit_id: str) -> Iterator[nn.Parameter]:
        """Values (hidden, open columns) of an edit to train; written when the block ends well.

        They are the only tensor that gets gradients, so no step can reach another edit's columns,
        by weight decay neither. When the block raises, nothing has changed.
        """
        edit = self._unmerged(edit_id)
        if self._learning is not None:
            raise BadInput(f"{self._learning[0]!r} is being learnt; one at a time")
        before, start = edit.values, torch.zeros(self.hidden_size, int(edit.mask.sum()))
        if before is not None:
            start, edit.values = before.clone(), None
            self._sum_up(edit.columns)
        values = nn.Parameter(start.to(self.weight.device))
        self._learning = (edit_id, values)
        try:
            yield values
        except BaseException:
            self._learning, edit.values = None, before
            self._sum_up(edit.columns)
            raise
        self._learning = None
        self.write(edit_id, values)

    def remove_edit(self, edit_id: str) -> bool:
        """Take an edit out; whether it was there. The matrix is as if it had never been written.

        `CannotForget` for one that was merged into another.
        """
        if self._learning is not None:
            raise BadInput(f"{self._learning[0]!r} is being learnt; let that end first")
        if edit_id not in self.edits:
            self._check_merged(edit_id)
            return False
        edit = self.edits.pop(edit_id)
        self._sum_up(edit.columns)
        return True

    def consolidate_edits(self, similarity_threshold: float = 0.95) -> int:
        """Merge edits whose masks are at least so much alike (cosine); how many were merged away.

        As `EditMaskDatabase.consolidate` does: the oldest keeps its id and gets the mask that most
        of them have. Their values are added up, so the matrix stays as it is but for rounding.
        """
        if not 0 < similarity_threshold <= 1:
            raise BadInput(
                f"similarity_threshold is {similarity_threshold}; use above 0, 1 at most"
            )
        gone = 0
        for leader in list(self.edits):
            if leader in self.edits:
                group = self._like(leader, similarity_threshold)
                self.merge(leader, group)
                gone += len(group)
        return gone

    def merge(self, leader: str, group: Sequence[str], mask: Tensor | None = None) -> None:
        """Merge the edits of a group into another one, for good.

        Args:
            mask: (features,) the mask of the merged edit; what most of them have, if not given.
        """
        if not group:
            return
        members = [self._get(id) for id in (leader, *group)]
        masks = torch.stack([one.mask for one in members])
        first = members[0]
        dense = torch.zeros(self.hidden_size, self.features)
        for one in members:
            if one.values is not None:
                dense[:, one.columns] += one.values
        wrote = torch.zeros(self.features).index_fill(0, _joined(members), 1).nonzero()[:, 0]
        for id, one in zip(group, members[1:], strict=True):
            del self.edits[id]
            first.merged += (id, *one.merged)
        first.mask = voted(masks) if mask is None else as_rows(mask, self.features)[0]
        if len(wrote):
            first.columns, first.values = wrote, dense[:, wrote]
            self._sum_up(wrote)

    def restore(self, edits: Mapping[str, Edit]) -> None:
        """Hold just these edits, as a copy of `edits` did before something went wrong."""
        self.edits = dict(edits)
        self._sum_up(torch.arange(self.features))

    # -- looking ---------------------------------------------------------------------------

    def mask_of(self, edit_id: str) -> Tensor:
        """(features,): an edit's mask of ones and zeros in float32."""
        return self._get(edit_id).mask.float()

    def get_edit_info(self, edit_id: str | None = None) -> dict[str, Any]:
        """What is known about one edit, or about all."""
        if edit_id is not None:
            return _described(edit_id, self._get(edit_id))
        return {
            "total_edits": len(self),
            "max_edits": self.max_edits,
            "available_slots": self.max_edits - len(self),
            "columns_used": int((self.weight != 0).any(dim=0).sum()),
            "features": self.features,
            "bytes": self.weight.nbytes + sum(_bytes(edit) for edit in self.edits.values()),
            "edits": {id: _described(id, edit) for id, edit in self.edits.items()},
        }

    # -- inside ----------------------------------------------------------------------------

    def _fitted(self, mask: Tensor, activations: Tensor) -> Tensor:
        mask = mask.to(self.weight)
        if mask.shape == (self.features,):
            return mask
        if mask.shape == activations.shape:
            return mask
        if mask.shape == (activations.shape[0], self.features) and activations.ndim >= 2:
            return mask.reshape(-1, *[1] * (activations.ndim - 2), self.features)
        raise BadInput(
            f"the mask has shape {tuple(mask.shape)} for activations {tuple(activations.shape)}; "
            f"it has to be ({self.features},) or one a row"
        )

    def _get(self, edit_id: str) -> Edit:
        if edit_id not in self.edits:
            raise UnknownFact(f"there is no edit {edit_id!r} among {len(self)}")
        return self.edits[edit_id]

    def _unmerged(self, edit_id: str) -> Edit:
        edit = self._get(edit_id)
        if edit.merged:
            raise BadInput(f"{edit_id!r} is merged of several edits and cannot be written anew")
        return edit

    def _check_merged(self, edit_id: str) -> None:
        for id, edit in self.edits.items():
            if edit_id in edit.merged:
                raise CannotForget(
                    f"{edit_id!r} was merged into {id!r} and cannot be taken out of it; remove "
                    f"{id!r}"
                )

    def _like(self, leader: str, threshold: float) -> list[str]:
        ids = list(self.edits)
        mask = self.edits[leader].mask
        newer = ids[ids.index(leader) + 1 :]
        return [id for id in newer if likeness(mask, self.edits[id].mask) >= threshold]

    @torch.no_grad()
    def _sum_up(self, columns: Tensor) -> None:
        """Make columns of the matrix anew: zero, and every edit's part in order."""
        if not len(columns):
            return
        here = torch.zeros(self.features, dtype=torch.bool)
        here[columns] = True
        self.weight[:, here.to(self.weight.device)] = 0
        for edit in self.edits.values():
            touched = here[edit.columns]
            if edit.values is not None and bool(touched.any()):
                parts = edit.columns[touched].to(self.weight.device)
                self.weight[:, parts] += edit.values[:, touched].to(self.weight)

    # -- state: every edit by its number, and a book of what else is known ------------------

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        book = [
            {"id": id, "metadata": e.metadata, "merged": e.merged, "created": e.created}
            for id, e in self.edits.items()
        ]
        destination[f"{prefix}book"] = torch.tensor(
            list(json.dumps(book).encode()), dtype=torch.uint8
        )
        for number, edit in enumerate(self.edits.values()):
            destination[f"{prefix}edits.{number}.mask"] = edit.mask
            if edit.values is not None:
                destination[f"{prefix}edits.{number}.columns"] = edit.columns
                destination[f"{prefix}edits.{number}.values"] = edit.values

    def _load_from_state_dict(
        self,
        state_dict: Mapping[str, Tensor],
        prefix: str,
        local_metadata: Any,
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        if f"{prefix}book" not in state_dict:
            missing_keys.append(f"{prefix}book")
            return
        try:
            self._take(state_dict, prefix)
        except (KeyError, ValueError, RuntimeError) as error:
            error_msgs.append(f"the edits under {prefix!r} cannot be read: {error}")

    def _take(self, state: Mapping[str, Tensor], prefix: str) -> None:
        edits: dict[str, Edit] = {}
        for number, one in enumerate(json.loads(bytes(state[f"{prefix}book"].tolist()))):
            at = f"{prefix}edits.{number}"
            edit = Edit(state[f"{at}.mask"].bool().cpu(), one["metadata"], created=one["created"])
            edit.merged = tuple(one["merged"])
            if f"{at}.values" in state:
                edit.columns = state[f"{at}.columns"].long().cpu()
                edit.values = state[f"{at}.values"].float().cpu().clone()
            self._check_shapes(one["id"], edit)
            edits[one["id"]] = edit
        if len(edits) > self.max_edits:
            raise ValueError(f"{len(edits)} edits, and max_edits is {self.max_edits}")
        self.edits = edits
        self._sum_up(torch.arange(self.features))

    def _check_shapes(self, id: str, edit: Edit) -> None:
        wanted = (self.hidden_size, len(edit.columns))
        if edit.mask.shape != (self.features,) or (
            edit.values is not None and edit.values.shape != wanted
        ):
            raise ValueError(f"{id!r} was written for another size of host")


def _joined(edits: Sequence[Edit]) -> Tensor:
    return torch.cat([edit.columns for edit in edits])


def _described(id: str, edit: Edit) -> dict[str, Any]:
    return {
        "edit_id": id,
        "active_features": int(edit.mask.sum()),
        "written": edit.values is not None,
        "norm": 0.0 if edit.values is None else float(edit.values.norm()),
        "bytes": _bytes(edit),
        "merged": list(edit.merged),
        "created": edit.created,
        "metadata": dict(edit.metadata),
    }


def _bytes(edit: Edit) -> int:
    values = 0 if edit.values is None else edit.values.nbytes
    return edit.mask.nbytes + edit.columns.nbytes + values
