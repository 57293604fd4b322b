"""Where is a fact recalled? Causal tracing after Meng et al. (2022), over layers and tokens.

The subject's embeddings are disturbed by noise until the answer is lost. Then the state that the
undisturbed run has at one layer and one token is put back, and what comes back of the answer's
probability is that state's effect.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engram_transformers.errors import BadInput
from engram_transformers.introspection.asking import check_prompt, joining, wanted
from engram_transformers.introspection.patching import WRITTEN, first_words
from engram_transformers.introspection.reading import Ids, Wanted
from engram_transformers.introspection.scoring import greedy, score
from engram_transformers.models.adapter import Adapter, Place
from engram_transformers.models.passes import padded
from engram_transformers.models.tokens import Form, HostTokens
from engram_transformers.models.trace import Patch, Spots, changed, place_states

Kind = Literal["block", "mlp"]
NOISE, SAMPLES = 3.0, 8
BATCH_TOKENS = 2048
LEAST = 0.01
"How much of the answer's probability the noise has to take away for there to be a trace."

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Trace:
    """How much of an answer's probability comes back with each state."""

    prompt: str
    subject: str
    answer: str
    kind: Kind
    window: int
    "Layers around each that are put back together; 1 for `block`."
    tokens: tuple[str, ...]
    "The prompt's."
    disturbed: tuple[int, ...]
    "Indices of the subject's tokens."
    layers: tuple[int, ...]
    clean: float
    "Probability of the whole answer, undisturbed."
    corrupted: float
    "With noise, mean over samples."
    corrupted_sd: float
    effect: Array
    "(layers, tokens): probability that comes back, mean over samples."
    effect_sd: Array
    samples: int
    noise: float
    "Standard deviations of the prompt's embeddings."

    @property
    def traceable(self) -> bool:
        """Whether the noise takes enough away for effects to mean something."""
        return self.clean - self.corrupted >= LEAST

    @property
    def peak(self) -> tuple[int, int]:
        """(layer, token) with the largest effect."""
        layer, token = np.unravel_index(int(self.effect.argmax()), self.effect.shape)
        return self.layers[int(layer)], int(token)


