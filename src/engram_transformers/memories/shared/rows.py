"""The payload of a fact: for each token of the answer, the hidden vector that makes it come.

A row stands in for the final norm's output, so what the host then says is the head's reading
of the row and nothing else: the row's margin is the same in every context, and can be known
when the row is written. Closed form: with ``u`` the rows of the output embedding, ``m`` their
mean and ``C`` their covariance, the row of token ``t`` is

    row(t) = s C^-1 (u_t - m),    s = reach / ((u_t - m)' C^-1 (u_t - m))

which puts token ``t`` at ``reach`` logits above the mean token, and another token only as far
as it correlates with ``t`` after whitening. The few tokens that a near twin still beats are
refined by natural-gradient steps on their log-probability.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from engram_transformers.models.adapter import Adapter

REACH = 160.0
"Logits between an answer's token and the mean token; twins come within an eighth of it."
ENOUGH = 4.0
"Logits of advantage over every other token below which a row is refined."
SAMPLE = 16_384
"Rows of the output embedding from which the covariance is estimated."
STEPS = 200


class OutputRows:
    """Writes rows for one host; what it keeps is derived from the host and never saved."""

    def __init__(self, adapter: Adapter) -> None:
        self.weight = adapter.output_weight().detach()
        bias = adapter.head_bias
        self.bias = None if bias is None else bias.detach().float()
        self.cap, self.gain = adapter.logit_cap, adapter.logit_gain
        reach = REACH if self.cap is None else min(REACH, 2 * self.cap)
        self.reach = reach / self.gain
        self._whitening: tuple[Tensor, Tensor] | None = None
        self._closed: dict[int, Tensor] = {}

    @torch.no_grad()
    def closed_form(self, token: int) -> Tensor:
        """(hidden,): the row of a token, float32, the same bits every time."""
        row = self._closed.get(token)
        if row is None:
            mean, inverse = self._statistics()
            offset = self.weight[token].float() - mean
            # One token at a time: a batched product could round otherwise.
            direction = inverse @ offset
            row = self._closed[token] = direction * (self.reach / torch.dot(direction, offset))
        return row

    @torch.no_grad()
    def refined(self, tokens: Sequence[int]) -> dict[int, Tensor]:
        """Better rows for those of these tokens that their closed form does not lift enough.

        Where even the refined row does not win, the host cannot say the token at all: its
        embedding lies inside the hull of the others. `margins` tells.
        """
        rows = torch.stack([self.closed_form(token) for token in tokens])
        weak = (self.margins(rows, tokens) < ENOUGH).nonzero().flatten().tolist()
        return {tokens[i]: self._refine(rows[i], tokens[i]) for i in weak}

    @torch.no_grad()
    def margins(self, rows: Tensor, tokens: Sequence[int]) -> Tensor:
        """(n,): logit of each row's token minus the highest other logit."""
        values = []
        for part, wanted in zip(torch.split(rows, 64), _chunks(tokens, 64), strict=True):
            logits = self.logits(part)
            at = torch.arange(len(wanted)), torch.tensor(wanted)
            own = logits[at].clone()
            logits[at] = -torch.inf
            values.append(own - logits.max(dim=1).values)
        return torch.cat(values).cpu()

    def logits(self, rows: Tensor) -> Tensor:
        """(n, vocab): what the host's head makes of these rows."""
        product = (rows.to(self.weight) @ self.weight.T).float()
        logits = (product if self.bias is None else product + self.bias) * self.gain
        return logits if self.cap is None else torch.tanh(logits / self.cap) * self.cap

    def _refine(self, row: Tensor, token: int) -> Tensor:
        """Natural-gradient ascent on the token's log-probability, stopped when it is enough."""
        _, inverse = self._statistics()
        weight, best = self.weight.float(), (-torch.inf, row)
        size = row.norm()
        for _ in range(STEPS):
            margin = float(self.margins(row[None], [token])[0])
            best = max(best, (margin, row), key=lambda pair: pair[0])
            if margin >= ENOUGH:
                break
            # A soft temperature: the gradient of a saturated row is zero.
            share = torch.softmax(self.logits(row[None])[0] / 4, dim=0)
            step = inverse @ (weight[token] - share @ weight)
            row = row + step * (size / step.norm()) * 0.1
        return best[1]

    def _statistics(self) -> tuple[Tensor, Tensor]:
        """Mean (hidden,) and inverse covariance (hidden, hidden) of the output embedding."""
        if self._whitening is None:
            every = max(1, len(self.weight) // SAMPLE)
            sample = self.weight[::every].float()
            mean = sample.mean(dim=0)
            centred = sample - mean
            covariance = centred.T @ centred / len(centred)
            ridge = 1e-4 * covariance.diagonal().mean()
            covariance.diagonal().add_(ridge)
            self._whitening = mean, torch.linalg.inv(covariance)
        return self._whitening


def _chunks(items: Sequence[int], size: int) -> list[list[int]]:
    return [list(items[i : i + size]) for i in range(0, len(items), size)]
