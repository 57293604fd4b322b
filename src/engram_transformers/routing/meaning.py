"""The address by meaning: which stored question does a text ask, if any?

A sentence encoder ranks the stored questions; the match rule judges the few nearest of them, by
their wording too, against each other and against silence.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from engram_transformers.models.tokens import last_sentence
from engram_transformers.routing.match import (
    MatchRule,
    Query,
    Stored,
    WordCounts,
    exchanged,
    explains,
    features,
    freely_worded,
    ranks_from_vocabulary,
)
from engram_transformers.routing.vectors import Vectors
from engram_transformers.types import Fact

Array = NDArray[np.float32]

REMEMBERED = 4096
"Decisions kept by what was asked: a conversation asks its earlier turns again and again."
LONGEST = 2000
"Characters of a text that are read as a question; of a longer one, the end."


class Encoder(Protocol):
    """Turns texts into unit vectors whose inner product says how near their meanings are."""

    name: str

    @property
    def fingerprint(self) -> str:
        """Tells encoders apart whose vectors must not be compared."""
        ...

    @property
    def vocabulary(self) -> Mapping[str, int]:
        """Its tokens, ordered from common to rare."""
        ...

    def encode(self, texts: Sequence[str]) -> Array:
        """(n, size) float32, rows of length one."""
        ...


@dataclass(frozen=True)
class Judged:
    """A stored question that was considered for a text."""

    value: int
    question: str
    similarity: float
    probability: float


@dataclass(frozen=True)
class Decision:
    """What a text asks: the value that it addresses, or None, and the ranking behind it."""

    value: int | None
    reason: str
    ranking: tuple[Judged, ...] = ()


@dataclass(frozen=True)
class _Entry:
    """One stored question."""

    value: int
    answer: str
    stored: Stored


class Judge:
    """Stored questions by key, and whether a text asks one of those that are near to it.

    What is near, and how near, is found by others: by an encoder, or by the host's activations.

    Args:
        vocabulary: tokens ordered from common to rare.
        threshold: the probability from which the best candidate is meant; the rule's, unless given.
        wary: whether to refuse a text that has another telling word in the place of one of a
            question whose subject was not given: for similarities that do not see words.
    """

    def __init__(
        self,
        vocabulary: Mapping[str, int],
        *,
        threshold: float | None = None,
        wary: bool = False,
    ) -> None:
        self.wary = wary
        self.rule = MatchRule.load()
        self.threshold = self.rule.threshold if threshold is None else threshold
        self.counts = WordCounts(ranks_from_vocabulary(vocabulary))
        self._entries: dict[int, _Entry] = {}
        self._keys: dict[int, list[int]] = {}
        self._next = 0

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, value: int, fact: Fact) -> list[int]:
        """Store the questions of a fact, which lead to a value; a key for each."""
        keys = list(range(self._next, self._next + len(fact.questions)))
        self._next += len(keys)
        self._keys[value] = keys
        for key, question in zip(keys, fact.questions, strict=True):
            self.counts.add(question)
            stored = Stored.of(question, fact.subject, self.counts)
            self._entries[key] = _Entry(value, fact.answer, stored)
        return keys

    def remove(self, value: int) -> list[int]:
        """Drop the questions of a value; the keys that they had."""
        keys = self._keys.pop(value)
        for key in keys:
            self.counts.remove(self._entries.pop(key).stored.text)
        return keys

    def decide(self, text: str, near: Sequence[tuple[int, float]]) -> Decision:
        """What a text asks, of candidates by key with their similarity, nearest first."""
        query = Query.of(text)
        entries = [self._entries[key] for key, _ in near]
        proposals = [
            features(query, entry.stored, similarity, _rival(entry, entries, near), self.counts)
            for entry, (_, similarity) in zip(entries, near, strict=True)
        ]
        ranking = _ranked(entries, near, self.rule.shares(np.array(proposals)).tolist())
        best = ranking[0]
        if self.wary and self._exchanged(query, entries, best):
            return Decision(None, "a telling word of the nearest question is another", ranking)
        if best.probability >= self.threshold:
            return Decision(best.value, "the question means a taught one", ranking)
        free = self._freely_worded(query, entries, near)
        if free is not None:
            return Decision(free, "a taught question in other words, well ahead of others", ranking)
        rival = len(ranking) > 1 and ranking[1].probability > best.probability / 2
        unclear = rival and best.probability + ranking[1].probability >= self.threshold
        reason = "two taught questions fit equally well" if unclear else "no taught question fits"
        return Decision(None, reason, ranking)

    def _exchanged(self, query: Query, entries: Sequence[_Entry], best: Judged) -> bool:
        stored = next(e.stored for e in entries if e.stored.text == best.question)
        return stored.subject is None and exchanged(query, stored, self.counts)

    def _freely_worded(
        self, query: Query, entries: Sequence[_Entry], near: Sequence[tuple[int, float]]
    ) -> int | None:
        """The nearest candidate, if it explains something without a name and is well ahead."""
        entry, similarity = entries[0], near[0][1]
        if not explains(entry.answer):
            return None
        rival = _rival(entry, entries, near)
        fits = freely_worded(query, entry.stored, similarity, rival, self.counts)
        return entry.value if fits else None


class MeaningAddress:
    """Stored questions, each addressing an integer, found by what they mean."""

    def __init__(
        self, encoder: Encoder, *, threshold: float | None = None, candidates: int = 5
    ) -> None:
        self.encoder, self.candidates = encoder, candidates
        self.judge = Judge(encoder.vocabulary, threshold=threshold)
        self._vectors = Vectors()
        self._remembered: dict[str, Decision] = {}

    def encode_facts(self, facts: Sequence[Fact]) -> list[Array]:
        """For each fact (questions, size): the vectors of its questions."""
        vectors = self.encoder.encode([question for fact in facts for question in fact.questions])
        ends = np.cumsum([len(fact.questions) for fact in facts])[:-1]
        return np.split(vectors, ends)

    def add(self, value: int, fact: Fact, vectors: Array) -> list[int]:
        """Let the questions of a fact address a value; a key for each.

        Args:
            vectors: those of `encode_facts`.
        """
        self._remembered.clear()
        keys = self.judge.add(value, fact)
        self._vectors.add(keys, vectors)
        return keys

    def remove(self, value: int) -> list[int]:
        """Let a value be addressed no more; the keys that its questions had."""
        self._remembered.clear()
        keys = self.judge.remove(value)
        for key in keys:
            self._vectors.remove(key)
        return keys

    def decide(self, texts: Sequence[str]) -> dict[str, Decision]:
        """What each text asks, by text; all that are new are encoded together."""
        new = [text for text in dict.fromkeys(texts) if text not in self._remembered]
        if len(self._remembered) + len(new) > REMEMBERED:
            self._remembered.clear()
            new = list(dict.fromkeys(texts))
        if new:
            self._remembered.update(zip(new, self._decide(new), strict=True))
        return {text: self._remembered[text] for text in texts}

    def decide_among(self, text: str, keys: Sequence[int]) -> Decision:
        """What a text asks, of the stored questions with these keys, which others have found."""
        asked = wordings(text)
        if not keys or not asked:
            return Decision(None, "no stored question is near")
        nearest = self._vectors.nearest(self.encoder.encode(asked), self.candidates, among=keys)
        return surest([self.judge.decide(w, near) for w, near in zip(asked, nearest, strict=True)])

    def _decide(self, texts: Sequence[str]) -> list[Decision]:
        """One decision a text: that of its wording which is surest."""
        asked = [(i, wording) for i, text in enumerate(texts) for wording in wordings(text)]
        if not len(self.judge) or not asked:
            return [Decision(None, "no stored question is near") for _ in texts]
        vectors = self.encoder.encode([wording for _, wording in asked])
        nearest = self._vectors.nearest(vectors, self.candidates)
        options: dict[int, list[Decision]] = defaultdict(list)
        for (i, wording), near in zip(asked, nearest, strict=True):
            options[i].append(self.judge.decide(wording, near))
        return [surest(options[i]) for i in range(len(texts))]


def surest(options: Sequence[Decision]) -> Decision:
    """Of the decisions on the wordings of one text, the one to go by."""
    return max(options, key=_sureness, default=Decision(None, "nothing was asked"))


def _rival(entry: _Entry, entries: Sequence[_Entry], near: Sequence[tuple[int, float]]) -> float:
    """The highest similarity of a candidate that leads to another answer; 0 without one."""
    others = zip(entries, near, strict=True)
    return max((s for one, (_, s) in others if one.answer != entry.answer), default=0.0)


def _ranked(
    entries: Sequence[_Entry], near: Sequence[tuple[int, float]], shares: Sequence[float]
) -> tuple[Judged, ...]:
    """Candidates by probability; those that lead to one answer share what they have."""
    by_answer: dict[str, float] = defaultdict(float)
    for entry, share in zip(entries, shares, strict=True):
        by_answer[entry.answer] += float(share)
    best_of: dict[int, Judged] = {}
    order = sorted(range(len(entries)), key=lambda i: -shares[i])
    for i in order:
        entry = entries[i]
        judged = Judged(entry.value, entry.stored.text, near[i][1], by_answer[entry.answer])
        best_of.setdefault(entry.value, judged)
    return tuple(sorted(best_of.values(), key=lambda one: -one.probability))


def _sureness(decision: Decision) -> tuple[bool, float]:
    best = decision.ranking[0].probability if decision.ranking else 0.0
    return (decision.value is not None, best)


def wordings(text: str) -> list[str]:
    """Readings of a text as one question: all of it, and its last sentence."""
    text = text.strip()[-LONGEST:]
    lines = text.splitlines()
    return [w for w in dict.fromkeys((text, last_sentence(lines[-1]))) if w] if lines else []
