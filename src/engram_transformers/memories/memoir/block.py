"""A transformer block from scratch that remembers edits: it finds and applies them by itself.

    x1 = x + attention(norm(x))            causal
    n  = norm(x1)
    y  = x1 + W2 gelu(W1 n) + Wm (m * a)   a = n, or the paper's a = gelu(W1 n)

The mask `m` of a row comes from the fingerprint of `a` at the last token of its prompt: it is the
mask of the stored edit that is most like it, if that is alike enough. The memory acts from that
token on, so what is behind stays as it was. The seed's block has its norms behind the sums and no
causal mask; ours has them before, as nearly every host of today.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from engram_transformers.errors import BadInput, HostMismatch, UnknownFact
from engram_transformers.memories.memoir.fingerprint import TopHashFingerprinter
from engram_transformers.memories.memoir.layer import ResidualMemoryLayer
from engram_transformers.memories.memoir.masks import EditMaskDatabase


@dataclass(frozen=True)
class Retrieved:
    """The edit that one row of the batch got."""

    edit_id: str
    similarity: float
    forced: bool = False

    def as_dict(self) -> dict[str, Any]:
        return {"edit_id": self.edit_id, "similarity": self.similarity, "forced": self.forced}


@dataclass(frozen=True)
class Learnt:
    """How learning an edit went."""

    steps: int
    first_loss: float
    final_loss: float


class MEMOIRTransformerBlock(nn.Module):
    """A causal pre-norm block with a residual memory beside its feed-forward.

    Args:
        enable_memoir: whether it has a memory at all.
        top_k: features of a mask; a hundredth of them, but at least 50 where there are so many.
        threshold: how much alike a prompt's mask has to be to a stored one.
        memory_features: `input` fingerprints and reads the feed-forward's input (hidden), as the
            seed's masks are; `inner` its inner activations (intermediate), as in the paper.
        database: where masks are written and looked up; its own, unless given.
        fingerprinter: makes the masks; its own, unless given.
    """

    def __init__(
        self,
        hidden_size: int,
        num_attention_heads: int,
        intermediate_size: int,
        enable_memoir: bool = True,
        *,
        max_edits: int = 10_000,
        top_k: int | None = None,
        threshold: float = 0.7,
        memory_features: Literal["input", "inner"] = "input",
        database: EditMaskDatabase | None = None,
        fingerprinter: TopHashFingerprinter | None = None,
    ) -> None:
        super().__init__()
        if hidden_size % num_attention_heads:
            raise BadInput(f"{num_attention_heads} heads do not divide hidden_size, {hidden_size}")
        if memory_features not in ("input", "inner"):
            raise BadInput(f"memory_features is {memory_features!r}; use 'input' or 'inner'")
        self.heads, self.enable_memoir = num_attention_heads, enable_memoir
        self.memory_features = memory_features
        self.norm_before, self.norm_after = nn.LayerNorm(hidden_size), nn.LayerNorm(hidden_size)
        self.qkv = nn.Linear(hidden_size, 3 * hidden_size)
        self.attention_out = nn.Linear(hidden_size, hidden_size)
        self.mlp_in = nn.Linear(hidden_size, intermediate_size)
        self.mlp_out = nn.Linear(intermediate_size, hidden_size)
        self.features = hidden_size if memory_features == "input" else intermediate_size
        self._forced: str | None = None
        self._last: tuple[Retrieved | None, ...] = ()
        self.set_retrieval_threshold(threshold)
        if enable_memoir:
            top_k = top_k or min(self.features, max(50, self.features // 100))
            self.memory = ResidualMemoryLayer(
                hidden_size, max_edits, top_k / self.features, features=self.features
            )
            if fingerprinter is None:
                fingerprinter = TopHashFingerprinter(self.features, top_k)
            # An empty database is false, so `or` would put another one in its place.
            if database is None:
                database = EditMaskDatabase(self.features, max_masks=max_edits)
            self.fingerprinter, self.database = fingerprinter, database
            self._check_parts()
            self.register_load_state_dict_post_hook(_enter_masks)  # type: ignore[no-untyped-call]

    # -- acting ----------------------------------------------------------------------------

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        edit_mask: Tensor | None = None,
        edit_id: str | None = None,
        *,
        enable_memoir_retrieval: bool = True,
        prompt_ends: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Output (batch, time, hidden) and attention weights (batch, heads, time, time).

        Args:
            attention_mask: (batch, time) of ones for real tokens; padding stands on the right.
            edit_mask: (features,) or (batch, features): masks to use in place of retrieved ones.
            edit_id: an edit to use, where no mask is given.
            enable_memoir_retrieval: whether to look for an edit where neither is given.
            prompt_ends: (batch,) how many tokens of each row are its prompt; all real ones, unless
                said otherwise.
        """
        batch, time, _ = hidden_states.shape
        mixed, weights = self._attend(self.norm_before(hidden_states), attention_mask)
        stream = hidden_states + mixed
        normed = self.norm_after(stream)
        inner = functional.gelu(self.mlp_in(normed))
        out = self.mlp_out(inner)
        self._last = (None,) * batch
        if self.enable_memoir:
            activations = normed if self.memory_features == "input" else inner
            ends = _ends(attention_mask, prompt_ends, batch=batch, time=time)
            masks = self._given(edit_mask, edit_id, batch=batch)
            if masks is None and enable_memoir_retrieval:
                masks = self._retrieved(activations, ends)
            out = self.memory.beside(out, activations, masks, since=ends - 1)
        return stream + out, weights

    def get_last_retrieval_info(self) -> dict[str, Any] | None:
        """What the last call retrieved; None where no row got an edit.

        `edit_id`, `similarity` and `forced` are those of the row with the most similar one, which
        `row` names; `rows` has every row's own, or None.
        """
        fired = [(one.similarity, -row) for row, one in enumerate(self._last) if one]
        if not fired:
            return None
        row = -max(fired)[1]
        rows = [one.as_dict() if one else None for one in self._last]
        return {**cast("dict[str, Any]", rows[row]), "row": row, "rows": rows}

    def set_retrieval_threshold(self, threshold: float) -> None:
        """How much alike masks have to be from now on, above 0 and at most 1."""
        if not 0 < threshold <= 1:
            raise BadInput(f"threshold is {threshold}; it has to be above 0 and at most 1")
        self.threshold = threshold

    def force_edit_retrieval(self, edit_id: str | None) -> bool:
        """Use this edit in every row of every call from now on; None looks for edits again.

        `UnknownFact` for an edit that there is not.
        """
        if edit_id is not None:
            self.memory.mask_of(self._known(edit_id))
        self._forced = edit_id
        return True

    # -- editing ---------------------------------------------------------------------------

    @torch.no_grad()
    def fingerprint(
        self,
        hidden_states: Tensor,
        *,
        attention_mask: Tensor | None = None,
        prompt_ends: Tensor | None = None,
    ) -> Tensor:
        """(batch, features): the masks at the ends of the prompts of this input."""
        batch, time, _ = hidden_states.shape
        mixed, _ = self._attend(self.norm_before(hidden_states), attention_mask)
        activations = self.norm_after(hidden_states + mixed)
        if self.memory_features == "inner":
            activations = functional.gelu(self.mlp_in(activations))
        ends = _ends(attention_mask, prompt_ends, batch=batch, time=time)
        return self.fingerprinter.generate_mask(activations, ends=ends)

    def add_edit(
        self,
        edit_id: str,
        hidden_states: Tensor,
        metadata: Mapping[str, Any] | None = None,
        **where: Any,
    ) -> Tensor:
        """Enter an edit at this input (1, time, hidden); its mask (features,).

        It changes nothing before something is learnt or written. An edit at the same mask gives
        way, here and in the database.
        """
        if hidden_states.shape[0] != 1:
            raise BadInput(f"an edit has one prompt, not {hidden_states.shape[0]}")
        mask = self.fingerprint(hidden_states, **where)[0]
        known = dict(self.memory.edits)
        self.memory.add_edit(edit_id, mask, metadata)
        try:
            added = self.database.add(edit_id, mask, metadata)
        except BaseException:
            self.memory.restore(known)
            raise
        for replaced in added.replaced:
            if replaced != edit_id:
                self.memory.remove_edit(replaced)
        return mask

    def learn_edit(
        self,
        edit_id: str,
        hidden_states: Tensor,
        loss: Callable[[Tensor], Tensor],
        *,
        steps: int = 50,
        learning_rate: float = 1e-2,
        good: float = 1e-3,
        **where: Any,
    ) -> Learnt:
        """Train an entered edit until `loss` of the block's output is at most `good`.

        Only the edit's own values get gradients. If the loss is no number any more, `BadInput`,
        and nothing has changed.
        """
        mask = self.memory.mask_of(edit_id)
        losses: list[float] = []
        with self.memory.learning(edit_id) as values, torch.enable_grad():
            optimizer = torch.optim.Adam([values], lr=learning_rate)
            for step in range(steps + 1):
                value = loss(self(hidden_states, edit_mask=mask, **where)[0])
                losses.append(float(value.detach()))
                if not torch.isfinite(value.detach()):
                    raise BadInput(f"the loss is {losses[-1]}; use a smaller learning_rate")
                if losses[-1] <= good or step == steps:
                    break
                (values.grad,) = torch.autograd.grad(value, [values])
                optimizer.step()
        return Learnt(len(losses) - 1, losses[0], losses[-1])

    def remove_edit(self, edit_id: str) -> bool:
        """Take an edit out of memory and database; whether it was there."""
        gone = self.database.remove(edit_id)
        if self._forced == edit_id:
            self._forced = None
        return self.memory.remove_edit(edit_id) or gone

    def consolidate_edits(self, similarity_threshold: float = 0.95) -> int:
        """Merge edits with like masks, in memory and database alike; how many were merged away."""
        merged = self.database.consolidate(similarity_threshold)
        for one in merged:
            self.memory.merge(one.kept, one.gone, self.database.mask_of(one.kept))
            if self._forced in one.gone:
                self._forced = one.kept
        return sum(len(one.gone) for one in merged)

    # -- inside ----------------------------------------------------------------------------

    def _check_parts(self) -> None:
        for name, size in (
            ("database", self.database.hidden_size),
            ("fingerprinter", self.fingerprinter.hidden_size),
        ):
            if size != self.features:
                raise HostMismatch(
                    f"the {name} is for {size} features; this block's memory has {self.features}"
                )

    def _attend(self, x: Tensor, attention_mask: Tensor | None) -> tuple[Tensor, Tensor]:
        batch, time, hidden = x.shape
        q, k, v = self.qkv(x).view(batch, time, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        scores = q @ k.transpose(-1, -2) / (hidden // self.heads) ** 0.5
        allowed = torch.ones(time, time, dtype=torch.bool, device=x.device).tril()
        if attention_mask is not None:
            allowed = allowed & attention_mask.bool()[:, None, None, :]
        # A pad that may see nothing must not become NaN: it sees itself.
        allowed = allowed | torch.eye(time, dtype=torch.bool, device=x.device)
        weights = scores.masked_fill(~allowed, float("-inf")).softmax(dim=-1)
        mixed = (weights @ v).transpose(1, 2).reshape(batch, time, hidden)
        return self.attention_out(mixed), weights

    def _given(self, mask: Tensor | None, edit_id: str | None, *, batch: int) -> Tensor | None:
        if mask is None and edit_id is not None:
            mask = self.memory.mask_of(self._known(edit_id))
        if mask is not None:
            return mask.expand(batch, -1) if mask.ndim == 1 else mask
        if self._forced is None:
            return None
        self._last = (Retrieved(self._forced, 1.0, forced=True),) * batch
        return self.memory.mask_of(self._forced).expand(batch, -1)

    def _retrieved(self, activations: Tensor, ends: Tensor) -> Tensor | None:
        if not len(self.database):
            return None
        queries = self.fingerprinter.generate_mask(activations.detach(), ends=ends)
        found = self.database.search(queries, threshold=self.threshold)
        masks = torch.zeros(len(queries), self.features)
        last: list[Retrieved | None] = [None] * len(queries)
        for row, matches in enumerate(found):
            if matches and matches[0].edit_id in self.memory.edits:
                masks[row] = matches[0].mask
                last[row] = Retrieved(matches[0].edit_id, matches[0].similarity)
        self._last = tuple(last)
        return masks.to(activations.device)

    def _known(self, edit_id: str) -> str:
        if not self.enable_memoir or edit_id not in self.memory.edits:
            raise UnknownFact(f"this block knows no edit {edit_id!r}")
        return edit_id


def _enter_masks(block: nn.Module, _: Any) -> None:
    """Let edits that came with loaded tensors be found: their masks are among the tensors."""
    assert isinstance(block, MEMOIRTransformerBlock)
    for edit_id, edit in block.memory.edits.items():
        if edit_id not in block.database:
            block.database.add(edit_id, edit.mask, edit.metadata)


def _ends(
    attention_mask: Tensor | None, prompt_ends: Tensor | None, *, batch: int, time: int
) -> Tensor:
    """(batch,): how many tokens of each row are its prompt."""
    if prompt_ends is not None:
        ends = prompt_ends
    elif attention_mask is not None:
        real = attention_mask.bool()
        if bool((real[:, 1:] & ~real[:, :-1]).any()):
            raise BadInput("padding has to stand on the right of the tokens in this block")
        ends = real.sum(dim=1)
    else:
        ends = torch.full((batch,), time)
    if ends.shape != (batch,) or bool(((ends < 1) | (ends > time)).any()):
        raise BadInput(f"prompts end at {ends.tolist()} of {time} tokens in {batch} rows")
    return ends
