"""MEMOIR: facts written beside one feed-forward layer, spoken when a prompt has an edit's mask."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Self, get_args, get_origin, get_type_hints

import numpy as np
import torch
from torch import Tensor, nn

from engram_transformers.errors import BadInput, MemoryFull, MissingExtra, StoreDamaged
from engram_transformers.memories.memoir.bits import Words, pack, unpack, width
from engram_transformers.memories.memoir.calibration import Usual, fingerprinter_for, usual_of
from engram_transformers.memories.memoir.config import MemoirConfig
from engram_transformers.memories.memoir.passes import Batch, Passes
from engram_transformers.memories.memoir.payload import OwnValues, Payload, SharedMatrix
from engram_transformers.memories.memoir.places import features_at, place_for
from engram_transformers.memories.memoir.reading import Acting, Answer, Reader
from engram_transformers.memories.memoir.retrieval import Retrieval, Retriever
from engram_transformers.memories.memoir.texts import batches, learnt_from, prefix_of
from engram_transformers.memories.memoir.write import (
    ClosedForm,
    Pace,
    Slots,
    answers_in,
    as_published,
    by_gradient,
    in_matrix,
)
from engram_transformers.memories.shared.encoders import open_encoder
from engram_transformers.memories.shared.layout import by_rows
from engram_transformers.memory import Row, Signal, Tensors
from engram_transformers.models.adapter import Adapter, Place
from engram_transformers.models.tokens import HostTokens
from engram_transformers.routing.meaning import Array, Decision, MeaningAddress
from engram_transformers.types import Candidate, Fact, Firing

_numbers = itertools.count(1)
"Of memories and their versions: a copy that is taught otherwise never shares one."


@dataclass(frozen=True)
class _Kept:
    """An edit that the memory holds."""

    id: str
    mask: Words
    "(words,): of its prompt."
    answers: tuple[Answer, ...]


class Memoir(nn.Module):
    """Edits of one host, beside the feed-forward of one of its blocks.

    Args:
        usual: what prompts look like to the host on average, and how alike they are.
        meaning: what compares questions by a sentence encoder, if anything does.
    """

    Config = MemoirConfig

    def __init__(
        self,
        config: MemoirConfig,
        *,
        adapter: Adapter,
        tokens: HostTokens,
        passes: Passes,
        usual: Usual,
        meaning: MeaningAddress | None = None,
    ) -> None:
        super().__init__()
        self.config, self.adapter, self.tokens = config, adapter, tokens
        self.passes, self.place = passes, passes.place
        self.fingerprinter = fingerprinter_for(usual.mean, top_k=config.top_k, seed=config.seed)
        how = Retrieval(_threshold(config, usual), usual.chance, config.match != "mask")
        self.meaning = meaning
        self.retriever = Retriever(
            self.fingerprinter, tokens.tokenizer.get_vocab(), how, meaning=meaning
        )
        self.reader = Reader(
            tokens,
            find=self.retriever.decide,
            answers=self.answers,
            activations=passes.activations,
        )
        self.payload: Payload = _payload(config, adapter, usual)
        self.pace = Pace(config.steps, config.learning_rate, config.target)
        self.closed_form = ClosedForm(passes) if config.method == "closed_form" else None
        self.number, self.version = next(_numbers), next(_numbers)
        self._facts: dict[int, _Kept] = {}
        self._edits: dict[str, int] = {}
        self._unused = itertools.count()

    @classmethod
    def open(cls, adapter: Adapter, tokens: HostTokens, config: MemoirConfig) -> Self:
        """An empty memory for a host, calibrated to it unless the configuration says how it is."""
        _check(config, blocks=len(adapter.layers))
        config, meaning = _matched(config, adapter, tokens)
        place = place_for(adapter, tokens, layer=config.layer, name=config.place)
        passes = Passes(adapter, place, prefix=prefix_of(tokens))
        if config.host_usual is None:
            usual = usual_of(passes, tokens, top_k=config.top_k, seed=config.seed)
        else:
            usual = Usual.read(config.host_usual, features=features_at(adapter, place))
        config = replace(
            config,
            place="mlp_out" if place.name == "mlp_out" else "block_out",
            host_usual=usual.written(),
            threshold=_threshold(config, usual),
        )
        return cls(
            config, adapter=adapter, tokens=tokens, passes=passes, usual=usual, meaning=meaning
        )

    def __len__(self) -> int:
        return len(self._facts)

    def __contains__(self, id: str) -> bool:
        return id in self._edits

    # -- acting ----------------------------------------------------------------------------

    def places(self, adapter: Adapter) -> Mapping[Place, nn.Module]:
        """It acts at one place: beside a feed-forward, or beside a block."""
        return {adapter.place(self.place.name, self.place.layer): self}

    def forward(self, x: Tensor, y: Tensor, signal: Signal) -> Tensor:
        """Add what edits wrote to `y` (batch, time, hidden), at the tokens where they act."""
        if not self._facts:
            return y
        inputs, out = by_rows(x, len(signal.rows)), y
        before = signal.carried.get(self.number) or [None] * len(signal.rows)
        progress = []
        for b, (row, past) in enumerate(zip(signal.rows, before, strict=True)):
            columns = torch.from_numpy(row.columns).to(x.device)
            acting, now = self.reader.read(
                row, inputs[b].index_select(0, columns).detach(), past, version=self.version
            )
            progress.append(now)
            for one in acting:
                out = self._acted(out, inputs, one, row=row, b=b, rows=len(signal.rows))
        signal.carried[self.number] = progress
        return out

    def _acted(
        self, out: Tensor, inputs: Tensor, acting: Acting, *, row: Row, b: int, rows: int
    ) -> Tensor:
        at = torch.from_numpy(row.columns[acting.first - row.start : acting.end - row.start])
        at = at.to(out.device)
        added = self.payload.added(acting.edit, inputs[b, at], acting.slots).to(out)
        lined = by_rows(out, rows)
        where = (torch.full_like(at, b), at)
        return lined.index_put(where, lined[where] + added).view(out.shape)

    def answers(self, edit: int) -> tuple[Answer, ...]:
        """The ways in which an edit's answer is written."""
        return self._facts[edit].answers

    # -- learning --------------------------------------------------------------------------

    def write(self, facts: Sequence[Fact], *, refine: bool = True) -> list[Tensors]:
        """The deltas that would teach these facts; changes nothing.

        Args:
            refine: mend what the closed form does not lift far enough.
        """
        texts = [learnt_from(fact, self.tokens, prefixes=self.config.prefixes) for fact in facts]
        payload = self.payload
        shared = payload.weight.clone() if isinstance(payload, SharedMatrix) else None
        deltas = [
            self._written(batch, len(fact.questions), shared=shared, refine=refine)
            for fact, batch in zip(facts, batches(self.passes, texts), strict=True)
        ]
        if self.meaning is not None:
            for delta, vectors in zip(deltas, self.meaning.encode_facts(facts), strict=True):
                delta["vectors"] = torch.from_numpy(vectors).half()
        return deltas

    def add(self, facts: Iterable[tuple[str, Fact, Tensors]]) -> None:
        """Add facts (id, fact, delta) to what the memory knows."""
        new = list(facts)
        if len(self) + len(new) > self.config.max_edits:
            raise MemoryFull(
                f"the memory holds {len(self)} edits and max_edits is {self.config.max_edits}; "
                "forget some, or make a larger one"
            )
        self.version = next(_numbers)
        for id, fact, delta in new:
            masks, vectors = self._masks(fact, delta), self._vectors(delta)
            answers = answers_in(delta)
            edit = self._edits[id] = next(self._unused)
            self._facts[edit] = _Kept(id, masks[0], answers)
            self.payload.add(edit, self.mask_of(id).nonzero()[:, 0], delta)
            self.retriever.add(edit, fact, masks, vectors)

    def remove(self, ids: Iterable[str]) -> None:
        """Take facts out again, exactly."""
        self.version = next(_numbers)
        for id in ids:
            edit = self._edits.pop(id)
            del self._facts[edit]
            self.payload.remove(edit)
            self.retriever.remove(edit)

    def mask_of(self, edit_id: str) -> Tensor:
        """(features,) of ones and zeros: the columns of an edit."""
        words = self._facts[self._edits[edit_id]].mask
        return unpack(words[None], self.fingerprinter.hidden_size)[0]

    def _masks(self, fact: Fact, delta: Tensors) -> Words:
        """(questions, words) of a delta; `StoreDamaged` where some are missing."""
        found = delta.get("masks")
        wanted = (len(fact.questions), width(self.fingerprinter.hidden_size))
        if found is None or tuple(found.shape) != wanted:
            shape = None if found is None else tuple(found.shape)
            raise StoreDamaged(
                f"the masks of {fact.prompt!r} are {shape}, and {wanted} are needed; restore the "
                "memory from a copy, or export its facts and teach them to a new one"
            )
        return found.numpy().view(np.uint64)

    def _vectors(self, delta: Tensors) -> Array | None:
        """(questions, size) of a delta where an encoder compares them."""
        if self.meaning is None:
            return None
        if "vectors" not in delta:
            raise StoreDamaged(
                "an edit lacks its vectors; restore the memory from a copy, or export its facts "
                "and teach them to a new one"
            )
        return delta["vectors"].float().numpy()

    def _written(
        self, batch: Batch, questions: int, *, shared: Tensor | None, refine: bool
    ) -> Tensors:
        means = self.passes.means(batch)[:questions]
        masks = self.fingerprinter.generate_mask(means).bool().cpu()
        slots = Slots.in_batch(batch, self.tokens)
        delta = {"masks": torch.from_numpy(pack(masks).view(np.int64)), **slots.packed()}
        if shared is not None:
            return delta | self._written_shared(batch, masks[0].nonzero()[:, 0], shared)
        return delta | {"values": self._values(batch, slots, refine=refine).cpu()}

    def _values(self, batch: Batch, slots: Slots, *, refine: bool) -> Tensor:
        closed = self.closed_form
        if closed is None:
            return by_gradient(self.passes, batch, slots, self.pace)
        values = closed.values(batch.stream, slots)
        return closed.refined(batch, slots, values) if refine else values

    def _written_shared(self, batch: Batch, columns: Tensor, shared: Tensor) -> Tensors:
        """What an edit writes to the shared matrix, which is changed: the next one comes on top."""
        keys = batch.keys[:, columns.to(batch.x.device)]
        start, decay = shared[:, columns].to(keys.device), 1.0
        if self.config.method == "published":
            weight, decay = as_published(self.passes, batch, start, keys, self.pace)
        else:
            weight = in_matrix(self.passes, batch, start, keys, self.pace)
        written = (weight - decay * start).cpu()
        shared *= decay
        shared[:, columns] += written
        return {"written": written, "decay": torch.tensor([decay], dtype=torch.float64)}

    # -- explaining ------------------------------------------------------------------------

    def explain(self, text: str) -> Firing:
        """Which edit speaks when a user asks this, what its mask shares, and what else is near."""
        return self.explain_ids(self.tokens.prompt_ids(text, form=self.tokens.ask_form))

    def explain_ids(self, ids: Sequence[int]) -> Firing:
        """Which edit speaks at the end of a prompt of these tokens."""
        array = np.array(ids)
        row = Row(array, 0, np.arange(len(array)), prompt_end=len(array))
        decision = self.reader.decision(row)
        return self._firing(decision)

    def _firing(self, decision: Decision) -> Firing:
        ranking = decision.ranking
        candidates = tuple(
            Candidate(self._facts[one.value].id, one.question, one.similarity, one.probability)
            for one in ranking
        )
        overlap = next((o.similarity for o in ranking if o.value == decision.value), None)
        best = max((one.similarity for one in ranking), default=0.0)
        shown = best if overlap is None else overlap
        reason = (
            f"{decision.reason}; masks share {shown:.2f}, "
            f"and {self.retriever.how.threshold:.2f} is the least"
        )
        if decision.value is None:
            return Firing(False, None, None, best, reason, candidates)
        return Firing(True, self._facts[decision.value].id, "mask", shown, reason, candidates)


