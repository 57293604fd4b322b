"""What is measured of a trained net, with controls; and the seed's similarity, beside its null."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from engram_transformers.memories.implicit.layer import Usage
from engram_transformers.studies.implicit.nets import How, Net
from engram_transformers.studies.implicit.texts import SEQUENCES, Held, Needles, Text

GROUPS = ("repeats", "others")
DEAD = 0.01
"Share of the mean reading below which a slot counts as dead."
ROWS = 16
"Texts of which it is the mean."


@torch.no_grad()
def losses(net: Net, held: Held) -> dict[str, dict[str, float]]:
    """Nats a token, by whose slots are read and by what the tokens are."""
    ways: tuple[How, ...] = ("own",) if net.memory is None else ("own", "emptied", "another's")
    found: dict[str, dict[str, float]] = {}
    for how in ways:
        nats = net.losses(held.ids, how)
        found[how] = {name: float(nats[mask].mean()) for name, mask in _groups(held).items()}
    return found


@torch.no_grad()
def influence(net: Net, held: Held) -> dict[str, float]:
    """Kullback-Leibler divergence in nats of what is said with the slots from without them."""
    own, empty = (
        torch.log_softmax(net.logits(held.ids, how)[:, :, :-1], -1) for how in ("own", "emptied")
    )
    divergence = (own.exp() * (own - empty)).sum(-1)
    return {name: float(divergence[mask].mean()) for name, mask in _groups(held).items()}


@torch.no_grad()
def recall(net: Net, needles: Needles) -> dict[str, Any]:
    """Answers said in full by greedy decoding, and their log-probability, by what was read before.

    One pass over question and answer decides: decoding says the answer exactly where each of its
    tokens is the first choice behind those before it.
    """
    ways: dict[str, tuple[Tensor, How]] = {"right": (needles.ids, "own")}
    if net.memory is not None:
        ways |= {"empty": (needles.ids, "emptied"), "wrong": (needles.wrong, "own")}
    found: dict[str, Any] = {"distance": needles.distance, "n": len(needles.ids)}
    for name, (ids, how) in ways.items():
        logits = torch.log_softmax(net.logits(ids, how)[:, -1], -1)
        exact, nats = [], []
        for row, size in enumerate(needles.answers):
            before, answer = logits[row, -size - 1 : -1], ids[row, -1, -size:]
            exact.append(bool((before.argmax(-1) == answer).all()))
            nats.append(float(before.gather(1, answer[:, None]).mean()))
        found[name] = {"said": sum(exact), "log-probability": sum(nats) / len(nats)}
    return found


@torch.no_grad()
def usage(net: Net, held: Held) -> dict[str, Any]:
    """How slots are read in the last window, how they were written, and how alike they are."""
    seen = _watched(net, held.ids)
    reads = seen.reads[-1].mean((0, 1))
    written = torch.stack(seen.writes).sum(0).mean(0)
    last = seen.after[-1]
    content = last.values if last.values.shape[-1] else last.keys
    return {
        "read entropy": _entropy(reads),
        "write entropy": _entropy(written),
        "dead": float((reads < DEAD * reads.mean()).float().mean()),
        "cosine": _alike(content),
        "read": float(seen.reads[-1].sum(-1).mean()),
        "reads": _scaled(reads),
        "writes": _scaled(written),
    }


@torch.no_grad()
def similarity(net: Net, text: Text, *, seed: int) -> dict[str, Any]:
    """The seed's similarity of slots and mean states, of text and of random tokens.

    It says nothing about recall: see what it is of a net that nobody trained.
    """
    ids = text.held_out(ROWS, windows=SEQUENCES).ids
    draw = torch.Generator().manual_seed(seed)
    noise = torch.randint(0, text.vocab, ids.shape, generator=draw)
    found: dict[str, Any] = {
        "text": _followed(_watched(net, ids)),
        "random tokens": _followed(_watched(net, noise)),
    }
    needles = text.needles(ROWS, windows=2, distance=1)
    for name, given in (("the fact", needles.ids), ("another fact", needles.wrong)):
        seen = _watched(net, given)
        found[name] = _similar(seen.after[0].keys, seen.means[1])
    return found


def _groups(held: Held) -> dict[str, Tensor]:
    repeats = held.repeats[:, :, 1:]
    return {"repeats": repeats, "others": ~repeats}


def _watched(net: Net, ids: Tensor) -> Usage:
    assert net.memory is not None
    with net.memory.watched() as seen:
        net.logits(ids)
    return seen[0]


def _followed(seen: Usage) -> list[float]:
    pairs = zip(seen.after, seen.means, strict=True)
    return [_similar(slots.keys, mean) for slots, mean in pairs]


def _similar(slots: Tensor, mean: Tensor) -> float:
    """Mean cosine of slots (rows, slots, hidden) and states (rows, hidden)."""
    return float(functional.cosine_similarity(slots, mean[:, None], dim=-1).mean())


def _entropy(weights: Tensor) -> float:
    """Of weights (slots,), from 0 for a single slot to 1 for all alike."""
    shares = weights / weights.sum().clamp_min(1e-12)
    bits = -(shares * shares.clamp_min(1e-12).log()).sum()
    return float(bits) / math.log(len(weights)) if len(weights) > 1 else 0.0


def _alike(content: Tensor) -> float:
    """Mean cosine of two slots (rows, slots, width) of a sequence."""
    units = functional.normalize(content, dim=-1)
    count = units.shape[1]
    together = (units @ units.transpose(1, 2)).sum((1, 2)) - count
    return float((together / max(1, count * (count - 1))).mean())


def _scaled(weights: Tensor) -> list[float]:
    return [round(float(each), 4) for each in weights / weights.max().clamp_min(1e-12)]
