"""Keys with values: drawn at random, or those of an evaluation task."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

from engram_transformers.errors import BadInput
from engram_transformers.evaluation.task import load_task
from engram_transformers.models.tokens import HostTokens
from engram_transformers.types import Fact

POOL = 100_000
"Numbers that random keys are drawn from."
_WORD = re.compile(r" [a-z]{3,10}")


def keys_of(name: str, count: int, *, seed: int) -> list[Fact]:
    """So many keys of a set at most, none of them twice.

    Raises:
        UnknownTask: there is no such set.
        DataMissing: it is not on this machine.
    """
    if name == "random":
        return random_keys(count, seed=seed)
    prompts = {fact.prompt: fact for fact in load_task(name).facts}
    found = list(prompts.values())
    random.Random(seed).shuffle(found)
    return found[:count]


def random_keys(count: int, *, seed: int, words: Sequence[str] = ()) -> list[Fact]:
    """`SYN_00042` and the like, each with one of the words, or with four digits if there are none.

    Nothing tells the values but having seen them.
    """
    draw = random.Random(seed)
    numbers = draw.sample(range(POOL), count)
    values = [draw.choice(words) if words else f"{draw.randrange(10_000):04d}" for _ in numbers]
    return [Fact(f"SYN_{number:05d}", value) for number, value in zip(numbers, values, strict=True)]


def words_of(tokens: HostTokens, *, vocab: int) -> list[str]:
    """Words that a host writes as one token behind a space.

    Raises:
        BadInput: it has none.
    """
    found = [text[1:] for token in range(vocab) if _WORD.fullmatch(text := tokens.text_of(token))]
    if not found:
        raise BadInput("the host's tokenizer has no whole words; use values=digits")
    return sorted(set(found))
