"""What states of facts are ordered by: row, column, answer, swapped operands, category, nothing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engram_transformers.introspection.facts import FactSet
from engram_transformers.introspection.permutation import ALPHA, relation_shifts, sign_flip
from engram_transformers.introspection.relations import (
    COMMUTATIVE,
    SAME_ANSWER,
    SAME_CATEGORY,
    SAME_COLUMN,
    SAME_ROW,
    UNRELATED,
    Relations,
)

DRAWS = 2000
TYPES = {
    SAME_ROW: "row-dominant",
    SAME_COLUMN: "column-dominant",
    SAME_ANSWER: "answer-dominant",
    COMMUTATIVE: "commutative-dominant",
    SAME_CATEGORY: "category-dominant",
}
ALONE = {SAME_ROW: "row", SAME_COLUMN: "column"}
"Where one of the two is significant, and is not shown to be more than the other."
BOTH, NONE = "row-and-column", "none"
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Effect:
    """How alike the pairs of one relation are, and how much more than unrelated ones."""

    relation: str
    pairs: int
    mean: float
    sd: float
    shift: float
    "Mean less that of unrelated pairs."
    p: float
    "Of the shift: one-sided, by permutation, corrected for the number of relations."
    p_all_layers: float
    "Corrected for the number of layers that were looked at too."

    @property
    def significant(self) -> bool:
        """At 5 %, all layers that were looked at together counted as one question."""
        return self.p_all_layers < ALPHA


@dataclass(frozen=True)
class Organisation:
    """What the facts are ordered by at one layer."""

    type: str
    "One of `TYPES` or `ALONE`, `row-and-column`, or `none` where nothing is significant."
    effects: tuple[Effect, ...]
    unrelated_mean: float
    unrelated_sd: float
    unrelated_pairs: int
    row_less_column: float | None
    "Mean similarity within a row less that within the column of the same operand."
    row_column_p: float | None
    "Two-sided, by flipping signs over operands."
    draws: int

    def effect(self, relation: str) -> Effect | None:
        """What was found for a relation; None where no pair has it."""
        return next((one for one in self.effects if one.relation == relation), None)


def organisation(
    similarities: Array, relations: Relations, facts: FactSet, *, draws: int = DRAWS, seed: int = 0
) -> list[Organisation]:
    """What the facts are ordered by, layer by layer; similarities (layers, facts, facts)."""
    names = relations.tested
    if not names:
        return [_nothing(each, relations, draws) for each in similarities]
    found = relation_shifts(
        similarities,
        {name: relations.pairs[name] for name in names},
        relations.pairs[UNRELATED],
        draws=draws,
        seed=seed,
    )
    described = []
    for layer, each in enumerate(similarities):
        effects = tuple(
            Effect(
                name,
                len(relations.pairs[name]),
                *_described(each, relations, name),
                float(found.shift[layer, i]),
                float(found.p[layer, i]),
                float(found.p_all[layer, i]),
            )
            for i, name in enumerate(names)
        )
        differences = row_less_column(each, facts)
        p = sign_flip(differences, seed=seed) if differences else None
        mean, sd = _described(each, relations, UNRELATED)
        shift = float(np.mean(differences)) if differences else None
        type = _type(effects, p)
        described.append(
            Organisation(type, effects, mean, sd, relations.unrelated, shift, p, draws)
        )
    return described


def row_less_column(similarities: Array, facts: FactSet) -> list[float]:
    """For each operand how alike its row is, less how alike its column is."""
    if not facts.has_operands:
        return []
    pairs = [fact.operands or ("", "") for fact in facts.facts]
    found = []
    for operand in dict.fromkeys(pair[0] for pair in pairs):
        row, column = ([i for i, pair in enumerate(pairs) if pair[k] == operand] for k in (0, 1))
        if min(len(row), len(column)) > 1:
            found.append(_alike(similarities, row) - _alike(similarities, column))
    return found


def _alike(similarities: Array, members: list[int]) -> float:
    inside = similarities[np.ix_(members, members)]
    return float((inside.sum() - np.trace(inside)) / (len(members) * (len(members) - 1)))


def _described(similarities: Array, relations: Relations, name: str) -> tuple[float, float]:
    pairs = relations.pairs.get(name)
    if pairs is None:
        return float("nan"), float("nan")
    found = similarities[pairs[:, 0], pairs[:, 1]]
    return float(found.mean()), float(found.std())


def _type(effects: tuple[Effect, ...], row_column_p: float | None) -> str:
    significant = {one.relation: one for one in effects if one.significant}
    if not significant:
        return NONE
    largest, *others = sorted(significant, key=lambda name: -significant[name].shift)
    if largest == COMMUTATIVE and others[:1] == [SAME_ANSWER]:
        # Swapped operands have the same answer too: only other pairs with one answer can tell,
        # and those have to be more alike than what shares a row, a column or a category.
        return TYPES[SAME_ANSWER]
    if largest not in (SAME_ROW, SAME_COLUMN):
        return TYPES[largest]
    if row_column_p is not None and row_column_p < ALPHA:
        return TYPES[largest]
    both = {SAME_ROW, SAME_COLUMN} <= significant.keys()
    return BOTH if both else ALONE[largest]


def _nothing(similarities: Array, relations: Relations, draws: int) -> Organisation:
    mean, sd = _described(similarities, relations, UNRELATED)
    return Organisation(NONE, (), mean, sd, relations.unrelated, None, None, draws)
