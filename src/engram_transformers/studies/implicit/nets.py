"""The small decoders: made, trained together with their memory, and read in windows."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from engram_transformers.attaching import attach
from engram_transformers.errors import BadInput, TrainingDiverged
from engram_transformers.memories.implicit import Implicit, ImplicitConfig
from engram_transformers.models.adapter import Adapter
from engram_transformers.models.fresh import fresh_decoder
from engram_transformers.studies.implicit.options import NONE, WHOLE, Options
from engram_transformers.studies.implicit.texts import Text
from engram_transformers.studies.options import configured
from engram_transformers.training.rate import shares

BETAS = (0.9, 0.95)
DECAY = 0.01
LONGEST = 1.0
"Of a gradient that is not cut."
KEPT = 20
"Losses of training that are kept."
How = Literal["own", "emptied", "another's"]
"Whose slots are read: those of the text, none in any window, or those of another text."


@dataclass(frozen=True)
class Net:
    """A decoder that sees a window at a time, with a memory or without one."""

    model: Any
    memory: Implicit | None
    whole: bool
    "Whether it sees the whole text at once, for comparison."

    def logits(self, ids: Tensor, how: How = "own") -> Tensor:
        """(texts, windows, window, vocab) of ids (texts, windows, window)."""
        given = ids.flatten(1) if self.whole else ids.flatten(0, 1)
        with self._reading(ids.shape[1], how):
            found: Tensor = self.model(input_ids=given, use_cache=False).logits
        return found.view(*ids.shape, -1)

    def losses(self, ids: Tensor, how: How = "own") -> Tensor:
        """(texts, windows, window - 1): nats of each token but the first of a window."""
        logits = self.logits(ids, how)[:, :, :-1]
        wanted = ids[:, :, 1:]
        flat = functional.cross_entropy(logits.flatten(0, 2), wanted.flatten(), reduction="none")
        return flat.view(wanted.shape)

    def _reading(self, windows: int, how: How) -> Any:
        if self.memory is None:
            return nullcontext()
        if how == "emptied":
            return self.memory.windows(1)
        return self.memory.windows(windows, others=int(how == "another's"))


def made(variant: str, changes: dict[str, Any], text: Text, options: Options, seed: int) -> Net:
    """A fresh decoder and its memory, attached.

    Args:
        changes: options of the memory that are other than the study's own.
    """
    whole = variant == WHOLE
    model = fresh_decoder(
        vocab=text.vocab,
        hidden=options.hidden,
        blocks=options.blocks,
        heads=options.heads,
        inner=options.inner,
        context=text.window * (options.windows if whole else 1),
        seed=seed,
        # So that what tokens have in common does not soon outgrow what tells them apart.
        spread=options.hidden**-0.5,
    )
    if variant in (NONE, WHOLE):
        return Net(model, None, whole)
    if not 0 <= options.layer < options.blocks:
        raise BadInput(f"layer is {options.layer}, and there are {options.blocks} blocks")
    own = {
        "form": variant,
        "layers": (options.layer,),
        "slots": options.windows * text.window // 2,
        # All tokens compete for slots that half of them fill; low rank halves each chunk.
        "writes": text.window // (2 if variant == "linformer" else 1),
        "width": options.hidden,
        "chunk": text.window,
        "kernel": text.kernel,
        "seed": seed,
    }
    config = configured(ImplicitConfig, own | changes)
    memory = Implicit.open(Adapter(model), None, config)
    attach(model, memory)
    return Net(model, memory, whole)


def train(
    net: Net, text: Text, options: Options, *, seed: int, progress: Callable[[], None]
) -> list[tuple[int, float]]:
    """Train decoder and memory together; the loss on the way, with the step.

    Raises:
        TrainingDiverged: the loss is no number any more.
    """
    ours = [] if net.memory is None else list(net.memory.parameters())
    every = [*net.model.parameters(), *ours]
    optimizer = torch.optim.AdamW(every, lr=options.learning_rate, betas=BETAS, weight_decay=DECAY)
    rate = torch.optim.lr_scheduler.LambdaLR(optimizer, shares(options.steps))
    draw, kept, recent = random.Random(seed), max(1, options.steps // KEPT), []
    losses: list[tuple[int, float]] = []
    net.model.train()
    for step in range(1, options.steps + 1):
        windows = 2 if step <= options.early * options.steps else options.windows
        loss = net.losses(text.batch(options.batch, windows=windows, draw=draw)).mean()
        recent.append(float(loss.detach()))
        if not math.isfinite(recent[-1]):
            raise TrainingDiverged(
                f"the loss was no number any more in step {step}; use a learning_rate below "
                f"{options.learning_rate:g}"
            )
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(every, LONGEST)
        optimizer.step()
        rate.step()
        if step % kept == 0:
            losses.append((step, round(sum(recent) / len(recent), 4)))
            recent = []
        progress()
    net.model.eval()
    return losses
