"""What the bare host computes for a text around one layer, and what it says with something added.

The memory acts on the output of one layer, so what goes into that layer stays as it is, whatever an
edit writes: activations are taken once. What comes behind is run with the blocks up to there
standing still (`models/late.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from engram_transformers.attaching import silenced
from engram_transformers.memories.shared.layout import by_rows
from engram_transformers.models.adapter import Adapter, Place
from engram_transformers.models.late import Below, LatePass, all_blocks
from engram_transformers.models.passes import padded

Ids = NDArray[np.int64]


@dataclass(frozen=True)
class Text:
    """A prompt with its answer, in token ids, and where in the prompt the question stands."""

    prompt: tuple[int, ...]
    answer: tuple[int, ...]
    span: tuple[int, int]


@dataclass(frozen=True)
class Batch:
    """Texts as one pass reads them, without the prefix that they share."""

    texts: tuple[Text, ...]
    ids: Tensor
    "(texts, time)"
    mask: Tensor
    rows: Tensor
    "(n,): row of each token after which an answer token comes."
    columns: Tensor
    "(n,): its column."
    wanted: Tensor
    "(n,): the answer token."
    below: Below | None
    x: Tensor
    "(texts, time, features): what goes into the layer."
    out: Tensor
    "(texts, time, hidden): what the layer's block gives."

    @property
    def keys(self) -> Tensor:
        """(n, features): what goes into the layer where an answer token comes next."""
        return self.x[self.rows, self.columns].float()

    @property
    def stream(self) -> Tensor:
        """(n, hidden): what the layer's block gives there."""
        return self.out[self.rows, self.columns].float()

    def part(self, first: int, end: int) -> Batch:
        """Some of the texts by themselves."""
        own = (self.rows >= first) & (self.rows < end)
        some = slice(first, end)
        below = self.below and replace(self.below, states=self.below.states[some])
        return Batch(
            self.texts[some],
            self.ids[some],
            self.mask[some],
            self.rows[own] - first,
            self.columns[own],
            self.wanted[own],
            below,
            self.x[some],
            self.out[some],
        )


class _Seen:
    """What went into the layer and out of its block, call by call."""

    def __init__(self) -> None:
        self.x: list[Tensor] = []
        self.out: list[Tensor] = []

    def before(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.x.append(args[0] if args else kwargs["hidden_states"])

    def after(self, module: nn.Module, args: Any, output: Any) -> None:
        self.out.append(output[0] if isinstance(output, tuple) else output)


class Passes:
    """Runs the bare host around one layer.

    Args:
        place: where the memory acts, `mlp_out` or `block_out`.
        prefix: ids that prompts begin with, read once for all of a batch.
    """

    def __init__(self, adapter: Adapter, place: Place, *, prefix: Sequence[int] = ()) -> None:
        assert place.layer is not None
        self.adapter, self.place = adapter, place
        self.block = adapter.layers[place.layer]
        self.late = LatePass(adapter, place.layer + 1, prefix=prefix, settled=True)
        self.plain = LatePass(adapter, place.layer + 1)
        self.prefix = tuple(prefix)

    @torch.no_grad()
    def read(self, texts: Sequence[Text]) -> Batch:
        """One pass over texts up to the layer."""
        skip = self._skip(texts)
        late = self.late if skip else self.plain
        read = [(*one.prompt, *one.answer[:-1])[skip:] for one in texts]
        ids, mask = padded(read, device=self.adapter.device)
        with self._bare(), self._watched() as seen:
            below = late.keep(ids, mask)
            if below is None and not skip:
                late(ids, mask, None)
        if skip and (below is None or not late.shared):
            # What is added could not be told from the prefix then.
            self.prefix = ()
            return self.read(texts)
        width = ids.shape[1]
        x, out = (by_rows(each[-1], len(texts))[:, -width:] for each in (seen.x, seen.out))
        at = [
            (i, len(one.prompt) - skip - 1 + j, token)
            for i, one in enumerate(texts)
            for j, token in enumerate(one.answer)
        ]
        where = torch.tensor(at, dtype=torch.long, device=ids.device).view(-1, 3)
        rows, columns, wanted = where.unbind(dim=1)
        below = below and replace(below, states=out)
        return Batch(tuple(texts), ids, mask, rows, columns, wanted, below, x, out)

    def logits(self, batch: Batch, added: Tensor) -> Tensor:
        """(n, vocab) after each token of a batch, with `added` (n, hidden) put out by the layer."""
        late = self.late if self._skip(batch.texts) else self.plain
        with self._bare():
            if batch.below is not None:
                states = _more(batch.below.states, batch, added)
                below = replace(batch.below, states=states)
                states = late(batch.ids, batch.mask, below)
            else:
                with self._adding(batch, added):
                    states = late(batch.ids, batch.mask, None)
        return self.adapter.logits(states[batch.rows, batch.columns])

    def size(self, batch: Batch) -> Tensor:
        """(): how long the stream is as a vector, at the tokens of a batch."""
        size: Tensor = batch.stream.norm(dim=1).mean()
        return size

    def means(self, batch: Batch) -> Tensor:
        """(texts, features): the mean over each question's own tokens."""
        skip = self._skip(batch.texts)
        return torch.stack([
            row[one.span[0] - skip : one.span[1] - skip].double().mean(dim=0).float()
            for row, one in zip(batch.x, batch.texts, strict=True)
        ])  # fmt: skip

    @torch.no_grad()
    def activations(self, ids: Ids) -> Tensor:
        """(tokens, features): what goes into the layer for the tokens of one text."""
        given = torch.from_numpy(np.ascontiguousarray(ids))[None].to(self.adapter.device)
        with self._bare(), all_blocks(self.adapter), self._watched() as seen:
            self.adapter.decoder(input_ids=given, use_cache=False)
        return by_rows(seen.x[-1], 1)[0]

    def _skip(self, texts: Sequence[Text]) -> int:
        size = len(self.prefix)
        shared = all(one.prompt[:size] == self.prefix and one.span[0] >= size for one in texts)
        return size if shared else 0

    def _bare(self) -> Any:
        return silenced(self.adapter.model)

    @contextmanager
    def _watched(self) -> Iterator[_Seen]:
        """Collects what goes into the layer and out of its block, call by call."""
        seen = _Seen()
        hooks = (
            self.place.module.register_forward_pre_hook(seen.before, with_kwargs=True),
            self.block.register_forward_hook(seen.after),
        )
        try:
            yield seen
        finally:
            for hook in hooks:
                hook.remove()

    @contextmanager
    def _adding(self, batch: Batch, added: Tensor) -> Iterator[None]:
        """While this lasts the block puts out more at the tokens of a batch."""

        def add(module: nn.Module, args: Any, output: Any) -> Any:
            if isinstance(output, tuple):
                return (_more(output[0], batch, added), *output[1:])
            return _more(output, batch, added)

        hook = self.block.register_forward_hook(add)
        try:
            yield
        finally:
            hook.remove()


def _more(states: Tensor, batch: Batch, added: Tensor) -> Tensor:
    """States (texts, time, hidden) with something added at the tokens of a batch."""
    nothing = torch.zeros_like(states)
    return states + nothing.index_put((batch.rows, batch.columns), added.to(states))
