"""Which stored question does a text mean, if any?

A sentence encoder proposes the nearest stored questions.  Nearness alone cannot
decide: "Which country is Jody Lloyd a citizen of?" lies next to the same
question about Rhodri Lloyd, while a free rewording may lie further off.  This
module describes each proposal by a few numbers (`features`) and a small fitted
rule (`MatchRule`) weighs them: every proposal gets a score, silence the score
zero, and a softmax over all of them says how sure the best one is.  Two stored
questions that fit equally share the probability, so neither reaches the
threshold.

The cost of one decision depends on the few proposals, not on the memory's size.
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib import resources
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_WORD = re.compile(r"[^\W_]+(?:\+\+|#)?")
_POSSESSIVE = re.compile(r"['’]s\b")
_QUOTED = re.compile(r"[\"“«„]([^\"”»“]+)[\"”»“]")

# Letters that Unicode does not split into a base letter and a mark.
_UNSPLIT = str.maketrans(
    {"ı": "i", "ø": "o", "ł": "l", "đ": "d", "æ": "ae", "œ": "oe", "’": None, "'": None}
)

# What stands in a masked text where the subject was.
PLACEHOLDER = "x"
# Words from this rank on are rare enough to name something.
RARE_RANK = 4000
COMMONEST_RANK = 25
LAST_RANK = 30_000


def fold(text: str) -> str:
    """Lower case without diacritics, apostrophes, or possessive endings."""
    return _unmarked(text).casefold().translate(_UNSPLIT)


def _unmarked(text: str) -> str:
    flat = unicodedata.normalize("NFKD", _POSSESSIVE.sub("", text))
    return "".join(c for c in flat if not unicodedata.combining(c))


def words(text: str) -> tuple[str, ...]:
    """The folded words of a text, in order; punctuation is dropped."""
    return tuple(_WORD.findall(fold(text)))


@lru_cache(maxsize=65536)
def _grams(word: str) -> frozenset[str]:
    """Character pairs, with the word's two ends marked."""
    padded = f"^{word}$"
    return frozenset(padded[i : i + 2] for i in range(len(padded) - 1))


@lru_cache(maxsize=65536)
def trigrams(text: str) -> frozenset[str]:
    """Character triples of a folded text, with its two ends marked."""
    padded = f" {text} "
    return frozenset(padded[i : i + 3] for i in range(len(padded) - 2))


def has_digit(word: str) -> bool:
    return any(c.isdigit() for c in word)


@lru_cache(maxsize=65536)
def likeness(first: str, second: str) -> float:
    """How far two words are the same word, 0 to 1: inflection and slips count."""
    if first == second:
        return 1.0
    if has_digit(first) or has_digit(second):
        return 0.0
    one, two = _grams(first), _grams(second)
    dice = 2 * len(one & two) / (len(one) + len(two))
    return min(1.0, max(0.0, (dice - 0.4) / 0.45))


class WordCounts:
    """In how many taught questions each word occurs, on top of a general prior.

    `ranks` maps words to their place in a list ordered by frequency (0 the
    commonest), such as an encoder's vocabulary.  The prior counts as
    `PRIOR_TEXTS` imaginary questions, so a fresh memory weighs words sensibly
    and a large one by what it really holds.
    """

    PRIOR_TEXTS = 20.0

    def __init__(self, ranks: Mapping[str, int] | None = None) -> None:
        self._ranks = ranks
        self._texts = 0
        self._counts: Counter[str] = Counter()

    def add(self, text: str) -> None:
        self._texts += 1
        self._counts.update(set(words(text)))

    def remove(self, text: str) -> None:
        """Takes one added question out again, exactly."""
        self._texts -= 1
        self._counts.subtract(set(words(text)))
        for word in words(text):
            if not self._counts[word]:
                del self._counts[word]

    def rank(self, word: str) -> int:
        """Place of the word by general frequency; unlisted words come last."""
        if self._ranks is not None:
            return self._ranks.get(word, LAST_RANK)
        # Without a list: common words are short.
        return min(LAST_RANK, int(10 ** (0.55 * len(word))))

    def rarity(self, word: str) -> float:
        """0 for the commonest words of the language, 1 for unlisted ones."""
        if has_digit(word):
            return 1.0
        span = math.log(LAST_RANK / COMMONEST_RANK)
        return min(1.0, max(0.0, math.log((self.rank(word) + 1) / COMMONEST_RANK) / span))

    def weight(self, word: str) -> float:
        """How telling the word is, 0 to 1: an inverse document frequency."""
        prior = COMMONEST_RANK / (
            COMMONEST_RANK + (LAST_RANK if has_digit(word) else self.rank(word))
        )
        share = (self._counts[word] + self.PRIOR_TEXTS * prior) / (self._texts + self.PRIOR_TEXTS)
        return min(1.0, -math.log(min(1.0, share)) / math.log(LAST_RANK / COMMONEST_RANK))


