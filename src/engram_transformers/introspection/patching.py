"""Put what a host has of one prompt into another, layer by layer: from where on does it answer it?

A state that is replaced at one block changes everything above. Where the patched prompt is answered
like the source, the state carried what decides the answer. Beside every patch stands a control of
the same size: the source's state with its coordinates in random order.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from engram_transformers.errors import BadInput
from engram_transformers.introspection.asking import check_prompt, joining, wanted
from engram_transformers.introspection.reading import Ids, Wanted
from engram_transformers.introspection.scoring import Scored, greedy, score
from engram_transformers.models.adapter import Adapter
from engram_transformers.models.passes import padded
from engram_transformers.models.tokens import Form, HostTokens
from engram_transformers.models.trace import Patch, Spots, block_states

EFFECTS = ("transferred", "still_target", "no_change", "changed")
WRITTEN = 8
"Tokens that are written to show what a patch does."


@dataclass(frozen=True)
class Patched:
    """What the target prompt does with a state of the source."""

    layer: int
    effect: str
    """One of `EFFECTS`: the source's whole answer is written; the target's still is, with something
    else behind it; exactly what was written without a patch; something else."""
    said: str
    source_logprob: float
    "Of the source's whole answer."
    target_logprob: float


@dataclass(frozen=True)
class PatchSweep:
    """All layers, the control, and what was said without any patch."""

    source: str
    target: str
    source_answer: str
    target_answer: str
    position: str
    source_said: str
    target_said: str
    target_alone: tuple[float, float]
    "Log-probabilities of the source's and the target's answer behind the target, unpatched."
    layers: tuple[Patched, ...]
    control: tuple[Patched, ...]

    @property
    def critical(self) -> int | None:
        """The first layer from which on every patch transfers the answer; None: there is none."""
        found = None
        for one in reversed(self.layers):
            if one.effect != "transferred":
                break
            found = one.layer
        return found


def patch(
    adapter: Adapter,
    tokens: HostTokens,
    source: str,
    target: str,
    *,
    layers: Sequence[int],
    source_answer: str | None = None,
    target_answer: str | None = None,
    position: str = "last",
    blend: float = 1.0,
    form: Form = "plain",
    seed: int = 0,
) -> PatchSweep:
    """Replace the target's state by the source's, at one layer after another.

    Args:
        source_answer, target_answer: what the host itself says when None.
        position: `last`, `all` (prompts of as many tokens) or an index of a token in both.
        blend: share of the source's state; the rest stays the target's.

    Raises:
        BadInput: equal answers, a position that is not in both prompts, an empty answer.
    """
    ids = [tuple(tokens.prompt_ids(text, form=form)) for text in (source, target)]
    for text, each in zip((source, target), ids, strict=True):
        check_prompt(adapter, text, each)
    columns = _columns(position, ids)
    said = [_said(tokens, each) for each in _alone(adapter, tokens, ids)]
    named = [
        first_words(own) if given is None else given
        for given, own in zip((source_answer, target_answer), said, strict=True)
    ]
    if named[0] == named[1]:
        raise BadInput(
            f"both prompts are answered {named[0]!r}, so a patch would not show; use others, or "
            "name the answers"
        )
    going_on = joining(adapter, tokens)
    behind = [wanted(tokens, 0, target, answer, form=form) for answer in named]
    alone = score(adapter, [ids[1]] * 2, behind, going_on).logprobs.tolist()
    own = [_states(adapter, each, at, layers) for each, at in zip(ids, columns, strict=True)]
    order = torch.randperm(adapter.hidden_size, generator=torch.Generator().manual_seed(seed))
    shuffled = own[0][..., order.to(own[0].device)]
    results = []
    for values in (own[0], shuffled):
        mixed = blend * values + (1 - blend) * own[1]
        results.append(
            _sweep(adapter, tokens, ids[1], behind, mixed, columns[1], layers, going_on, said[1])
        )
    return PatchSweep(
        source,
        target,
        named[0],
        named[1],
        position,
        said[0],
        said[1],
        (alone[0], alone[1]),
        *results,
    )


def first_words(text: str) -> str:
    """What a greedy continuation says first: up to a sign, or the end of its line."""
    return re.split(r"[.,;:!?\n]", text.strip(), maxsplit=1)[0].strip()


def _columns(position: str, ids: Sequence[Ids]) -> list[list[int]]:
    """Where the states stand, in the source and in the target."""
    if position == "last":
        return [[len(each) - 1] for each in ids]
    if position == "all":
        if len(ids[0]) != len(ids[1]):
            raise BadInput(
                f"position 'all' needs prompts of as many tokens; they have {len(ids[0])} and "
                f"{len(ids[1])}"
            )
        return [list(range(len(each))) for each in ids]
    try:
        index = int(position)
    except ValueError:
        raise BadInput(f"position {position!r} is not last, all or a token's index") from None
    if not all(-len(each) <= index < len(each) for each in ids):
        sizes = f"{len(ids[0])} and {len(ids[1])}"
        raise BadInput(f"there is no token {index} in both prompts; they have {sizes} tokens")
    return [[index % len(each)] for each in ids]


def _alone(adapter: Adapter, tokens: HostTokens, ids: Sequence[Ids]) -> list[Ids]:
    return greedy(adapter, ids, most=WRITTEN, stop=tokens.stop)


def _said(tokens: HostTokens, written: Ids) -> str:
    return tokens.decode_answer(written)


def _states(adapter: Adapter, ids: Ids, columns: list[int], layers: Sequence[int]) -> Tensor:
    """(layers, columns, hidden)."""
    spots = Spots.of([(0, column) for column in columns])
    return block_states(adapter, *padded([ids]), spots, layers=layers)


def _sweep(
    adapter: Adapter,
    tokens: HostTokens,
    target: Ids,
    answers: Sequence[Wanted],
    states: Tensor,
    columns: list[int],
    layers: Sequence[int],
    going_on: Tensor,
    unpatched: str,
) -> tuple[Patched, ...]:
    """Every layer in one pass: in row r the state is replaced at layer r alone."""
    count = len(layers)
    once = _patches(adapter, states, columns, layers, rows_each=1)
    written = greedy(adapter, [target] * count, most=WRITTEN, stop=tokens.stop, patches=once)
    twice = _patches(adapter, states, columns, layers, rows_each=2)
    scored = score(adapter, [target] * 2 * count, [*answers] * count, going_on, patches=twice)
    return tuple(
        Patched(
            layer,
            _effect(scored, i, said, unpatched),
            said,
            float(scored.logprobs[2 * i]),
            float(scored.logprobs[2 * i + 1]),
        )
        for i, (layer, said) in enumerate(
            zip(layers, (_said(tokens, each) for each in written), strict=True)
        )
    )


def _patches(
    adapter: Adapter, states: Tensor, columns: list[int], layers: Sequence[int], *, rows_each: int
) -> list[Patch]:
    found = []
    for i, layer in enumerate(layers):
        rows = range(i * rows_each, (i + 1) * rows_each)
        spots = Spots.of([(row, column) for row in rows for column in columns])
        values = states[i].repeat(rows_each, 1)
        found.append(Patch(adapter.place("block_out", layer), spots, values))
    return found


def _effect(scored: Scored, i: int, said: str, unpatched: str) -> str:
    if said == unpatched:
        return "no_change"
    if scored.ranks[2 * i] == 1:
        return "transferred"
    return "still_target" if scored.ranks[2 * i + 1] == 1 else "changed"
