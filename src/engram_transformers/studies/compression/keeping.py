"""Ways to keep no more of a passage than a budget: caches that questions are asked behind."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from engram_transformers.api import Host
from engram_transformers.errors import BadInput
from engram_transformers.memories.shared.behind import Steps
from engram_transformers.memories.shared.encoders import open_encoder
from engram_transformers.memories.shared.soft import Lesson, start, train, usual_norm
from engram_transformers.memories.shared.vectors import chunks, to_norm
from engram_transformers.models.trace import Patch, Spots, patched, place_states
from engram_transformers.studies.compression.options import TRAINED, Options
from engram_transformers.studies.compression.passages import Passage
from engram_transformers.studies.injection.asking import Asking
from engram_transformers.types import Told

OPENING = "Passage:"
"Stands before what is kept, in every way."
SINKS = 4
"First tokens that a compacted cache keeps in any case: attention rests on them."
PLACEHOLDER = 0


class Reader:
    """Reads passages into a host, whole and compressed."""

    def __init__(self, host: Host, options: Options) -> None:
        self.host, self.adapter, self.tokens, self.options = (
            host, host.adapter, host.tokens, options,
        )  # fmt: skip
        self.opening = host.tokens.encode(OPENING)
        self._states: dict[tuple[int, int], Tensor] = {}
        self._whole: tuple[int, Asking] | None = None

    def ids(self, text: str) -> list[int]:
        return self.tokens.encode(f" {text.strip()}")

    def nothing(self) -> Asking:
        return self._asking(self.opening)

    def whole(self, passage: Passage) -> Asking:
        """Behind all of the passage; `BadInput` where the host cannot read so much."""
        if self._whole is None or self._whole[0] != passage.number:
            ids = [*self.opening, *self.ids(passage.text)]
            longest = self.adapter.max_length()
            if longest is not None and len(ids) + 64 > longest:
                raise BadInput(
                    f"passage {passage.number} has {len(ids)} tokens, and this host reads "
                    f"{longest}; use another host"
                )
            self._whole = passage.number, self._asking(ids)
        return self._whole[1]

    def kept(self, way: str, passage: Passage, budget: int, told: Told) -> tuple[Asking, int]:
        """Behind what a way keeps of a passage, and how much that is."""
        count = min(budget, len(self.ids(passage.text)))
        if way == TRAINED:
            return self.slots(self._trained(passage, count, told)), count
        if way.startswith("hidden"):
            layer = self.options.early if way.endswith("early") else self.options.late
            vectors = chunks(self._read(passage, layer), count)
            return self.slots(to_norm(vectors, usual_norm(self.adapter))), count
        if way.startswith("cached"):
            pick = evenly if way.endswith("evenly") else least_norm
            return self._compacted(passage, count, pick), count
        ids = self._shortened(way, passage, count)
        return self._asking([*self.opening, *ids]), len(ids)

    @torch.no_grad()
    def slots(self, vectors: Tensor) -> Asking:
        """Behind vectors (n, hidden) that the first block is given."""
        ids = [*self.opening, *[PLACEHOLDER] * len(vectors)]
        at = range(len(self.opening), len(ids))
        place = self.adapter.place("block_in", 0)
        with patched([Patch(place, Spots.of([(0, i) for i in at]), vectors)]):
            return self._asking(ids)

    def _asking(self, ids: Sequence[int]) -> Asking:
        return Asking(self.adapter, self.tokens, ids)

    # -- text ------------------------------------------------------------------------------

    def _shortened(self, way: str, passage: Passage, budget: int) -> list[int]:
        if way == "truncated text":
            return self.ids(passage.text)[:budget]
        chosen: set[int] = set()
        sizes = [len(self.ids(one)) for one in passage.sentences]
        for i in self._central(passage):
            if sum(sizes[j] for j in chosen) + sizes[i] <= budget:
                chosen.add(i)
        if not chosen:
            # Not even one sentence fits: the beginning of the most central one.
            return self.ids(passage.sentences[self._central(passage)[0]])[:budget]
        return self.ids(" ".join(passage.sentences[i] for i in sorted(chosen)))[:budget]

    def _central(self, passage: Passage) -> list[int]:
        """Sentences by how near they are to the mean of all, nearest first."""
        encoder = open_encoder("minilm", adapter=self.adapter, tokens=self.tokens, written_by=None)
        vectors = encoder.encode(passage.sentences)
        return [int(i) for i in np.argsort(-(vectors @ vectors.mean(axis=0)), kind="stable")]

    # -- states ----------------------------------------------------------------------------

    def _read(self, passage: Passage, layer: int) -> Tensor:
        """(tokens, hidden) that a block gives for a passage."""
        key = (passage.number, layer)
        if key not in self._states:
            ids = torch.tensor([[*self.opening, *self.ids(passage.text)]])
            layers = sorted({self.options.early, self.options.late, layer})
            places = [self.adapter.place("block_out", one) for one in layers]
            read = place_states(self.adapter, ids, torch.ones_like(ids), places)
            for one, states in zip(layers, read, strict=True):
                self._states[passage.number, one] = states[0, len(self.opening) :].float()
        return self._states[key]

    def _compacted(
        self, passage: Passage, budget: int, pick: Callable[[Tensor, int], Tensor]
    ) -> Asking:
        """Some positions of the whole cache, as they are: rotary phases stay those of the text."""
        whole = self.whole(passage)
        found = copy.copy(whole)
        found.read = copy.deepcopy(whole.read)
        size = len(self.opening) + budget
        for layer in found.read.layers:
            if layer.keys.shape[-2] != len(whole.head):
                raise BadInput("this host keeps a window of its cache only; use another host")
            at = pick(layer.keys[0].float(), size).to(layer.keys.device)
            layer.keys = layer.keys.index_select(-2, at).contiguous()
            layer.values = layer.values.index_select(-2, at).contiguous()
        found.head = whole.head[:size]
        found.skipped = len(whole.head) - size
        return found

    # -- training --------------------------------------------------------------------------

    def _trained(self, passage: Passage, budget: int, told: Told) -> Tensor:
        """(budget, hidden) from which the host can write stretches of the passage."""
        options, ids = self.options, self.ids(passage.text)
        draw = np.random.default_rng([options.seed, passage.number])
        window = min(options.window, len(ids) - 1)
        begins = draw.integers(0, len(ids) - window, size=options.steps)
        # A stretch is the answer to its own first tokens.
        cue = max(1, window // 6)
        lessons = [
            Lesson(tuple(ids[b : b + cue]), tuple(ids[b + cue : b + window])) for b in begins
        ]
        begin = start(self.adapter, passage.text, slots=budget, seed=options.seed)
        steps = Steps(options.steps, options.learning_rate)
        past = self.nothing().read
        vectors = train(self.adapter, lessons, begin=begin, steps=steps, past=past).vectors
        told("training", 1, None)
        return vectors


def evenly(keys: Tensor, count: int) -> Tensor:
    """(count,) positions of keys (heads, tokens, size): the first few, and the rest spread out."""
    total = keys.shape[1]
    first = min(SINKS, count)
    rest = torch.linspace(first, total - 1, count - first).round().long()
    return torch.cat([torch.arange(first), rest])


def least_norm(keys: Tensor, count: int) -> Tensor:
    """(count,) positions whose keys are shortest, which attract attention; the first few anyway.

    After Devoto et al. 2024 (arXiv 2406.11430); heads decide together.
    """
    norms = keys.norm(dim=-1).mean(dim=0)
    norms[:SINKS] = -1
    at: Tensor = norms.topk(count, largest=False).indices
    return at.sort().values
