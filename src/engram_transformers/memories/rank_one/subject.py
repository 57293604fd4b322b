"""Where in a prompt its subject ends: the token at which a fact is looked up (Meng et al. 2022)."""

from __future__ import annotations

import re
from collections.abc import Sequence

from engram_transformers.models.tokens import HostTokens
from engram_transformers.routing.match import Stored, WordCounts, words

_NUMBER = r"\d+(?:\.\d+)?"
# With its equals sign, where it has one: that is read in sums alone, and a digit anywhere.
_OPERATION = re.compile(rf"{_NUMBER}(?:\s*[-+*/x×·÷]\s*{_NUMBER})+(?:\s*=)?")
_OPENING = frozenset(
    re.findall(
        r"\w+",
        """
        a an and are as ask at but by can could dear describe did do does explain find for from
        give had has have he her here his how i if in is it its let list look many me most my name
        no not of on once one or our please say she should show so some tell that the their there
        these they this those to translate was we were what when where which who whom whose why will
        with would write yes you your
        """,
    )
)
"Words with which a prompt begins, in capitals though they name nothing."
_WORD = re.compile(r"[^\W_]+(?:['’.-][^\W_]+)*")


def subject_in(question: str, given: str | None = None) -> str | None:
    """The subject as the question writes it; None where none is to be seen.

    Given, it is found in any spelling of case; else an operation such as `7*8=`, or what is written
    as a name is: the words with capitals, digits or quotes that stand furthest on, with what is
    between them. Where there are none, it is the first word, if that can be a name: `France
    capital`.
    """
    if given and (at := question.lower().find(given.lower())) >= 0:
        return question[at : at + len(given)]
    operation = None if given else _OPERATION.search(question)
    if operation:
        return operation.group()
    return _named(question, given) or _first(question)


def _first(question: str) -> str | None:
    found = _WORD.findall(question)
    if len(found) < 2 or not found[0][:1].isupper() or found[0].lower() in _OPENING:
        return None
    return str(found[0])


def _named(question: str, given: str | None) -> str | None:
    names = set(Stored.of(question, given, WordCounts()).names)
    spots = [m for m in _WORD.finditer(question) if names.intersection(words(m.group()))]
    if not spots:
        return None
    last = first = spots[-1]
    for spot in reversed(spots[:-1]):
        if len(words(question[spot.end() : first.start()])) > 1:
            break
        first = spot
    return question[first.start() : last.end()]


def subject_span(
    tokens: HostTokens, ids: Sequence[int], question: str, subject: str | None
) -> range:
    """Where the subject's tokens stand in a prompt's ids; where its last token does, without."""
    text = tokens.decode(ids)
    at = text.rfind(question)
    if at < 0:
        return range(len(ids) - 1, len(ids))
    if subject is None:
        last = _token_of(tokens, ids, at + len(question))
        return range(last, last + 1)
    begins = at + question.rfind(subject)
    last = _token_of(tokens, ids, begins + len(subject))
    return range(_token_of(tokens, ids, begins + 1), last + 1)


def _token_of(tokens: HostTokens, ids: Sequence[int], end: int) -> int:
    """Index of the token that writes the character before `end`."""
    low, high = 1, len(ids)
    while low < high:
        middle = (low + high) // 2
        if len(tokens.decode(ids[:middle])) >= end:
            high = middle
        else:
            low = middle + 1
    return low - 1
