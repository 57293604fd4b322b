"""LoRA behind a gate: what the host says alone and what it says with the LoRA, mixed by token.

    g = sigmoid(W2 relu(W1 y / rms(y) + b1) + b2)
    y' = y + g (t - y)         y where g is below the threshold: the host's own tensor, untouched

with `y` the final norm's output of the host alone and `t` that of the host with the LoRA. The head
is linear, so this mixes their logits, ``g tuned + (1 - g) base``, as the third seed's
`GatedEngramAdapter` does (before the soft cap, where a host has one). The gate of a token decides
what is said after that token and nothing else: the two readings never meet before the end.

The host's own pass is the bare one, with its cache. The tuned one is a second pass over the whole
text of those rows in which a gate is open; it keeps nothing, so that beams, cropped caches and
chunks cannot make it wrong. Where all gates are closed it is left out.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from engram_transformers.attaching import silenced
from engram_transformers.errors import BadInput, HostMismatch, UnsupportedCall
from engram_transformers.memories.lora.config import GatedLoraConfig, LoraConfig
from engram_transformers.memories.lora.memory import Lora
from engram_transformers.memories.lora.peft_folder import read_peft
from engram_transformers.memory import Row, Schedule, Signal
from engram_transformers.models.adapter import Adapter, Place
from engram_transformers.models.late import all_blocks
from engram_transformers.models.neutral import NEUTRAL
from engram_transformers.models.tokens import HostTokens
from engram_transformers.registry import config_of

Ids = NDArray[np.int64]
_numbers = itertools.count(1)
_tuning: ContextVar[int | None] = ContextVar("engram_tuning", default=None)
"Number of the memory whose LoRA acts now, in this thread."
START = -2.0
"The gate's last bias to begin with, as the third seed has it: rather shut."
REHEARSED = 8
"Tokens of the host's own answer to a neutral question that are trained."


@dataclass(frozen=True)
class TokenGates:
    """How far the gate is open behind each token of a text."""

    texts: tuple[str, ...]
    values: tuple[float, ...]
    "From 0 to 1; of what is said after the token."
    threshold: float
    "Below it, what is said is the host's own."


class Gate(nn.Module):
    """How much of the tuned reading is taken, from the host's own final state of a token."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.inner = nn.Linear(hidden, max(1, hidden // 4))
        self.outer = nn.Linear(max(1, hidden // 4), 1)
        nn.init.constant_(self.outer.bias, START)

    def forward(self, y: Tensor) -> Tensor:
        """(..., 1) in float32 of states (..., hidden)."""
        normed = functional.rms_norm(y.to(self.inner.weight), y.shape[-1:], eps=1e-6)
        return torch.sigmoid(self.outer(functional.relu(self.inner(normed))))


class GatedLora(nn.Module):
    """A LoRA that speaks where a gate, trained with it, lets it."""

    Config = GatedLoraConfig
    routed = False

    def __init__(self, config: GatedLoraConfig, *, adapter: Adapter) -> None:
        super().__init__()
        if not 0 <= config.threshold < 1:
            raise BadInput(f"threshold is {config.threshold}; it has to be from 0 to below 1")
        self.config, self.adapter, self.number = config, adapter, next(_numbers)
        own = LoraConfig(config.layers, config.rank, config.alpha, config.targets, seed=config.seed)
        self.lora = Lora(own, adapter=adapter)
        with torch.random.fork_rng():
            torch.manual_seed(config.seed)
            self.gate = Gate(adapter.hidden_size).to(adapter.device)
        self.soft = False
        self._rehearsed: set[bytes] = set()
        self._judged: list[tuple[Tensor, Tensor]] = []
        "Gates of the tokens read since the last penalty, and which of them ought to be open."
        # The host's own pass changes in no block.
        self.first_block = len(adapter.layers)

    @classmethod
    def open(cls, adapter: Adapter, tokens: HostTokens, config: GatedLoraConfig) -> Self:
        """A memory for a host that changes nothing yet; `MissingExtra` without PEFT."""
        return cls(config, adapter=adapter)

    @classmethod
    def of_peft(cls, folder: str | Path, adapter: Adapter, **options: Any) -> Self:
        """One whose LoRA is one that PEFT saved, and stays as it is: only the gate is trained.

        Raises:
            BadInput, HostMismatch, StoreDamaged: as `read_peft` does.
        """
        saved = read_peft(folder, adapter)
        own = {name: getattr(saved, name) for name in ("layers", "rank", "alpha", "targets")}
        memory = cls(config_of("gated_lora", {**options, **own}), adapter=adapter)
        try:
            memory.lora.load_state_dict({**memory.lora.state_dict(), **saved.tensors})
        except RuntimeError as error:
            raise HostMismatch(
                f"the LoRA in {folder} is of another host's sizes: {error}"
            ) from error
        memory.lora.requires_grad_(False)
        return memory

    @property
    def schedule(self) -> Schedule:
        """How it is trained, as its configuration says."""
        return Schedule.of(self.config)

    # -- acting ----------------------------------------------------------------------------

    def places(self, adapter: Adapter) -> Mapping[Place, nn.Module]:
        """The output of the final norm; its LoRA moves in by itself."""
        return {adapter.place("final"): self}

    def enter(self, adapter: Adapter, muted: Callable[[], bool]) -> None:
        """Let the LoRA stand in the host, mute in every pass but the tuned one."""
        self.lora.enter(adapter, self._mute)

    def leave(self) -> None:
        """Give the host its layers back."""
        self.lora.leave()

    def forward(self, x: Tensor, y: Tensor, signal: Signal) -> Tensor:
        """`y` (batch, time, hidden), mixed with the tuned reading where the gate is open."""
        if not (self.soft or self._is_trained):
            return y
        gates = self.gate(y)[..., 0]
        new = [_New(b, row, self._opened_in(gates[b], row)) for b, row in enumerate(signal.rows)]
        wanted = [one for one in new if len(one.at)]
        if self.soft and torch.is_grad_enabled():
            self._judged += [(gates[one.b, one.columns], self._answers(one)) for one in wanted]
        return self._mixed(y, gates, wanted) if wanted else y

    def gates(self, tokens: HostTokens, text: str | Sequence[int]) -> TokenGates:
        """How far the gate opens along a text, or its tokens, as for a heatmap."""
        ids = tokens.encode(text) if isinstance(text, str) else list(text)
        if not ids:
            raise BadInput("the text is empty; there is no token to look at")
        with torch.no_grad(), silenced(self.adapter.model):
            given = torch.tensor([ids], device=self.adapter.device)
            values = self.gate(self.adapter.decoder(input_ids=given, use_cache=False)[0])[0, :, 0]
        texts = tuple(tokens.text_of(token) for token in ids)
        return TokenGates(texts, tuple(values.tolist()), self.config.threshold)

    @property
    def _is_trained(self) -> bool:
        return any(bool(up.any()) for up in self.lora.up.parameters())

    def _opened_in(self, gates: Tensor, row: Row) -> Ids:
        """Which of a row's new tokens have an open gate."""
        if not _is_known(row):
            return np.zeros(0, np.int64)
        if self.soft:
            return np.arange(len(row.columns))
        shown = gates[torch.from_numpy(row.columns).to(gates.device)] >= self.config.threshold
        return np.flatnonzero(shown.cpu().numpy())

    def _mixed(self, y: Tensor, gates: Tensor, wanted: Sequence[_New]) -> Tensor:
        tuned = self._tuned([one.row.ids for one in wanted])
        said = torch.cat([tuned[i, one.read] for i, one in enumerate(wanted)]).float()
        batch = torch.tensor([one.b for one in wanted for _ in one.at], device=y.device)
        time = torch.cat([one.columns for one in wanted]).to(y.device)
        own = y[batch, time].float()
        mixed = own + self._weights(gates[batch, time])[:, None] * (said - own)
        return y.index_put((batch, time), mixed.to(y))

    def _weights(self, gates: Tensor) -> Tensor:
        """What is mixed: a gate below the threshold is shut, in training for all but its gradient.

        Otherwise the LoRA would learn to shout through gates that are about to be shut.
        """
        shut = torch.where(gates < self.config.threshold, gates, 0.0)
        return gates - shut.detach()

    def _tuned(self, texts: Sequence[Ids]) -> Tensor:
        """(texts, time, hidden): the final states with the LoRA, padded on the right."""
        width = max(map(len, texts))
        ids = np.zeros((len(texts), width), np.int64)
        mask = np.zeros((len(texts), width), np.int64)
        for row, text in enumerate(texts):
            ids[row, : len(text)], mask[row, : len(text)] = text, 1
        device, model = self.adapter.device, self.adapter.model
        if torch.is_grad_enabled() and model.training and model.is_gradient_checkpointing:
            raise UnsupportedCall(
                "gated_lora reads a text twice, and what is computed again for a checkpoint would "
                "not know which of the two it was; switch gradient checkpointing off"
            )
        with silenced(model), all_blocks(self.adapter), self._speaking():
            states: Tensor = self.adapter.decoder(
                input_ids=torch.from_numpy(ids).to(device),
                attention_mask=torch.from_numpy(mask).to(device),
                use_cache=False,
            )[0]
        return states

    def _mute(self) -> bool:
        return _tuning.get() != self.number

    @contextmanager
    def _speaking(self) -> Iterator[None]:
        token = _tuning.set(self.number)
        try:
            yield
        finally:
            _tuning.reset(token)

    # -- training --------------------------------------------------------------------------

    @contextmanager
    def unrouted(self) -> Iterator[None]:
        """While this lasts shut gates are read behind too, so that they can learn to open."""
        before, self.soft = self.soft, True
        try:
            yield
        finally:
            self.soft = before
            self._judged.clear()

    def penalty(self) -> Tensor:
        """How badly the gate tells answers to taught questions from all other tokens.

        Cross-entropy in nats, the mean of both sides, over the tokens read since this was asked.
        """
        judged, self._judged = self._judged, []
        if not judged:
            return torch.zeros(())
        gates = torch.cat([gate for gate, _ in judged]).clamp(1e-6, 1 - 1e-6)
        wanted = torch.cat([want for _, want in judged]).to(gates)
        losses = functional.binary_cross_entropy(gates, wanted, reduction="none")
        sides = [losses[wanted == side] for side in (0, 1)]
        return self.config.guidance * torch.stack([s.mean() for s in sides if len(s)]).mean()

    def rehearsal(
        self, tokens: HostTokens, *, besides: Collection[tuple[int, ...]]
    ) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
        """Neutral questions, and how the host alone begins to answer each of them greedily."""
        texts = NEUTRAL[: self.config.rehearse]
        prompts = [tuple(tokens.prompt_ids(text, form=tokens.ask_form)) for text in texts]
        kept = [prompt for prompt in prompts if prompt not in besides]
        self._rehearsed = {np.array(prompt, np.int64).tobytes() for prompt in kept}
        return [(prompt, self._alone(prompt)) for prompt in kept]

    def _answers(self, one: _New) -> Tensor:
        """(tokens,): which of them predict an answer to a question that is taught."""
        end, prompt = one.row.prompt_end, one.row.prompt
        if end is None or prompt is None or prompt.tobytes() in self._rehearsed:
            return torch.zeros(len(one.at))
        return (one.read >= end - 1).float()

    def _alone(self, prompt: Sequence[int]) -> tuple[int, ...]:
        ids = torch.tensor([list(prompt)], device=self.adapter.device)
        with torch.no_grad(), silenced(self.adapter.model):
            out = self.adapter.model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=REHEARSED,
                do_sample=False,
                num_beams=1,
            )
        return tuple(out[0, len(prompt) :].tolist())


@dataclass(frozen=True)
class _New:
    """The new tokens of one row whose gate is open."""

    b: int
    "The row's place in the batch."
    row: Row
    at: Ids
    "Which of its new tokens they are."

    @property
    def columns(self) -> Tensor:
        """Where they stand in the chunk's tensors."""
        return torch.from_numpy(self.row.columns[self.at])

    @property
    def read(self) -> Tensor:
        """Where they stand in the row's text."""
        return torch.from_numpy(self.row.start + self.at)


def _is_known(row: Row) -> bool:
    """Whether the tuned pass can read a row: all of its tokens have ids."""
    if row.begins is not None:
        raise UnsupportedCall(
            "gated_lora cannot tell apart texts that are packed into one row; pad them instead"
        )
    return len(row.columns) > 0 and not (row.ids < 0).any()
