"""Probes of a host's ordinary ability: texts, and what may follow them.

Worded as lm-evaluation-harness words them, so that numbers compare. Cases are drawn with a seed.
"""

from __future__ import annotations

import json
import random
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import TypeVar

from engram_transformers.evaluation.data import Row, data_file, rows, text
from engram_transformers.evaluation.task import drawn

T = TypeVar("T")


@dataclass(frozen=True)
class Case:
    """A text and what may follow it; one of the choices is right."""

    id: str
    context: str
    choices: tuple[str, ...]
    right: int = 0


def lambada(n: int | None, *, seed: int = 0) -> list[Case]:
    """Passages whose last word is to be written: a single choice, with its space."""
    return [
        Case(str(i), row["context"], (" " + row["continuation"],))
        for i, row in _numbered(rows("probes/lambada_openai.jsonl"), n, seed=seed)
    ]


def arc_easy(n: int | None, *, seed: int = 0) -> list[Case]:
    """Questions of school science with three to five answers."""
    return _questions("probes/arc_easy.jsonl", n, seed=seed)


def piqa(n: int | None, *, seed: int = 0) -> list[Case]:
    """Everyday goals with two ways to reach them."""
    return _questions("probes/piqa.jsonl", n, seed=seed)


def blimp(n: int | None, *, seed: int = 0) -> list[Case]:
    """Pairs of sentences, the grammatical one first, as many of each of the 67 paradigms.

    Where n is no multiple of 67, some paradigms, drawn with the seed, give one more.
    """
    columns = [_shuffled(pairs, seed=seed) for pairs in _paradigms()]
    order = _shuffled(columns, seed=seed)
    cases = [case for case in chain(*zip_longest(*order)) if case is not None]
    return cases[:n]


PROBES: dict[str, Callable[..., list[Case]]] = {
    "lambada": lambada,
    "blimp": blimp,
    "arc_easy": arc_easy,
    "piqa": piqa,
}


def wikitext() -> str:
    """The validation text of WikiText-2, tokenised form."""
    return text("text/wikitext2_valid.txt")


def _questions(name: str, n: int | None, *, seed: int) -> list[Case]:
    return [
        Case(
            str(i),
            row["query"].removesuffix("\n") + "\nAnswer:",
            tuple(" " + choice for choice in row["choices"]),
            row["gold"],
        )
        for i, row in _numbered(rows(name), n, seed=seed)
    ]


def _numbered(found: list[Row], n: int | None, *, seed: int) -> list[tuple[int, Row]]:
    """Drawn rows with their places in the file."""
    return drawn(list(enumerate(found)), n, seed=seed)


def _paradigms() -> Iterator[list[Case]]:
    with zipfile.ZipFile(data_file("probes/blimp.zip")) as archive:
        # A Mac's archive holds a shadow of each file.
        names = (n for n in archive.namelist() if n.startswith("data/") and n.endswith(".jsonl"))
        for name in sorted(names):
            yield [_pair(json.loads(line)) for line in archive.read(name).decode().splitlines()]


def _pair(row: Row) -> Case:
    # lm-evaluation-harness puts its delimiter, a space, before the sentences too.
    choices = (" " + row["sentence_good"], " " + row["sentence_bad"])
    return Case(f"{row['UID']}/{row['pairID']}", "", choices)


def _shuffled(items: list[T], *, seed: int) -> list[T]:
    return random.Random(seed).sample(items, len(items))
