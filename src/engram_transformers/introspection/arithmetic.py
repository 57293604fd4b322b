"""At which layer do results of sums and products appear? Whole results, read through the lens."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engram_transformers.errors import BadInput
from engram_transformers.introspection.asking import asked, joining
from engram_transformers.introspection.facts import Known
from engram_transformers.introspection.reading import hear, read, rows_of
from engram_transformers.introspection.retrieval import emergence, half_way
from engram_transformers.models.adapter import Adapter
from engram_transformers.models.tokens import Form, HostTokens
from engram_transformers.types import Told

Array = NDArray[np.float64]
OPERATIONS: Mapping[str, tuple[str, Callable[[int, int], int]]] = {
    "addition": ("+", lambda a, b: a + b),
    "subtraction": ("-", lambda a, b: a - b),
    "multiplication": ("*", lambda a, b: a * b),
}
DIGITS = {"easy": (1, 1), "medium": (2, 1), "hard": (2, 2)}
"Digits of the first and of the second operand."
EACH = 20
"Problems of each operation and difficulty."


@dataclass(frozen=True)
class Problem:
    """A sum to do."""

    operation: str
    difficulty: str
    a: int
    b: int
    result: int
    prompt: str


@dataclass(frozen=True)
class Solved:
    """What a host makes of a problem."""

    problem: Problem
    logprob: float
    "Of the whole result with its end, at the output."
    rank: int
    "The worst place of any of its tokens; 1: greedy decoding writes it."
    emerges: int | None
    "The first layer from which on the lens has rank 1 up to the last; None: never."


@dataclass(frozen=True)
class Group:
    """Problems of one kind together."""

    name: str
    n: int
    right: int
    logprob: float
    "Mean, at the output."
    emerges: float | None
    "Median over those that are right; None where none is."
    rises: int | None
    "Where the mean log-probability has come half its way up through the lens; None: it does not."


@dataclass(frozen=True)
class Arithmetic:
    """All problems, and by kind."""

    problems: tuple[Solved, ...]
    layers: tuple[int, ...]
    logprobs: Array
    "(layers, problems), through the lens."
    ranks: NDArray[np.int64]
    template: str
    shots: int

    def groups(self, key: Callable[[Problem], str]) -> list[Group]:
        """The problems by what `key` says of them, in the order in which that comes."""
        names = list(dict.fromkeys(key(one.problem) for one in self.problems))
        return [self._group(name, key) for name in names]

    def _group(self, name: str, key: Callable[[Problem], str]) -> Group:
        at = [i for i, one in enumerate(self.problems) if key(one.problem) == name]
        some = [self.problems[i] for i in at]
        appear = [one.emerges for one in some if one.emerges is not None]
        return Group(
            name,
            len(some),
            sum(one.rank == 1 for one in some),
            float(np.mean([one.logprob for one in some])),
            float(np.median(appear)) if appear else None,
            half_way(self.logprobs[:, at].mean(axis=1)),
        )


def problems(
    operations: Sequence[str] = tuple(OPERATIONS),
    *,
    each: int = EACH,
    template: str = "{a}{op}{b}=",
    shots: int = 0,
    seed: int = 0,
) -> list[Problem]:
    """Problems drawn without repeats; differences are never negative.

    Args:
        each: how many of every operation and difficulty, or as many as there are.
        template: with `{a}`, `{op}` and `{b}`.
        shots: solved problems of the same kind that stand before each.

    Raises:
        BadInput: an unknown operation, or a template without its gaps.
    """
    for name in operations:
        if name not in OPERATIONS:
            raise BadInput(f"no operation is called {name!r}; use {', '.join(OPERATIONS)}")
    try:
        if len({template.format(a=a, op="+", b=b) for a, b in ((1, 1), (2, 1), (1, 2))}) < 3:
            raise BadInput(f"the template {template!r} lacks {{a}} or {{b}}")
    except (AttributeError, KeyError, IndexError, ValueError) as error:
        if isinstance(error, BadInput):
            raise
        raise BadInput(f"the template {template!r} has gaps besides {{a}}, {{op}}, {{b}}") from None
    generator = np.random.default_rng(seed)
    found = []
    for operation in dict.fromkeys(operations):
        for difficulty in DIGITS:
            found += _drawn(operation, difficulty, each, template, shots, generator)
    return found


def arithmetic(
    adapter: Adapter,
    tokens: HostTokens,
    asks: Sequence[Problem],
    *,
    template: str = "{a}{op}{b}=",
    shots: int = 0,
    form: Form = "plain",
    told: Told = lambda what, done, total: None,
) -> Arithmetic:
    """Ask all problems in one pass and read every block through the lens."""
    texts = asked(tokens, [Known(one.prompt, str(one.result)) for one in asks], form=form)
    rows, layers = len(rows_of(texts.asks)), range(len(adapter.layers))
    reading = read(
        adapter, texts.asks, layers=layers, progress=lambda done: told("reading", done, rows)
    )
    heard = hear(
        adapter,
        reading,
        texts.own,
        joining(adapter, tokens),
        progress=lambda done: told("through the lens", done, len(layers)),
    )
    logprobs, ranks = heard.logprobs.numpy(), heard.ranks.numpy()
    solved = tuple(
        Solved(
            one,
            float(logprobs[-1, i]),
            int(ranks[-1, i]),
            emergence(ranks[:, i].tolist(), layers),
        )
        for i, one in enumerate(asks)
    )
    return Arithmetic(solved, tuple(layers), logprobs, ranks, template, shots)


def _drawn(
    operation: str,
    difficulty: str,
    each: int,
    template: str,
    shots: int,
    generator: np.random.Generator,
) -> list[Problem]:
    sign, result = OPERATIONS[operation]
    first, second = (range(10 ** (n - 1) + (n == 1), 10**n) for n in DIGITS[difficulty])
    pairs = [(a, b) for a in first for b in second if operation != "subtraction" or a >= b]
    order = generator.permutation(len(pairs))[: each + shots]
    if len(pairs) <= shots:
        raise BadInput(
            f"{shots} solved problems before each were asked for; {difficulty} {operation} has "
            f"{len(pairs)} problems in all. Use fewer"
        )
    drawn = [pairs[i] for i in order]
    examples, wanted = drawn[:shots], drawn[shots:]
    before = "".join(f"{template.format(a=a, op=sign, b=b)}{result(a, b)}\n" for a, b in examples)
    return [
        Problem(
            operation,
            difficulty,
            a,
            b,
            result(a, b),
            before + template.format(a=a, op=sign, b=b),
        )
        for a, b in wanted
    ]
