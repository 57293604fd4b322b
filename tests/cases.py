"""The laws matrix: every memory, and every architecture that it is tried on.

Another memory is one more `Case`: how to make it for a host, and prompts on which it speaks once
it is taught `FACTS`, and on which it does not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, cast

import numpy as np
import torch

from engram_transformers.api import Host
from engram_transformers.memories.lookup import Lookup, LookupConfig
from engram_transformers.memories.memoir import Memoir, MemoirConfig
from engram_transformers.memories.shared.address import QuestionAddress
from engram_transformers.memory import Expecting
from engram_transformers.registry import memory_class
from engram_transformers.routing.meaning import Decision, Judged
from engram_transformers.types import Fact, HostIdentity
from hosts import tiny, tiny_tokenizer

PORT = Fact("Which port does billing use?", "8443")
REPORT = Fact("Who wrote the report?", "Ada Lovelace of London")
# Begins like the answer before: after `Ada` only the question tells them apart.
LETTER = Fact("Who wrote the letter?", "Ada Byron, née King")
DOOR = Fact("What colour is the door?", "green", paraphrases=("Tell me the door's colour.",))
FACTS = (PORT, REPORT, LETTER, DOOR)
SILENT = ("How far is the station?", "Which port does mailing use?", "Seven miles. Who", "A b")

ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "qwen3": ("qwen3", {}),
    "mistral": ("mistral", {}),
    "mistral-sliding": ("mistral", {"sliding_window": 8}),
    "gemma2": ("gemma2", {"sliding_window": 8}),
    "gpt2": ("gpt2", {}),
    "gpt_neox": ("gpt_neox", {}),
    "phi": ("phi", {}),
    "olmo2": ("olmo2", {}),
    "mixtral": ("mixtral", {}),
}
FEW = ("llama", "gemma2", "gpt2")
"Where a law is about our own code and not about the host's."
VALUED = ("llama", "mistral-sliding", "gpt2")
"Where a value in one block can say anything; Gemma 2 norms what its feed-forwards give."


@dataclass(frozen=True)
class Case:
    """A memory in the matrix."""

    make: Callable[[Host], Any]
    fires: tuple[tuple[str, str], ...]
    "Questions with the answers that the memory gives once it is taught `FACTS`."
    architectures: tuple[str, ...] = tuple(ARCHITECTURES)
    "Where it is tried; a variant that meets the host at the same place needs fewer."
    by_words: bool = True
    "Whether a question is known by its words; if not, by what the host makes of all that it reads."
    certain: bool = True
    "Whether a sampled answer is right too; what passes the final norm has bounded logits."
    crops: bool = True
    "Whether a question into which a cache was cropped is read again."


class WordOverlap:
    """An address by meaning that needs no encoder: most words in common, if enough."""

    def __init__(self) -> None:
        self.questions: dict[int, tuple[str, ...]] = {}

    def encode_facts(self, facts: Sequence[Fact]) -> list[np.ndarray]:
        return [np.zeros((len(fact.questions), 2, 1), np.float32) for fact in facts]

    def add(self, value: int, fact: Fact, vectors: np.ndarray) -> None:
        self.questions[value] = fact.questions

    def remove(self, value: int) -> None:
        del self.questions[value]

    def decide(self, texts: Iterable[str]) -> dict[str, Decision]:
        return {text: self._decide(text) for text in texts}

    def _decide(self, text: str) -> Decision:
        shares = [
            Judged(value, question, _overlap(text, question), _overlap(text, question))
            for value, questions in self.questions.items()
            for question in questions
        ]
        ranking = tuple(sorted(shares, key=lambda one: -one.probability))
        near = bool(ranking) and ranking[0].probability >= 0.7
        return Decision(ranking[0].value if near else None, "words in common", ranking)


def _overlap(a: str, b: str) -> float:
    one, other = ({w.strip("?.,:!").lower() for w in text.split()} for text in (a, b))
    return len(one & other) / max(1, len(one | other))


def _exact(host: Host) -> Lookup:
    return Lookup(LookupConfig(address="exact"), adapter=host.adapter, tokens=host.tokens)


def _by_meaning(host: Host) -> Lookup:
    meaning: Any = WordOverlap()
    return Lookup(LookupConfig(), adapter=host.adapter, tokens=host.tokens, meaning=meaning)


@cache
def _calibrated(architecture: str, method: str) -> MemoirConfig:
    """A configuration with what calibrating found out, which is done once a host."""
    host = host_of(architecture)
    # Tiny hosts have hardly more columns than an answer has tokens; and to an untrained one two
    # questions that differ in a word are much alike.
    config = MemoirConfig(method=method, match="words", top_k=32, threshold=0.93, steps=30)
    return Memoir.open(host.adapter, host.tokens, config).config


def _memoir(method: str) -> Callable[[Host], Memoir]:
    def make(host: Host) -> Memoir:
        config = _calibrated(host.identity.id, method)
        return Memoir.open(host.adapter, host.tokens, config)

    return make


_TAUGHT = tuple((question, fact.answer) for fact in FACTS for question in fact.questions)
CASES: dict[str, Case] = {
    "lookup-exact": Case(_exact, _TAUGHT),
    "lookup-meaning": Case(
        _by_meaning,
        (
            ("which port does BILLING use", "8443"),
            ("the report: who wrote?", "Ada Lovelace of London"),
            ("Who wrote the letter", "Ada Byron, née King"),
            ("what is the colour, the door?", "green"),
        ),
        architectures=("llama", "mistral-sliding", "gemma2"),
    ),
    "memoir": Case(_memoir("closed_form"), _TAUGHT, by_words=False, certain=False),
    "memoir-gradient": Case(
        _memoir("gradient"), _TAUGHT, ("llama", "gemma2"), by_words=False, certain=False
    ),
}


def _codebook(kind: str, **options: Any) -> Callable[[Host], Any]:
    """A codebook whose values stand in the last block, so that one speaks for each token alone."""
    cls = memory_class(kind)
    config = cls.Config(layer=-1, values="each", end=True, steps=60, enough=0.9, **options)

    def make(host: Host) -> Any:
        memory = cls.open(host.adapter, host.tokens, config)
        memory.write = partial(_written_once, memory, memory.write)
        return memory

    return make


_deltas: dict[Any, list[Any]] = {}


def _written_once(memory: Any, write: Any, facts: Sequence[Fact]) -> list[Any]:
    """What an empty memory writes is the same every time, and takes its time."""
    key = (memory.config, memory.adapter.model.config.model_type, tuple(facts))
    if len(memory):
        return write(facts)
    if key not in _deltas:
        _deltas[key] = write(facts)
    return _deltas[key]


CASES |= {
    "grace": Case(_codebook("grace", radius=0.05), _TAUGHT, VALUED, False, False, False),
    "horen": Case(_codebook("horen", threshold=0.999), _TAUGHT, VALUED, False, False, False),
}


_ENGRAM: dict[str, Any] = {"layers": (0, 1), "heads": 2, "width": 6}
_IMPLICIT: dict[str, Any] = {"layers": (0, 1), "slots": 5, "width": 6, "chunk": 4, "writes": 2}
TRAINED: dict[str, dict[str, Any]] = {
    "lora": {"rank": 4},
    "gated_lora": {"rank": 4, "threshold": 0.01, "rehearse": 4},
    "fine_tune": {},
    "bottleneck": {"width": 16},
    "bias": {},
    "engram": {**_ENGRAM, "rows": 40},
    "engram+conv": {**_ENGRAM, "rows": 40, "conv": True, "layout": "deepseek-v4.1"},
    "engram+span": {**_ENGRAM, "layout": "span"},
    "implicit": {**_IMPLICIT},
}
"Trained kinds with the options that they are tried with, and variants; facts share tensors."
QUIET = ("engram+span", "gated_lora")
"Those that act on taught questions only."
RANK_ONE: dict[str, dict[str, Any]] = {
    "rome": {"layers": (0,)},
    "memit": {"layers": (0, 1), "method": "memit"},
    "alphaedit": {"layers": (-1,), "method": "alphaedit", "null": 0.5},
}
"Ways to solve for rank-one edits: facts that can be forgotten, in a memory that is never silent."
INJECTED: dict[str, tuple[str, dict[str, Any]]] = {
    "soft_prompt": ("soft_prompt", {"slots": 6, "steps": 4}),
    "keys_values": ("activation", {"way": "keys_values"}),
    "raw": ("activation", {"way": "raw", "layer": 0}),
    "chunks": ("activation", {"way": "chunks", "layer": 0, "slots": 3}),
    "last": ("activation", {"way": "last"}),
    "mean": ("activation", {"way": "mean"}),
    "add": ("activation", {"way": "add", "layer": 0}),
    "patch": ("activation", {"way": "patch"}),
}
"Memories of vectors: each a kind with its options. What hosts make of states is not to be known."


@cache
def host_of(architecture: str) -> Host:
    """The tiny host of an architecture, the same object every time: tests leave it as it was."""
    name, changes = ARCHITECTURES[architecture]
    model = tiny(name, **changes)
    return Host(model, tiny_tokenizer(), HostIdentity(architecture, architecture))


def teach(memory: Any, facts: Sequence[Fact] = FACTS) -> list[str]:
    """Write and apply facts without any directory; their ids."""
    deltas = memory.write(facts)
    memory.add((fact.id, fact, delta) for fact, delta in zip(facts, deltas, strict=True))
    return [fact.id for fact in facts]


def fresh(kind: str, host: Host, **options: Any) -> Any:
    """A trained memory that has not been trained yet."""
    cls = memory_class(kind_of(kind))
    memory = cls.open(host.adapter, host.tokens, cls.Config(**{**TRAINED[kind], **options}))
    if isinstance(memory, Expecting):
        memory.expect(FACTS)
    return memory


def kind_of(variant: str) -> str:
    """The kind of a variant that `TRAINED` names."""
    return variant.partition("+")[0]


@torch.no_grad()
def disturb(memory: Any, *, seed: int = 0) -> Any:
    """Give a trained memory tensors as if it had been trained; the memory."""
    noise = torch.Generator().manual_seed(seed)
    for parameter in memory.parameters():
        parameter.add_(0.1 * torch.randn(parameter.shape, generator=noise))
    return memory


def injected(variant: str, host: Host) -> Any:
    """A memory of vectors that knows nothing yet, and finds facts by words in common."""
    kind, options = INJECTED[variant]
    cls, meaning = memory_class(kind), cast(Any, WordOverlap())
    return cls(
        cls.Config(**options),
        adapter=host.adapter,
        tokens=host.tokens,
        address=QuestionAddress(meaning),
    )


def edited(method: str, host: Host) -> Any:
    """A rank-one memory that knows nothing yet, and looks for values only briefly."""
    cls = memory_class("rank_one")
    options = {"tokens": 200, "steps": 2, "wordings": 2, "lookalikes": 3, **RANK_ONE[method]}
    return cls.open(host.adapter, host.tokens, cls.Config(**options))
