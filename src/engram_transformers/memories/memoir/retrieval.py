"""Which edit does a prompt ask for? The fingerprint proposes, and the wording has to agree.

Masks say how alike two prompts are to the host. That ranks edits well, but a near miss, the same
question about somebody else, is as alike as another wording. So what is near enough is judged by
the rule that the lookup memory goes by: by its words, and by how near a sentence encoder finds it.
Without an encoder the overlap of the masks stands in the place of that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from engram_transformers.memories.memoir.bits import Words, pack, width
from engram_transformers.memories.memoir.fingerprint import TopHashFingerprinter
from engram_transformers.memories.memoir.search import PlainSearch
from engram_transformers.routing.meaning import (
    Array,
    Decision,
    Judge,
    Judged,
    MeaningAddress,
    surest,
    wordings,
)
from engram_transformers.types import Fact

CANDIDATES, NEAREST = 5, 1024
"""How many of the nearest masks are judged by their words; how many an encoder chooses these from.

That are so many because masks know a free rewording badly: among 767 stored questions the right
mask of one in twenty of the demonstration's wordings came behind 266 others.
"""
SILENT = Decision(None, "no taught question is near")


AT_CHANCE, AT_REWORDING = 0.7, 0.93
"What the rule is told for an overlap as chance brings it, and for one as rewordings have it."
REWORDING = 0.38
"""How far from chance to equality the overlap of a rewording lies, as a rule.

These were chosen on 150 ZsRE and 148 WikiBigEdit questions with SmolLM2-135M: the rule then knew
98.0 % and 98.6 % of their rewordings and mistook none of 297 others.
"""


@dataclass(frozen=True)
class Retrieval:
    """What retrieving goes by, beside the masks."""

    threshold: float
    "Overlap of masks from which an edit is looked at."
    chance: float
    "Overlap with the nearest of forty questions about other things."
    judged: bool = True
    "Whether the wording has to agree."

    def similarity(self, overlap: float) -> float:
        """An overlap as the rule knows similarities."""
        usual = self.chance + REWORDING * (1 - self.chance)
        known = (0.0, self.chance, usual, 1.0), (0.0, AT_CHANCE, AT_REWORDING, 1.0)
        return float(np.interp(overlap, *known))


class Retriever:
    """The masks of all questions of all edits, with their wordings.

    Args:
        vocabulary: tokens ordered from common to rare.
        meaning: what compares wordings by a sentence encoder.
    """

    def __init__(
        self,
        fingerprinter: TopHashFingerprinter,
        vocabulary: Mapping[str, int],
        how: Retrieval,
        *,
        meaning: MeaningAddress | None = None,
    ) -> None:
        self.fingerprinter, self.how, self.meaning = fingerprinter, how, meaning
        self.judge = Judge(vocabulary, wary=True)
        self._search = PlainSearch(width(fingerprinter.hidden_size), "overlap")
        self._owners: dict[int, tuple[int, str]] = {}

    def add(self, edit: int, fact: Fact, masks: Words, vectors: Array | None = None) -> None:
        """Let the questions of a fact lead to an edit.

        Args:
            masks: (questions, words).
            vectors: (questions, size) where an encoder compares them.
        """
        if self.meaning is None:
            keys = self.judge.add(edit, fact)
        else:
            assert vectors is not None
            keys = self.meaning.add(edit, fact, vectors)
        for key, question, mask in zip(keys, fact.questions, masks, strict=True):
            self._search.add(key, mask)
            self._owners[key] = (edit, question)

    def remove(self, edit: int) -> None:
        """Let nothing lead to an edit any more."""
        by = self.judge if self.meaning is None else self.meaning
        for key in by.remove(edit):
            self._search.remove(key)
            del self._owners[key]

    def decide(self, mean: Tensor, text: str) -> Decision:
        """The edit that a question asks for, by its mean activation (features,) and its text."""
        near = self.near(mean)
        if not near or near[0][1] < self.how.threshold:
            reason = f"the nearest mask shares less than {self.how.threshold:.2f}"
            return replace(SILENT, reason=reason, ranking=self._ranking(near))
        near = [(key, overlap) for key, overlap in near if overlap >= self.how.threshold]
        if not self.how.judged:
            return Decision(
                self._owners[near[0][0]][0], "its mask is near enough", self._ranking(near)
            )
        found = self._by_words(text, near)
        return replace(found, ranking=self._with_overlaps(found, near))

    def _by_words(self, text: str, near: list[tuple[int, float]]) -> Decision:
        if self.meaning is not None:
            return self.meaning.decide_among(text, [key for key, _ in near])
        alike = [(key, self.how.similarity(overlap)) for key, overlap in near]
        return surest([self.judge.decide(wording, alike) for wording in wordings(text)])

    def near(self, mean: Tensor) -> list[tuple[int, float]]:
        """The nearest questions by key, with the share of their masks that is shared."""
        words = pack(self.fingerprinter.generate_mask(mean.cpu())[None].bool())[0]
        return self.nearest(words, CANDIDATES if self.meaning is None else NEAREST)

    def nearest(self, words: Words, count: int) -> list[tuple[int, float]]:
        """The same for a mask (words,)."""
        return self._search.nearest(words, threshold=0.0, top_k=count)

    def _ranking(self, near: list[tuple[int, float]]) -> tuple[Judged, ...]:
        return tuple(Judged(*self._owners[key], overlap, overlap) for key, overlap in near)

    def _with_overlaps(self, found: Decision, near: list[tuple[int, float]]) -> tuple[Judged, ...]:
        overlaps = {self._owners[key]: overlap for key, overlap in near}
        return tuple(
            replace(one, similarity=overlaps[one.value, one.question]) for one in found.ranking
        )
