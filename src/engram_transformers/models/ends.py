"""Run only the late blocks of a host on only the ends of texts, again and again.

Where something changes from one token on and from one block on, everything before that token and
below that block gives the same every time. It is read once; from then on a pass costs what the
ends of the texts cost in the late blocks. All calls are the host's own.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from engram_transformers.models.adapter import Adapter
from engram_transformers.models.late import CLOSE, below_of, left_out, watched
from engram_transformers.models.passes import branched, padded

TRIED = 2
"Texts on which it is tried out whether a host can be run so."


class TextEnds:
    """The ends of some texts, ready to be run from block `first` on.

    Whether that works is tried out on the first texts: a host that needs more than its cache and
    the stream (shared keys, states of earlier blocks) is run whole every time, and so still right.

    Args:
        first: 0 runs all blocks.
        starts: for each text, the index of the first token of its end.
    """

    def __init__(
        self, adapter: Adapter, first: int, texts: Sequence[Sequence[int]], starts: Sequence[int]
    ) -> None:
        self.adapter, self.texts, self.starts = adapter, texts, tuple(starts)
        self.first, self.short = first, max(starts) > 0
        "The first block that is run, and whether beginnings are left out."
        if not self._works():
            self.first, self.short = 0, False
            self._prepare()
        self.tokens = sum(map(len, texts)) - self.short * sum(starts)
        "How many tokens a pass reads, padding not counted."

    def __call__(self) -> Tensor:
        """(texts, time, hidden): the decoder's output for the ends, padded on the right.

        Its gradient reaches everything that acts on them in the late blocks.
        """
        with left_out(self.adapter, self._below):
            states = self._run(branched(self._past))
        if self.short:
            return states
        width = max(len(t) - s for t, s in zip(self.texts, self.starts, strict=True))
        rows = [
            torch.nn.functional.pad(row[s : s + width], (0, 0, 0, max(0, s + width - len(row))))
            for row, s in zip(states, self.starts, strict=True)
        ]
        return torch.stack(rows)

    @property
    def offsets(self) -> tuple[int, ...]:
        """For each text, where its end begins in what the blocks are shown."""
        return (0,) * len(self.texts) if self.short else self.starts

    @property
    def shape(self) -> tuple[int, int]:
        """(texts, time) of what the blocks are shown."""
        return self._ids.shape[0], self._ids.shape[1]

    @torch.no_grad()
    def _works(self) -> bool:
        """Prepare, and see whether the first texts come out as they do from the whole host."""
        texts, starts = self.texts[:TRIED], self.starts[:TRIED]
        try:
            self._prepare()
            found = self()
        except (TypeError, ValueError, RuntimeError, LookupError, AttributeError):
            return False  # a host that reads more from its early blocks than their states
        expected = self._whole(texts)
        return all(
            (found[i, : len(t) - s] - expected[i, s : len(t)]).abs().max()
            <= CLOSE * expected[i, : len(t)].abs().max()
            for i, (t, s) in enumerate(zip(texts, starts, strict=True))
        )

    def _whole(self, texts: Sequence[Sequence[int]]) -> Tensor:
        ids, mask = (each.to(self.adapter.device) for each in padded(texts))
        states: Tensor = self.adapter.decoder(
            input_ids=ids, attention_mask=mask, use_cache=False, **self._positions(mask, 0)
        )[0]
        return states

    @torch.no_grad()
    def _prepare(self) -> None:
        starts = self.starts if self.short else (0,) * len(self.texts)
        begun = [tuple(text[:start]) for text, start in zip(self.texts, starts, strict=True)]
        ends = [text[start:] for text, start in zip(self.texts, starts, strict=True)]
        # Wordings often begin alike, chats always.
        once = list(dict.fromkeys(begun))
        rows = torch.tensor([once.index(each) for each in begun])
        before, seen = _padded_before(once)
        self._ids, real = (each.to(self.adapter.device) for each in padded(ends))
        self._mask = torch.cat([seen[rows].to(self.adapter.device), real], 1)
        self._past: Any = None
        if self.short:
            self._past = self._read(before, seen)
            self._past.batch_select_indices(rows.to(self.adapter.device))
        self._below = None
        if self.first > 0:
            with watched(self.adapter, self.first) as found:
                self._run(branched(self._past))
            self._below = below_of(self.first, found[0])

    def _read(self, before: Tensor, mask: Tensor) -> Any:
        before, mask = before.to(self.adapter.device), mask.to(self.adapter.device)
        return self.adapter.decoder(
            input_ids=before, attention_mask=mask, use_cache=True, **self._positions(mask, 0)
        ).past_key_values

    def _run(self, past: Any) -> Tensor:
        begun = self._mask.shape[1] - self._ids.shape[1]
        given = {} if past is None else {"past_key_values": past}
        states: Tensor = self.adapter.decoder(
            input_ids=self._ids,
            attention_mask=self._mask,
            use_cache=past is not None,
            **given,
            **self._positions(self._mask, begun),
        )[0]
        return states

    def _positions(self, mask: Tensor, begun: int) -> dict[str, Tensor]:
        """Each token's place in its text, padding not counted, for hosts that can be told."""
        if "position_ids" not in inspect.signature(self.adapter.decoder.forward).parameters:
            return {}
        return {"position_ids": (mask.cumsum(1) - 1).clamp(min=0)[:, begun:]}


def _padded_before(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """(rows, time) ids with padding in front, and which of them are real."""
    ids, mask = padded([row[::-1] for row in rows])
    return ids.flip(1), mask.flip(1)