def trace(
    adapter: Adapter,
    tokens: HostTokens,
    prompt: str,
    subject: str,
    *,
    answer: str | None = None,
    kind: Kind = "block",
    window: int | None = None,
    samples: int = SAMPLES,
    noise: float = NOISE,
    form: Form = "plain",
    seed: int = 0,
    progress: Callable[[int], None] = lambda done: None,
) -> Trace:
    """Trace an answer through the blocks' outputs, or through their feed-forwards'.

    Args:
        answer: what the host itself says when None.
        window: layers that are put back together for `mlp`; a fifth of them when None.
        progress: is told of every layer.

    Raises:
        BadInput: the subject is not in the prompt, which is empty or too long; no such noise.
        PlaceNotFound: `mlp` in a host without such a place.
    """
    if not 0 < noise < math.inf:
        raise BadInput(f"noise is {noise}; it has to be a number above 0")
    ids = tuple(tokens.prompt_ids(prompt, form=form))
    check_prompt(adapter, prompt, ids)
    disturbed = _tokens_of(tokens, ids, prompt, subject)
    if answer is None:
        [written] = greedy(adapter, [ids], most=WRITTEN, stop=tokens.stop)
        answer = first_words(tokens.decode_answer(written))
    right = wanted(tokens, 0, prompt, answer, form=form)
    going_on = joining(adapter, tokens)
    count = len(adapter.layers)
    wide = 1 if kind == "block" else window or max(1, count // 5)
    places = [adapter.place("block_out" if kind == "block" else "mlp_out", i) for i in range(count)]
    states = torch.stack([each[0] for each in place_states(adapter, *padded([ids]), places)])
    run = _Corrupted(adapter, ids, right, going_on, disturbed, samples, noise, seed)
    [clean] = score(adapter, [ids], [right], going_on).logprobs.exp().tolist()
    base = run([], 1)[0]
    # What stands before the subject is never disturbed, so nothing comes back with it.
    reached = range(min(disturbed), len(ids))
    effect, spread = np.zeros((count, len(ids))), np.zeros((count, len(ids)))
    for layer in range(count):
        near = [i for i in range(layer - wide // 2, layer - wide // 2 + wide) if 0 <= i < count]
        found = run([(places[i], states[i]) for i in near], len(reached), reached)
        gained = found - base
        effect[layer, list(reached)] = gained.mean(axis=1)
        spread[layer, list(reached)] = gained.std(axis=1)
        progress(1)
    return Trace(
        prompt=prompt,
        subject=subject,
        answer=answer,
        kind=kind,
        window=wide,
        tokens=tuple(tokens.decode([token]) for token in ids),
        disturbed=tuple(disturbed),
        layers=tuple(range(count)),
        clean=clean,
        corrupted=float(base.mean()),
        corrupted_sd=float(base.std()),
        effect=effect,
        effect_sd=spread,
        samples=samples,
        noise=noise,
    )


class _Corrupted:
    """Runs a prompt whose subject is disturbed, always by the same noise."""

    def __init__(
        self,
        adapter: Adapter,
        ids: Ids,
        right: Wanted,
        going_on: Tensor,
        disturbed: Sequence[int],
        samples: int,
        noise: float,
        seed: int,
    ) -> None:
        self.adapter, self.ids, self.right, self.going_on = adapter, ids, right, going_on
        self.disturbed, self.samples = list(disturbed), samples
        embedded = adapter.input_embeddings(torch.tensor([ids], device=adapter.device))
        size = noise * float(embedded.detach().float().std())
        shape = (samples, len(self.disturbed), embedded.shape[-1])
        drawn = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
        self.noise = (size * drawn).to(embedded.device, embedded.dtype)

    @torch.no_grad()
    def __call__(
        self,
        restored: Sequence[tuple[Place, Tensor]],
        times: int,
        columns: Sequence[int] = (),
    ) -> Array:
        """(times, samples): the answer's probability, with one token put back each time.

        Args:
            restored: places with their undisturbed states (time, hidden).
            columns: the token that is put back, each time.
        """
        size = len(self.ids) + len(self.right.read)
        step = max(1, BATCH_TOKENS // (size * self.samples))
        parts = []
        for start in range(0, times, step):
            some: list[int | None] = [*columns[start : start + step]] or [None]
            parts.append(self._run(restored, some))
        return np.concatenate(parts)

    def _run(
        self, restored: Sequence[tuple[Place, Tensor]], columns: Sequence[int | None]
    ) -> Array:
        rows = len(columns) * self.samples
        spots = [
            (i * self.samples + s, column)
            for i, column in enumerate(columns)
            if column is not None
            for s in range(self.samples)
        ]
        patches = [
            Patch(place, Spots.of(spots), states[[column for _, column in spots]])
            for place, states in restored
        ]
        with changed(self.adapter.input_embeddings, self._disturb):
            found = score(
                self.adapter, [self.ids] * rows, [self.right] * rows, self.going_on, patches=patches
            )
        return found.logprobs.exp().reshape(len(columns), self.samples).numpy()

    def _disturb(self, embedded: Tensor) -> Tensor:
        embedded = embedded.clone()
        times = len(embedded) // self.samples
        embedded[:, self.disturbed] += self.noise.repeat(times, 1, 1)
        return embedded


def _tokens_of(tokens: HostTokens, ids: Ids, prompt: str, subject: str) -> list[int]:
    """Indices of the tokens that spell the last mention of the subject."""
    if not subject.strip() or subject not in prompt:
        raise BadInput(f"the subject {subject!r} is not in the prompt {prompt!r}")
    ends = [len(tokens.decode(ids[: i + 1])) for i in range(len(ids))]
    start = tokens.decode(ids).rfind(subject)
    starts = [0, *ends[:-1]]
    found = [i for i in range(len(ids)) if starts[i] < start + len(subject) and ends[i] > start]
    if start < 0 or not found:
        raise BadInput(f"the host's tokens do not spell {subject!r}; name it as the prompt does")
    return found
