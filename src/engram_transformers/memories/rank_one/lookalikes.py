"""Other subjects that share tokens with a fact's own, so that the edit can be kept from them.

The key of a subject is what an MLP reads at its last token, and much of that is the token itself:
the keys of `6*8` and of `The mail service` are like those of `7*8` and of `The billing service`.
Text in general holds none of them often enough. So some are made up, token by token: digits give
way to other digits, words to other words, and the last one, half of the time, to one that the host
holds for like it, by its embedding: to another country, where a country is asked for.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import ExitStack
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

from engram_transformers.attaching import silenced
from engram_transformers.memories.rank_one.statistics import Keeper
from engram_transformers.memories.rank_one.value import Context, Sites
from engram_transformers.models.adapter import Adapter
from engram_transformers.models.encoder import hidden_after
from engram_transformers.models.neutral import NEUTRAL
from engram_transformers.models.passes import read_once
from engram_transformers.models.tokens import HostTokens

Prompt = tuple[int, ...]
TRIES = 8
"Times as many as are wanted."
LIKE = 24
"Tokens that stand in for a subject's last one."


def lookalikes(adapter: Adapter, tokens: HostTokens, context: Context, count: int) -> list[Context]:
    """A text with other subjects; at most so many, the same every time."""
    chance, span = random.Random(0), context.subject
    likes = _alike(adapter, tokens, context.ids[span[-1]])
    found: dict[Prompt, None] = {}
    for _ in range(TRIES * count):
        ids = list(context.ids)
        for at in span[:-1]:
            ids[at] = _other(ids[at], tokens, chance)
        if likes and (len(span) == 1 or chance.random() < 0.5):
            ids[span[-1]] = chance.choice(likes)
        found[tuple(ids)] = None
    found.pop(context.ids, None)
    return [Context(ids, span, ()) for ids in list(found)[:count]]


@torch.no_grad()
def _alike(adapter: Adapter, tokens: HostTokens, token: int) -> tuple[int, ...]:
    """Tokens of the same look whose embeddings are next to a token's."""
    look = _look(tokens.text_of(token))
    if not any(letter.isalnum() for letter in tokens.text_of(token)):
        return ()
    rows = adapter.model.get_input_embeddings().weight.float()
    near = functional.cosine_similarity(rows[token][None], rows).topk(min(8 * LIKE, len(rows)))
    every = [other for other in near.indices.tolist() if other != token]
    return tuple(other for other in every if _look(tokens.text_of(other)) == look)[:LIKE]


def _look(text: str) -> tuple[bool, bool, bool]:
    bare = text.strip()
    return text[:1].isspace(), bare[:1].isupper(), bare.isdecimal()


def _other(token: int, tokens: HostTokens, chance: random.Random) -> int:
    text = tokens.text_of(token)
    if text.strip().isdecimal():
        # Half of the time, so that some share one number with the fact and some the other.
        return chance.choice((token, *_digits(tokens, text)))
    if not any(letter.isalpha() for letter in text):
        return token
    return chance.choice(_words(tokens, text[:1].isspace()))


def _digits(tokens: HostTokens, text: str) -> Sequence[int]:
    return _numbers(tokens, text[: len(text) - len(text.lstrip())])


@lru_cache(maxsize=16)
def _numbers(tokens: HostTokens, space: str) -> tuple[int, ...]:
    found = [tokens.encode(f"{space}{digit}") for digit in range(2, 10)]
    return tuple(ids[0] for ids in found if len(ids) == 1)


@lru_cache(maxsize=16)
def _words(tokens: HostTokens, spaced: bool) -> tuple[int, ...]:
    seen = dict.fromkeys(token for text in NEUTRAL for token in tokens.encode(text))
    texts = {token: tokens.text_of(token) for token in seen}
    found = [
        t for t, text in texts.items() if text.strip().isalpha() and text[:1].isspace() == spaced
    ]
    return tuple(found or seen)


@torch.no_grad()
def keys_at(
    adapter: Adapter,
    contexts: Sequence[Context],
    layers: Sequence[int],
    answer: tuple[int, ...],
    sites: Sites,
) -> dict[int, Tensor]:
    """By layer, (keys, inputs) in float32: what the bare host's projections read at sites.

    Args:
        contexts: as long as each other, alike before the subject; an answer that is none of theirs
            is put behind them.
        sites: how many each has.
    """
    places = {n: adapter.place("mlp_out", n) for n in layers}
    if not contexts:
        return {n: torch.zeros(0, adapter.linear_shape(place)[0]) for n, place in places.items()}
    seen: dict[int, Tensor] = {}
    begins = contexts[0].begins
    at = Context(contexts[0].ids, contexts[0].subject, answer).sites(sites)
    texts = [(*c.ids, *answer)[: at[-1] + 1] for c in contexts]
    ids = torch.tensor(texts, device=adapter.device)
    with silenced(adapter.model), ExitStack() as stack:
        before = read_once(adapter, ids[:1, :begins], rows=len(ids))
        for n, place in places.items():
            hook = place.module.register_forward_pre_hook(Keeper(seen, n))
            stack.callback(hook.remove)
        rest = ids if before is None else ids[:, begins:]
        hidden_after(adapter, max(layers), rest, torch.ones_like(ids), past=before)
    sought = [site - (ids.shape[1] - rest.shape[1]) for site in at]
    return {n: keys[:, sought].flatten(0, 1).float().cpu() for n, keys in seen.items()}
