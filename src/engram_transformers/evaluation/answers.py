"""Was an answer right? Scores of single answers, and what they come to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from engram_transformers.evaluation.metrics import Measure, contains, exact, mean, normalise, rate
from engram_transformers.evaluation.task import Question

REPEATS = 3
"A piece of text that comes so often in a row at the end is a loop."
LONGEST_LOOP = 16


@dataclass(frozen=True)
class Answered:
    """One question, what the host wrote, and whether that was right."""

    group: str
    fact: str
    asked: str
    wanted: str
    said: str
    exact: bool
    "Equal to an accepted answer after normalisation."
    contains: bool
    "Holds an accepted answer as whole words."
    ended: bool
    "Ended by itself, without repeating itself."
    tokens: int
    "Tokens that were written."
    forced: float
    "Share of the wanted answer's tokens that are the first choice with the right ones before."

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def answered(
    question: Question,
    *,
    group: str,
    said: str,
    written: Sequence[int],
    stop: int | None,
    forced: float,
) -> Answered:
    """Score the tokens that were written for one question."""
    return Answered(
        group=group,
        fact=question.fact,
        asked=question.text,
        wanted=question.answers[0],
        said=said,
        exact=any(exact(said, answer) for answer in question.answers),
        contains=any(contains(_without(said, question.text), a) for a in question.answers),
        ended=stop is not None
        and written[-1:] == [stop]
        # The digits of 3000 are no loop where they are what was wanted.
        and (said.strip() in question.answers or not loops(written[:-1])),
        tokens=len(written),
        forced=forced,
    )


def _without(said: str, asked: str) -> str:
    """What was said besides the question: repeating that must not count as knowing."""
    return normalise(said).replace(normalise(asked), " ") if normalise(asked) else said


def loops(ids: Sequence[int]) -> bool:
    """Whether a text ends in the same piece over and over."""
    ids = list(ids)
    return any(
        ids[-size:] * REPEATS == ids[-size * REPEATS :]
        for size in range(1, min(LONGEST_LOOP, len(ids) // REPEATS) + 1)
    )


def forced(choices: Sequence[int], answer: Sequence[int], *, stop: int | None) -> float:
    """Share of an answer's tokens, its end not counted, that were the first choice."""
    pairs = [(c, a) for c, a in zip(choices, answer, strict=True) if a != stop]
    return sum(c == a for c, a in pairs) / len(pairs) if pairs else 1.0


NAMES = {"taught": "rel", "paraphrase": "gen"}
"Groups of questions whose metrics have a name of their own."


def measures(group: str, cases: Sequence[Answered]) -> dict[str, Measure]:
    """The metrics of one group of questions."""
    name = NAMES.get(group, slug(group))
    return {
        f"gen_{name}": rate(case.exact for case in cases),
        f"gen_{name}_contains": rate(case.contains for case in cases),
        f"tf_{name}": mean(case.forced for case in cases),
    }


def by_category(
    cases: Iterable[Answered], categories: Mapping[str, str]
) -> dict[str, dict[str, float]]:
    """The share of right answers in each category."""
    flags: dict[str, list[bool]] = {}
    for case in cases:
        if case.fact in categories:
            flags.setdefault(categories[case.fact], []).append(case.exact)
    return {name: rate(each).as_dict() for name, each in sorted(flags.items())}


def slug(group: str) -> str:
    """A group's name as it stands in the names of metrics."""
    return group.replace(" ", "_").replace("-", "_")
