"""Facts to inject as a person writes them, and the prompts beside them that are asked too."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Literal

from engram_transformers.errors import BadInput
from engram_transformers.memories.rank_one.subject import subject_in
from engram_transformers.models.tokens import Form, HostTokens
from engram_transformers.types import Fact

Group = Literal["fact", "test", "reworded", "partner", "near"]
_NUMBER, _SIGN = r"\d+(?:\.\d+)?", r"\s*[-+*x×/]\s*"
_CALCULATION = re.compile(rf"\s*{_NUMBER}(?:{_SIGN}{_NUMBER})+\s*=?\s*")
_OF_TWO = re.compile(rf"\s*({_NUMBER})({_SIGN})({_NUMBER})(\s*=?)\s*")
_ACTS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}
_ACTS |= {"x": operator.mul, "×": operator.mul}
_COMMUTES = "+*x×"
_SPOKEN = {"+": "plus", "-": "minus", "*": "times", "x": "times", "×": "times", "/": "divided by"}
OTHERS = ("Rosenheim", "Alice Carter", "the northern harbour")
"Subjects that stand in for a fact's own, to see whether it is told apart."


@dataclass(frozen=True)
class Asked:
    """A prompt that is asked before and after, because of a fact or because somebody wants it."""

    prompt: str
    group: Group
    fact: int
    "Which of the facts its answer is compared with."


def injected_fact(text: str) -> Fact:
    """The fact that `QUERY=ANSWER` or `PROMPT => ANSWER` says.

    The last `=` divides; it stays with the query where that is arithmetic, as in `7*8=42`.

    Raises:
        BadInput: there is no answer, or nothing that it answers.
    """
    if "=>" in text:
        prompt, _, answer = text.rpartition("=>")
        prompt = prompt.strip()
    else:
        query, equals, answer = text.rpartition("=") if "=" in text else (text, "", "")
        prompt = (query + equals if _CALCULATION.fullmatch(query) else query).strip()
    if not answer.strip() or not prompt.strip(" ="):
        raise BadInput(
            f"--fact {text!r} has no {'answer' if prompt.strip() else 'prompt'}; write "
            "QUERY=ANSWER or PROMPT => ANSWER, such as '7*8=42'"
        )
    return Fact(prompt, answer.strip(), subject=subject_in(prompt))


def form_of(prompt: str, tokens: HostTokens, *, chat: bool = False) -> Form:
    """How a prompt is asked: a question through the chat template, what begins a line as it is."""
    return "chat" if tokens.turn and (chat or prompt.rstrip().endswith("?")) else "plain"


def result_of(prompt: str) -> str | None:
    """What an operation of two numbers comes to; None for any other prompt."""
    parts = _OF_TWO.fullmatch(prompt)
    if parts is None:
        return None
    a, sign, b = Decimal(parts[1]), parts[2].strip(), Decimal(parts[3])
    if sign == "/" and (not b or a % b):
        return None
    return f"{_ACTS[sign](a, b).normalize():f}"


def has_neighbours(fact: Fact) -> bool:
    """Whether near prompts can be made of a fact: of its operands, or with another subject."""
    return _CALCULATION.fullmatch(fact.prompt) is not None or bool(
        fact.subject and fact.subject in fact.prompt
    )


def beside(fact: Fact, number: int) -> Iterator[Asked]:
    """What is asked because of a fact: other wordings, its operands swapped, its neighbours.

    A chain such as `2+3*4=` has wordings alone.
    """
    for text in dict.fromkeys(_wordings(fact.prompt)):
        if text != fact.prompt:
            yield Asked(text, "reworded", number)
    subject = fact.subject or fact.prompt
    if parts := _OF_TWO.fullmatch(fact.prompt) or _OF_TWO.fullmatch(subject):
        for asked in _operands(parts, number):
            yield replace(asked, prompt=fact.prompt.replace(parts.group(), asked.prompt))
    elif not _CALCULATION.fullmatch(fact.prompt) and has_neighbours(fact):
        for other in OTHERS:
            prompt = fact.prompt.replace(subject, other).replace("the the ", "the ")
            yield Asked(prompt, "near", number)


def _wordings(prompt: str) -> Iterator[str]:
    if not _CALCULATION.fullmatch(prompt):
        yield prompt.lower()
        yield f"Tell me, {prompt[:1].lower()}{prompt[1:]}"
        return
    bare = prompt.strip(" =")
    tight = _with_signs(bare, "{}".format)
    yield f"{tight}=" if tight != bare else f"{_with_signs(bare, ' {} '.format)} ="
    yield f"What is {bare}?"
    yield f"{_with_signs(bare, lambda sign: f' {_SPOKEN[sign]} ')} is"


def _with_signs(calculation: str, written: Callable[[str], str]) -> str:
    return re.sub(_SIGN, lambda sign: written(sign.group().strip()), calculation)


def _operands(parts: re.Match[str], number: int) -> Iterator[Asked]:
    """The operands swapped, and others, written as the fact is."""
    a, sign, b, end = parts.groups()
    if sign.strip() in _COMMUTES and a != b:
        yield Asked(f"{b}{sign}{a}{end}", "partner", number)
    for one, other in ((a, Decimal(b) + 1), (Decimal(a) + 1, b)):
        yield Asked(f"{one}{sign}{other}{end}", "near", number)
