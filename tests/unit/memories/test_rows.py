from __future__ import annotations

import pytest
import torch

from engram_transformers.memories.shared.rows import ENOUGH, OutputRows
from engram_transformers.models.adapter import Adapter
from hosts import VOCAB, tiny

NAMES = ("llama", "gemma2", "gpt2", "phi", "cohere", "granite", "opt")
"Plain, soft cap, tied head, head bias, scale, divisor, and another tied one."


@pytest.mark.parametrize("name", NAMES)
def test_every_token_is_the_hosts_first_choice_on_its_row(name: str) -> None:
    model = tiny(name)
    # Padding has a row of zeros in the embedding, which nothing can make the first choice.
    rows, tokens = OutputRows(Adapter(model)), list(range(1, VOCAB))
    closed = {token: rows.closed_form(token) for token in tokens}
    refined = rows.refined(tokens)
    best = torch.stack([refined.get(token, closed[token]) for token in tokens])
    assert (rows.logits(best).argmax(dim=1) == torch.tensor(tokens)).all()
    assert (rows.margins(best, tokens) > 0).all()
    margins = rows.margins(torch.stack(list(closed.values())), tokens)
    assert sorted(refined) == [t for t, m in zip(tokens, margins, strict=True) if m < ENOUGH]


@pytest.mark.parametrize("name", NAMES)
def test_logits_of_a_row_are_those_of_the_host(name: str) -> None:
    model = tiny(name)
    adapter = Adapter(model)
    rows = OutputRows(adapter)
    row = rows.closed_form(7)
    hook = adapter.final_norm.register_forward_hook(lambda m, a, y: row.expand_as(y))
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[3]])).logits[0]
    hook.remove()
    assert torch.allclose(rows.logits(row[None]), logits, rtol=1e-4, atol=1e-3)


def test_a_token_with_a_near_twin_is_refined() -> None:
    model = tiny("llama")
    with torch.no_grad():
        weight = model.lm_head.weight
        weight[8] = weight[9] * 1.0 + 0.02 * weight[10]
    rows = OutputRows(Adapter(model))
    refined = rows.refined([8, 9, 11])
    assert set(refined) <= {8, 9, 11}
    best = torch.stack([refined.get(t, rows.closed_form(t)) for t in (8, 9)])
    assert (rows.margins(best, [8, 9]) > 0).all()


def test_a_row_has_the_same_bits_every_time() -> None:
    one, other = (OutputRows(Adapter(tiny("llama"))) for _ in range(2))
    other.closed_form(3)
    assert torch.equal(one.closed_form(5), other.closed_form(5))
