"""Trains vectors that stand before a question so that its answer comes: a soft prompt.

Lester et al. 2021 (arXiv 2104.08691), one for each fact. The loss is on all tokens of the answer
and on the one that ends it, never on the prompt. What stands before the vectors is read once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from engram_transformers.errors import BadInput, TrainingDiverged
from engram_transformers.memories.shared.behind import Steps
from engram_transformers.models.adapter import Adapter
from engram_transformers.models.passes import branched
from engram_transformers.models.trace import changed_input


@dataclass(frozen=True)
class Lesson:
    """A wording with the answer that is to come behind it, in token ids."""

    question: tuple[int, ...]
    "What stands behind the vectors, up to where the answer begins."
    answer: tuple[int, ...]
    "With the token that ends it."


@dataclass(frozen=True)
class Trained:
    """Vectors, and how far they came."""

    vectors: Tensor
    "(slots, hidden): what the first block is given in their places."
    losses: tuple[float, ...]
    "Of each step, the mean over the answer's tokens in nats."


def start(adapter: Adapter, text: str, *, slots: int, seed: int) -> Tensor:
    """(slots, hidden) embeddings of tokens drawn at random, the same for the same text and seed."""
    if slots < 1:
        raise BadInput(f"slots is {slots}; a soft prompt has at least 1")
    digest = hashlib.sha256(f"{seed}\n{text}".encode()).digest()
    draw = torch.Generator().manual_seed(int.from_bytes(digest[:7]))
    ids = torch.randint(adapter.vocab_size, (slots,), generator=draw)
    return embedded(adapter, ids)


@torch.no_grad()
def embedded(adapter: Adapter, ids: Tensor) -> Tensor:
    """(tokens, hidden) that the first block is given for these tokens, without any position."""
    found: Tensor = adapter.input_embeddings(ids.to(adapter.device))
    return found.float().clone()


def usual_norm(adapter: Adapter) -> float:
    """The mean length of the host's token embeddings."""
    every = max(1, adapter.vocab_size // 4096)
    ids = torch.arange(0, adapter.vocab_size, every)
    return float(embedded(adapter, ids).norm(dim=-1).mean())


def train(
    adapter: Adapter,
    lessons: Sequence[Lesson],
    *,
    begin: Tensor,
    steps: Steps,
    past: Any = None,
    placeholder: int = 0,
) -> Trained:
    """Change vectors by Adam, a wording a step in turn, until every one of them is sure.

    Args:
        begin: (slots, hidden) where they start.
        steps: the learning rate is in units of the usual size of an embedding's numbers.
        past: cache of what stands before them; it is left as it is.
        placeholder: the token that stands where they act.

    Raises:
        TrainingDiverged: the loss is no number.
    """
    vectors = begin.clone().requires_grad_()
    size = usual_norm(adapter) / adapter.hidden_size**0.5
    optimizer = torch.optim.Adam([vectors], lr=steps.learning_rate * size)
    losses: list[float] = []
    best, sure = (float("inf"), begin), [False] * len(lessons)
    for step in range(steps.most):
        lesson = lessons[step % len(lessons)]
        logits = _logits(adapter, lesson, vectors, branched(past), placeholder=placeholder)
        wanted = torch.tensor(lesson.answer, device=logits.device)
        loss = functional.cross_entropy(logits, wanted)
        _check(loss, steps)
        losses.append(float(loss.detach()))
        recent = sum(losses[-len(lessons) :]) / min(len(losses), len(lessons))
        if len(losses) >= len(lessons) and recent < best[0]:
            best = (recent, vectors.detach().clone())
        sure[step % len(lessons)] = _least(logits, wanted) >= (steps.enough or 2.0)
        if all(sure):
            break
        # Not `backward`: nothing of the host is to get a gradient.
        (vectors.grad,) = torch.autograd.grad(loss, [vectors])
        optimizer.step()
    return Trained(best[1], tuple(losses))


def _logits(
    adapter: Adapter, lesson: Lesson, vectors: Tensor, past: Any, *, placeholder: int
) -> Tensor:
    """(answer, vocab): what the host makes of each place where a token of the answer is due."""
    slots, answer = len(vectors), lesson.answer
    ids = torch.tensor([[placeholder] * slots + [*lesson.question, *answer[:-1]]])
    cached = {} if past is None else {"past_key_values": past}
    with changed_input(adapter.layers[0], _put(vectors)):
        states = adapter.decoder(
            input_ids=ids.to(adapter.device), use_cache=past is not None, **cached
        )[0]
    return adapter.logits(states[0, -len(answer) :])


def _put(vectors: Tensor) -> Callable[[Tensor], Tensor]:
    def change(states: Tensor) -> Tensor:
        return torch.cat([vectors.to(states)[None], states[:, len(vectors) :]], dim=1)

    return change


def _least(logits: Tensor, wanted: Tensor) -> float:
    chances = logits.detach().softmax(dim=-1)
    return float(chances.gather(1, wanted[:, None]).min())


def _check(loss: Tensor, steps: Steps) -> None:
    if not torch.isfinite(loss):
        raise TrainingDiverged(
            f"the loss of a soft prompt is no number; use a learning_rate below "
            f"{steps.learning_rate:g}"
        )
