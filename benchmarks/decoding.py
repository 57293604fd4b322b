"""What a model says of texts, and whether it says the same however it is made to read them.

Both sides of `benchmarks/engram_peft.py` import this, each in an environment of its own, so it
knows torch and the calls that every model of transformers has, and nothing of either library.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

CHUNK = 5
"Tokens that a prompt is read by, in chunks."
WRITTEN = 16
"Tokens written to see whether a cache changes them; the end token is not allowed before."
BEAMS = 4
GAPS = ("token by token", "in chunks", "padded on the left", "one token after another text")
SHARES = ("greedy", "beams")


@dataclass(frozen=True)
class Text:
    """A prompt with its answer, the end token included."""

    ids: tuple[int, ...]
    prompt: int
    "How many of the ids are the prompt."

    @property
    def row(self) -> Tensor:
        """(1, time)"""
        return torch.tensor([self.ids])


@torch.no_grad()
def losses(model: Any, texts: Sequence[Text]) -> dict[str, float]:
    """Nats a token of the answers, and the share of answers whose every token is the first choice.

    Each text is read alone, whole and without a cache, so that nothing of how it is read counts.
    """
    total, tokens, exact = 0.0, 0, 0
    for text in texts:
        logits = _whole(model, text.row)[0, text.prompt - 1 : -1]
        wanted = text.row[0, text.prompt :]
        total += float(functional.cross_entropy(logits, wanted, reduction="sum"))
        tokens += len(wanted)
        exact += bool((logits.argmax(-1) == wanted).all())
    return {"loss": total / tokens, "exact": exact / len(texts)}


@torch.no_grad()
def laws(model: Any, texts: Sequence[Text], *, pad: int) -> dict[str, float]:
    """The largest difference of logits by way of reading; the share of prompts answered alike.

    `spread` is the standard deviation of the logits, which the differences are to be held against.
    """
    whole = [_whole(model, text.row) for text in texts]
    pairs = list(zip(texts, whole, strict=True))
    found = {
        "token by token": max(_gap(_cached(model, t.row, t.prompt, 1), w) for t, w in pairs),
        "in chunks": max(_gap(_cached(model, t.row, CHUNK, CHUNK), w) for t, w in pairs),
        "padded on the left": _gap_of_padded(model, pairs, pad=pad),
        "one token after another text": max(
            _gap_of_one(model, pairs, i) for i in range(len(pairs))
        ),
        "spread": float(torch.cat([w.flatten() for w in whole]).std()),
    }
    return {**found, **{name: _alike(model, texts, pad, name) for name in SHARES}}


def _whole(model: Any, ids: Tensor) -> Tensor:
    """(1, time, vocabulary): read at once, with no cache."""
    return model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits


def _cached(model: Any, ids: Tensor, first: int, size: int) -> Tensor:
    """The same, of which `first` tokens are read and then `size` more in each call."""
    past, found, at = None, [], 0
    while at < ids.shape[1]:
        to = at + (size if at else first)
        out = model(
            input_ids=ids[:, at:to],
            attention_mask=torch.ones_like(ids[:, :to]),
            past_key_values=past,
            use_cache=True,
        )
        past, at = out.past_key_values, to
        found.append(out.logits)
    return torch.cat(found, dim=1)


def _gap_of_padded(model: Any, pairs: Sequence[tuple[Text, Tensor]], *, pad: int) -> float:
    """A batch, padded on the left, against each of its texts alone."""
    width = max(len(text.ids) for text, _ in pairs)
    lefts = [width - len(text.ids) for text, _ in pairs]
    ids = [[*[pad] * left, *text.ids] for left, (text, _) in zip(lefts, pairs, strict=True)]
    mask = torch.tensor([[0] * left + [1] * (width - left) for left in lefts])
    positions = (mask.cumsum(1) - 1).clamp_min(0)  # as `generate` counts them
    batch = torch.tensor(ids)
    logits = model(
        input_ids=batch, attention_mask=mask, position_ids=positions, use_cache=False
    ).logits
    rows = zip(logits, lefts, pairs, strict=True)
    return max(_gap(row[None, left:], whole) for row, left, (_, whole) in rows)


def _gap_of_one(model: Any, pairs: Sequence[tuple[Text, Tensor]], i: int) -> float:
    """A text's first token by itself, after another text, against the same token in its text."""
    text, whole = pairs[i]
    _whole(model, pairs[i - 1][0].row)
    return _gap(_whole(model, text.row[:, :1]), whole[:, :1])


def _alike(model: Any, texts: Sequence[Text], pad: int, how: str) -> float:
    beams = BEAMS if how == "beams" else 1
    return sum(_same(model, text, pad, beams) for text in texts) / len(texts)


def _same(model: Any, text: Text, pad: int, beams: int) -> bool:
    """Whether a cache leaves what is written as it is."""
    ids = text.row[:, : text.prompt]
    written = [
        model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=WRITTEN,
            min_new_tokens=WRITTEN,
            num_beams=beams,
            do_sample=False,
            pad_token_id=pad,
            use_cache=use_cache,
        ).tolist()
        for use_cache in (True, False)
    ]
    return bool(written[0] == written[1])


def _gap(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max())
