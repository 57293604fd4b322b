"""What the bare host makes of a prompt, asked amid a call in which memories act."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engram_transformers.attaching import silenced
from engram_transformers.models.adapter import Adapter, Place
from engram_transformers.models.encoder import hidden_after, inputs_at
from engram_transformers.models.late import all_blocks

Ids = NDArray[np.int64]


@dataclass(frozen=True)
class SilencedHost:
    """Reads prompts one by one, without padding or memory: the same bits every time."""

    adapter: Adapter

    def state(self, prompt: Ids, layer: int) -> Tensor:
        """(hidden,) in float32: the state of the prompt's last token behind a block."""
        with self._bare():
            ids = self._ids(prompt)
            return hidden_after(self.adapter, layer, ids, torch.ones_like(ids))[0, -1].float()

    def inputs(self, prompt: Ids, place: Place) -> Tensor:
        """(tokens, width) in float32: what the module at a place is given."""
        with self._bare():
            ids = self._ids(prompt)
            return inputs_at(self.adapter, place, ids, torch.ones_like(ids))[0].float()

    def written(self, prompt: Ids, *, tokens: int, stop: int | None) -> list[float]:
        """The probability of each token that it writes greedily, `tokens` at most, `stop` last."""
        found: list[float] = []
        with self._bare():
            ids, past = self._ids(prompt), None
            while True:
                out = self.adapter.decoder(input_ids=ids, past_key_values=past, use_cache=True)
                past = out.past_key_values
                top = torch.softmax(self.adapter.logits(out[0][:, -1])[0].float(), -1).max(dim=0)
                found.append(float(top.values))
                if len(found) == tokens or int(top.indices) == stop:
                    return found
                ids = top.indices.view(1, 1)

    def _ids(self, prompt: Ids) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(prompt))[None].to(self.adapter.device)

    @contextmanager
    def _bare(self) -> Iterator[None]:
        with torch.no_grad(), silenced(self.adapter.model), all_blocks(self.adapter):
            yield