def _payload(config: MemoirConfig, adapter: Adapter, usual: Usual) -> Payload:
    if not config.shared:
        return OwnValues()
    return SharedMatrix(adapter.hidden_size, len(usual.mean))


def _matched(
    config: MemoirConfig, adapter: Adapter, tokens: HostTokens
) -> tuple[MemoirConfig, MeaningAddress | None]:
    """The configuration with how questions are matched, and what compares them by meaning."""
    if config.match not in (None, "meaning"):
        return config, None
    try:
        encoder = open_encoder(
            "minilm", adapter=adapter, tokens=tokens, written_by=config.encoder_print
        )
    except MissingExtra:
        if config.match is not None:
            raise
        return replace(config, match="words"), None
    config = replace(config, match="meaning", encoder_print=encoder.fingerprint)
    return config, MeaningAddress(encoder)


def _threshold(config: MemoirConfig, usual: Usual) -> float:
    if config.threshold is not None:
        return config.threshold
    return usual.threshold(config.match)


def _check(config: MemoirConfig, *, blocks: int) -> None:
    """Raise `BadInput` for options that no memory can be made with."""
    for name, able in get_type_hints(MemoirConfig).items():
        value, either = getattr(config, name), (able, *get_args(able))
        words = [word for one in either if get_origin(one) is Literal for word in get_args(one)]
        if words and value is not None and value not in words:
            raise BadInput(f"{name} is {value!r}; use {' or '.join(map(repr, words))}")
    for name, value, fits in (
        ("top_k", config.top_k, config.top_k is None or config.top_k >= 1),
        ("threshold", config.threshold, config.threshold is None or 0 <= config.threshold <= 1),
        ("target", config.target, 0 < config.target < 1),
        ("steps", config.steps, config.steps >= 1),
        ("learning_rate", config.learning_rate, config.learning_rate > 0),
        ("prefixes", config.prefixes, config.prefixes >= 0),
        ("max_edits", config.max_edits, config.max_edits >= 1),
    ):
        if not fits:
            raise BadInput(f"{name} is {value}, which makes no memory; docs/memories/memoir.md")
    if config.method == "closed_form" and config.layer not in (-1, blocks - 1):
        raise BadInput(
            "method='closed_form' writes what the head reads, so layer has to be the last, -1, not "
            f"{config.layer}. Use method='gradient' there."
        )
    if config.shared and config.method == "closed_form":
        raise BadInput("a matrix for all edits has no closed form; use method='gradient'")
    if config.method == "published" and not config.shared:
        raise BadInput("method='published' trains one matrix for all; use shared=true")