def ranks_from_vocabulary(vocabulary: Mapping[str, int]) -> dict[str, int]:
    """Frequency ranks of whole words, from a subword vocabulary ordered by frequency."""
    whole = sorted((place, token.lstrip("▁Ġ")) for token, place in vocabulary.items())
    listed = [token for _, token in whole if token.isalpha() and len(token) > 1]
    ranks: dict[str, int] = {}
    for token in listed:
        ranks.setdefault(token.casefold(), len(ranks))
    return ranks


@dataclass(frozen=True)
class Stored:
    """One stored question with what its comparison needs.

    `naming` has one number per word, 0 to 1: how surely the word belongs to what
    the question is about.  A given subject settles it; otherwise capitals,
    digits, quotes, and rarity suggest it.
    """

    text: str
    subject: str | None
    words: tuple[str, ...]
    naming: tuple[float, ...]

    @classmethod
    def of(cls, text: str, subject: str | None, counts: WordCounts) -> Self:
        found = words(text)
        marked = _subject_words(found, subject) if subject else None
        return cls(text, subject, found, marked or _inferred_naming(text, found, counts))

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The words that name the subject."""
        return tuple(w for w, n in zip(self.words, self.naming, strict=True) if n >= 0.5)

    @cached_property
    def relation(self) -> str:
        """The text with its subject masked: what is asked, of anything."""
        return masked(self.text, self.words, [n >= 0.5 for n in self.naming])


def masked(text: str, found: Sequence[str], hidden: Sequence[bool]) -> str:
    """The words joined, each hidden run replaced by one placeholder.

    With nothing to hide the text itself comes back, so that its encoding can be
    used again.
    """
    if not any(hidden):
        return text
    shown: list[str] = []
    for word, hide in zip(found, hidden, strict=True):
        if not hide:
            shown.append(word)
        elif not shown or shown[-1] != PLACEHOLDER:
            shown.append(PLACEHOLDER)
    return " ".join(shown)


def _subject_words(found: tuple[str, ...], subject: str) -> tuple[float, ...] | None:
    """1 where the subject's words stand in the text; None when they do not."""
    sought = words(subject)
    for start in range(len(found) - len(sought) + 1):
        if sought and found[start : start + len(sought)] == sought:
            inside = range(start, start + len(sought))
            return tuple(float(i in inside) for i in range(len(found)))
    loose = tuple(float(w in sought) for w in found)
    return loose if any(loose) else None


def _inferred_naming(text: str, found: tuple[str, ...], counts: WordCounts) -> tuple[float, ...]:
    """A guess at the subject's words from how the text is written."""
    quoted = {w for part in _QUOTED.findall(text) for w in words(part)}
    written = _written_forms(text, found)
    marks = [
        _mark(w, form, place, counts)
        for place, (w, form) in enumerate(zip(found, written, strict=True))
    ]
    marks = [1.0 if w in quoted else m for w, m in zip(found, marks, strict=True)]
    return tuple(_bridged(marks, found, counts))


def _written_forms(text: str, found: tuple[str, ...]) -> tuple[str, ...]:
    """Each word as it was written, for its capitals."""
    forms = tuple(_WORD.findall(_unmarked(text).translate(_UNSPLIT)))
    return forms if len(forms) == len(found) else found


def _mark(word: str, form: str, place: int, counts: WordCounts) -> float:
    """How surely one word names something."""
    rank = counts.rank(word)
    if has_digit(word):
        return 1.0
    rare = min(1.0, max(0.0, math.log(max(rank, 1) / RARE_RANK) / math.log(LAST_RANK / RARE_RANK)))
    capital = form[:1].isupper()
    if capital and (place or form[1:] != form[1:].lower()):
        return 1.0
    if capital and rank >= RARE_RANK // 2:
        return 1.0
    return 0.7 * rare


def _bridged(marks: list[float], found: tuple[str, ...], counts: WordCounts) -> list[float]:
    """Small words between two naming ones ("Isle of Man") belong to the name."""
    joined = list(marks)
    for place in range(1, len(marks) - 1):
        between = marks[place - 1] >= 1.0 and marks[place + 1] >= 1.0
        if between and counts.rank(found[place]) < COMMONEST_RANK:
            joined[place] = 1.0
    return joined


@dataclass(frozen=True)
class Query:
    """The asked text, folded once for all proposals."""

    text: str
    words: tuple[str, ...]

    @classmethod
    def of(cls, text: str) -> Self:
        return cls(text, words(text))

    def relation(self, stored: Stored) -> str:
        """The text with the words that name the stored subject masked."""
        return masked(self.text, self.words, [_covered(w, stored.names) >= 0.6 for w in self.words])


def _covered(word: str, others: Iterable[str]) -> float:
    return max((likeness(word, other) for other in others), default=0.0)


# --- what is measured ------------------------------------------------------

