"""The text memory: finds the facts that a question may be about and puts them into the prompt."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Self

import numpy as np
import torch
from torch import nn

from engram_transformers.errors import BadInput, MissingExtra
from engram_transformers.memories.shared.encoders import open_encoder
from engram_transformers.memories.text.compose import with_context, with_examples
from engram_transformers.memories.text.config import TextConfig
from engram_transformers.memory import Tensors
from engram_transformers.models.adapter import Adapter, Place
from engram_transformers.models.tokens import Form, HostTokens, Talk
from engram_transformers.routing.meaning import Encoder
from engram_transformers.types import Candidate, Fact, Firing


class Text(nn.Module):
    """Facts that a host reads before it answers; nothing acts inside the host.

    It changes what `ask` gives the host to read. Token ids that a caller hands to the host
    himself are left as they are.
    """

    Config = TextConfig

    def __init__(self, config: TextConfig, *, encoder: Encoder, form: Form) -> None:
        super().__init__()
        if config.mode not in ("retrieval", "examples", "oracle"):
            raise BadInput(f"mode is {config.mode!r}; use 'retrieval', 'examples' or 'oracle'")
        if config.top_k < 1:
            raise BadInput(f"top_k is {config.top_k}; at least one fact has to be put in")
        self.config, self.encoder, self.form = config, encoder, form
        self.index = Index()
        self._facts: dict[str, Fact] = {}
        self._asked: dict[str, str] = {}
        "Ids of facts by the wordings that are known to ask for them."

    @classmethod
    def open(cls, adapter: Adapter, tokens: HostTokens, config: TextConfig) -> Self:
        """An empty memory for a host, with the encoder that its configuration names."""
        encoder = open_encoder(
            config.encoder, adapter=adapter, tokens=tokens, written_by=config.encoder_print
        )
        config = replace(config, encoder_print=encoder.fingerprint)
        return cls(config, encoder=encoder, form=tokens.ask_form)

    def __len__(self) -> int:
        return len(self._facts)

    def __contains__(self, id: str) -> bool:
        return id in self._facts

    def places(self, adapter: Adapter) -> Mapping[Place, nn.Module]:
        """A text memory acts at no place in the host."""
        return {}

    # -- writing ---------------------------------------------------------------------------

    def write(self, facts: Sequence[Fact], *, refine: bool = True) -> list[Tensors]:
        """For each fact ``vectors`` float16 (questions, size): where retrieval finds it."""
        questions = [question for fact in facts for question in fact.questions]
        vectors = torch.from_numpy(self.encoder.encode(questions)).half()
        sizes = [len(fact.questions) for fact in facts]
        return [{"vectors": part.clone()} for part in torch.split(vectors, sizes)]

    def add(self, facts: Iterable[tuple[str, Fact, Tensors]]) -> None:
        """Add facts (id, fact, delta) to what can be found."""
        for id, fact, delta in facts:
            self._facts[id] = fact
            self.index.add(id, delta["vectors"].float().numpy())
            self._asked |= dict.fromkeys(fact.questions, id)

    def remove(self, ids: Iterable[str]) -> None:
        """Take facts out again, exactly."""
        for id in ids:
            fact = self._facts.pop(id)
            self.index.remove(id)
            for question in fact.questions:
                if self._asked.get(question) == id:
                    del self._asked[question]

    # -- reading ---------------------------------------------------------------------------

    def compose(self, questions: Sequence[str], *, form: Form) -> list[Talk]:
        """Each question behind the facts that may answer it."""
        put = with_examples if self.config.mode == "examples" else with_context
        found = self._found(questions)
        return [put(q, facts, form=form) for q, facts in zip(questions, found, strict=True)]

    def tell(self, asked: Mapping[str, str]) -> None:
        """Let the oracle know which fact (id) other wordings ask for."""
        self._asked |= {text: id for text, id in asked.items() if id in self._facts}

    def explain(self, text: str) -> Firing:
        """Which facts are put into the prompt of this question, the best one named."""
        near = self._near([text])[0]
        candidates = tuple(
            Candidate(id, self._facts[id].prompt, round(score, 4), score) for id, score in near
        )
        if self.config.mode == "oracle":
            id = self._asked.get(text)
            reason = "this wording is known" if id else "no fact is known by this wording"
            return Firing(id is not None, id, "exact" if id else None, float(bool(id)), reason)
        if not candidates:
            return Firing(False, None, None, 0.0, "nothing is near enough to be put in")
        reason = f"{len(candidates)} nearest facts are put into the prompt"
        return Firing(True, candidates[0].fact, "meaning", near[0][1], reason, candidates)

    def _found(self, questions: Sequence[str]) -> list[list[Fact]]:
        if self.config.mode == "oracle":
            ids = [self._asked.get(question) for question in questions]
            return [[self._facts[id]] if id else [] for id in ids]
        return [[self._facts[id] for id, _ in near] for near in self._near(questions)]

    def _near(self, questions: Sequence[str]) -> list[list[tuple[str, float]]]:
        if not self._facts or self.config.mode == "oracle":
            return [[] for _ in questions]
        ranked = self.index.nearest(self.encoder.encode(questions), self.config.top_k)
        return [[one for one in near if one[1] >= self.config.least] for near in ranked]


class Index:
    """Vectors of the facts' wordings in a flat faiss index: exact search by inner product."""

    def __init__(self) -> None:
        self._index: Any = None
        self._owner: dict[int, str] = {}
        self._numbers: dict[str, list[int]] = {}
        self._unused = itertools.count()

    def add(self, id: str, vectors: np.ndarray[Any, Any]) -> None:
        """Add a fact's vectors (wordings, size)."""
        if self._index is None:
            faiss = _faiss()
            self._index = faiss.IndexIDMap2(faiss.IndexFlatIP(vectors.shape[1]))
        numbers = [next(self._unused) for _ in vectors]
        self._index.add_with_ids(np.ascontiguousarray(vectors), np.array(numbers))
        self._numbers[id] = numbers
        self._owner |= dict.fromkeys(numbers, id)

    def remove(self, id: str) -> None:
        """Take a fact's vectors out."""
        numbers = self._numbers.pop(id)
        self._index.remove_ids(np.array(numbers))
        for number in numbers:
            del self._owner[number]

    def nearest(self, queries: np.ndarray[Any, Any], count: int) -> list[list[tuple[str, float]]]:
        """For each query (n, size), the nearest facts with their similarity, best first."""
        # A fact with many wordings must not crowd out the others.
        deepest = max(map(len, self._numbers.values()))
        wide = min(len(self._owner), count * deepest)
        scores, numbers = self._index.search(np.ascontiguousarray(queries), wide)
        return [self._best(*row, count=count) for row in zip(scores, numbers, strict=True)]

    def _best(self, scores: Any, numbers: Any, *, count: int) -> list[tuple[str, float]]:
        best: dict[str, float] = {}
        for score, number in zip(scores.tolist(), numbers.tolist(), strict=True):
            best.setdefault(self._owner[number], score)
        return list(best.items())[:count]


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise MissingExtra(
            "the text memory searches with faiss, which is not installed. "
            "Run: pip install 'engram-transformers[text]'"
        ) from error
    return faiss
