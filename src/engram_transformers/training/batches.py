"""Texts side by side, or one behind the other, for one step; and what a host makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from engram_transformers.attaching import prompt_ends
from engram_transformers.errors import BadInput
from engram_transformers.models.adapter import Adapter
from engram_transformers.models.late import Below, LatePass
from engram_transformers.models.passes import padded
from engram_transformers.training.examples import Example

ROOM = 2 * 2**30
"Bytes of states that are kept at most; batches beyond are run whole."


@dataclass
class Batch:
    """Texts that are trained in one step."""

    ids: Tensor
    "(rows, time), without what all texts begin with; padded on the right."
    mask: Tensor
    "(rows, time): 0 where there is padding."
    at: tuple[Tensor, Tensor]
    "Rows and columns of the states that predict what is learned."
    wanted: Tensor
    "(tokens learned,)"
    sizes: list[int]
    "Tokens learned of each text."
    prompt_ends: tuple[int, ...] | None = None
    "Tokens of each row's prompt; None where that is unknown."
    positions: Tensor | None = None
    "(rows, time) where rows hold several texts, each counted from 0."
    below: Below | None = None
    "What the frozen blocks give for it, where that is kept."


def padded_batches(
    examples: Sequence[Example], size: int, *, seed: int, skip: int, device: torch.device
) -> list[Batch]:
    """Texts of like length side by side; which of them, among equals, the seed decides.

    Args:
        skip: tokens that all texts begin with, which are left out.
    """
    noise = torch.Generator().manual_seed(seed)
    mixed = torch.randperm(len(examples), generator=noise).tolist()
    order = sorted(mixed, key=lambda i: len(examples[i].ids))
    groups = [order[i : i + size] for i in range(0, len(order), size)]
    return [_padded([examples[i] for i in group], skip=skip, device=device) for group in groups]


def packed_batches(
    examples: Sequence[Example], size: int, *, seed: int, longest: int, device: torch.device
) -> list[Batch]:
    """Texts one behind the other, in rows of at most `longest` tokens, in an order of the seed's.

    Padding, at the end of a row, is one more text of which nothing is learned.
    """
    noise = torch.Generator().manual_seed(seed)
    rows: list[list[Example]] = []
    room = 0
    for i in torch.randperm(len(examples), generator=noise).tolist():
        needed = len(examples[i].ids) - 1
        if needed > room:
            rows.append([])
            room = longest
        rows[-1].append(examples[i])
        room -= needed
    groups = [rows[i : i + size] for i in range(0, len(rows), size)]
    return [_packed(group, device=device) for group in groups]


def keep_below(late: LatePass, batches: Sequence[Batch], *, room: int = ROOM) -> None:
    """Run the frozen blocks once for each batch, as far as there is room for what they give."""
    for batch in batches:
        if room <= 0:
            return
        batch.below = late.keep(batch.ids, batch.mask, batch.positions)
        room -= 0 if batch.below is None else batch.below.states.nbytes


def predictions(adapter: Adapter, late: LatePass, batch: Batch) -> Tensor:
    """(tokens learned, vocabulary): the logits of what is learned, and no others."""
    if batch.prompt_ends is None:
        states = late(batch.ids, batch.mask, batch.below, batch.positions)
    else:
        with prompt_ends(adapter.model, batch.prompt_ends):
            states = late(batch.ids, batch.mask, batch.below, batch.positions)
    if torch.is_grad_enabled() and not states.requires_grad:
        raise BadInput(
            f"nothing that is trained acts on texts of up to {batch.ids.shape[1]} tokens like "
            "these; an implicit memory acts from its second chunk on: use longer texts, or a "
            "smaller chunk"
        )
    return adapter.logits(states[batch.at])


def exact_in(logits: Tensor, batch: Batch) -> int:
    """Texts all of whose learned tokens are the first choice."""
    right = torch.split(logits.argmax(dim=-1) == batch.wanted, batch.sizes)
    return sum(bool(one.all()) for one in right)


def _padded(examples: Sequence[Example], *, skip: int, device: torch.device) -> Batch:
    # The last token of a text is predicted, never read.
    texts = [each.ids[skip:-1] for each in examples]
    ids, mask = padded(texts, device=device)
    places = [(row, i - skip - 1) for row, each in enumerate(examples) for i in each.learnt]
    prompts = tuple(each.prompt for each in examples if each.prompt is not None)
    return Batch(
        ids=ids,
        mask=mask,
        at=_places(places, device),
        wanted=_wanted(examples, device),
        sizes=[len(each.learnt) for each in examples],
        prompt_ends=prompts if len(prompts) == len(examples) else None,
    )


def _packed(rows: Sequence[Sequence[Example]], *, device: torch.device) -> Batch:
    width = max(sum(len(each.ids) - 1 for each in row) for row in rows)
    ids, positions, mask, places = [], [], [], []
    for number, row in enumerate(rows):
        texts = [each.ids[:-1] for each in row]
        begins = _sums([len(text) for text in texts])
        rest = width - begins[-1]
        ids.append([token for text in texts for token in text] + [0] * rest)
        positions.append([i for text in [*texts, range(rest)] for i in range(len(text))])
        mask.append([1] * begins[-1] + [0] * rest)
        places += [
            (number, start + i - 1)
            for each, start in zip(row, begins, strict=False)
            for i in each.learnt
        ]
    flat = [each for row in rows for each in row]
    return Batch(
        ids=torch.tensor(ids, device=device),
        mask=torch.tensor(mask, device=device),
        at=_places(places, device),
        wanted=_wanted(flat, device),
        sizes=[len(each.learnt) for each in flat],
        positions=torch.tensor(positions, device=device),
    )


def _sums(sizes: Sequence[int]) -> list[int]:
    found = [0]
    for size in sizes:
        found.append(found[-1] + size)
    return found


def _places(places: Sequence[tuple[int, int]], device: torch.device) -> tuple[Tensor, Tensor]:
    rows, columns = torch.tensor(places, device=device).T
    return rows, columns


def _wanted(examples: Sequence[Example], device: torch.device) -> Tensor:
    return torch.tensor([each.ids[i] for each in examples for i in each.learnt], device=device)