FEATURES = (
    "similarity",  # cosine of the two texts
    "relation",  # cosine of the two texts with the subject masked
    "name_trigrams",  # share of the subject's character triples found in the query
    "name_missing",  # the most telling word of the subject that the query lacks
    "name_share",  # weighted share of the subject's words that the query has
    "named",  # how surely the stored text names anything
    "alien_most",  # the most telling word of the query that the stored text lacks
    "alien_mass",  # all such words of the query
    "missing_most",  # the most telling stored word, beside the subject, not asked
    "missing_mass",  # all such stored words
    "found_share",  # weighted share of the stored words that the query has
    "asked_share",  # weighted share of the query's words that the stored text has
    "number_missing",  # stored numbers and codes that the query lacks
    "number_alien",  # numbers and codes of the query that the stored text lacks
    "exchange",  # a subject word is missing and an alien word there instead
    "length",  # log of the query's length over the stored text's
)


@dataclass(frozen=True)
class _Alignment:
    """Per word of one text: its weight, and how well the other text covers it."""

    weights: Array
    covered: Array

    @classmethod
    def of(cls, text: Sequence[str], other: Sequence[str], counts: WordCounts) -> Self:
        known = set(other)
        covered = [1.0 if w in known else _covered(w, other) for w in text]
        return cls(np.array([counts.weight(w) for w in text]), np.array(covered))

    @property
    def lacking(self) -> Array:
        return self.weights * (1.0 - self.covered)

    @property
    def share(self) -> float:
        total = float(self.weights.sum())
        return float(self.weights @ self.covered) / total if total else 1.0


def _peak(values: Array) -> float:
    return float(values.max(initial=0.0))


def _name_trigrams(query: Query, stored: Stored) -> float:
    """Share of the subject's triples in the query; 1 when there is no subject."""
    sought = trigrams(" ".join(stored.names))
    if not stored.names:
        return 1.0
    return len(sought & trigrams(" ".join(query.words))) / len(sought)


def features(
    query: Query, stored: Stored, similarity: float, relation: float, counts: WordCounts
) -> Array:
    """`FEATURES` of one proposal, shape (len(FEATURES),).

    `similarity` is the encoder's cosine of the two texts, `relation` that of
    `query.relation(stored)` and `stored.relation`.
    """
    there = _Alignment.of(stored.words, query.words, counts)
    here = _Alignment.of(query.words, stored.words, counts)
    naming = np.array(stored.naming)
    name_lacking, rest_lacking = there.lacking * naming, there.lacking * (1.0 - naming)
    name_weight = float(there.weights @ naming)
    codes = np.array([has_digit(w) for w in stored.words], dtype=bool)
    asked_codes = np.array([has_digit(w) for w in query.words], dtype=bool)
    return np.array([
        similarity,
        relation,
        _name_trigrams(query, stored),
        _peak(name_lacking),
        1.0 - float(name_lacking.sum()) / name_weight if name_weight else 1.0,
        _peak(naming),
        _peak(here.lacking),
        min(3.0, float(here.lacking.sum())),
        _peak(rest_lacking),
        min(3.0, float(rest_lacking.sum())),
        there.share,
        here.share,
        _peak((1.0 - there.covered) * codes),
        _peak((1.0 - here.covered) * asked_codes),
        _peak(name_lacking) * _peak(here.lacking),
        math.log((len(query.words) + 1) / (len(stored.words) + 1)),
    ])  # fmt: skip


# --- what is decided --------------------------------------------------------


@dataclass(frozen=True)
class MatchRule:
    """A fitted score over `FEATURES`: linear, plus a small hidden layer.

    Shapes, with d features and h hidden units: `mean`, `scale`, `linear` (d,),
    `inner` (d, h), `inner_bias` and `outer` (h,).
    """

    mean: Array
    scale: Array
    linear: Array
    bias: float
    inner: Array
    inner_bias: Array
    outer: Array
    threshold: float

    @classmethod
    def load(cls, path: Path | None = None) -> Self:
        """The rule of a JSON file; without one, the rule that comes with the package."""
        source = path or resources.files(__package__).joinpath("match_rule.json")
        return cls.from_record(json.loads(source.read_text(encoding="utf-8")))

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        if tuple(record["features"]) != FEATURES:
            raise ValueError("the rule was fitted on other features than this version measures")
        arrays = ("mean", "scale", "linear", "inner", "inner_bias", "outer")
        numbers = {name: np.array(record[name], dtype=np.float64) for name in arrays}
        return cls(**numbers, bias=float(record["bias"]), threshold=float(record["threshold"]))

    def score(self, proposals: Array) -> Array:
        """Log odds against silence; `proposals` (..., d) gives (...)."""
        plain = (proposals - self.mean) / self.scale
        hidden = np.tanh(plain @ self.inner + self.inner_bias)
        return np.asarray(plain @ self.linear + hidden @ self.outer + self.bias)

    def probability(self, proposal: Array) -> float:
        """How surely one proposal, shape (d,), is meant, were it the only one."""
        return float(1.0 / (1.0 + np.exp(-self.score(proposal))))

    def shares(self, proposals: Array) -> Array:
        """(n,): the probability of each proposal (n, d); what they leave is that of silence."""
        scores = np.append(self.score(proposals), 0.0)
        shares = np.exp(scores - scores.max())
        return np.asarray((shares / shares.sum())[:-1])
