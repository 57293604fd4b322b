"""What MLPs' output projections read in ordinary text, and how much what they write matters there.

Both are second moments, computed once for a host and a block, and kept.

Half of the text is read as it stands and half as what a user says in a chat, so that the keys of
both are among those that an edit leaves alone. So are those of short lines and of numbers, which a
running text has few of, and in which an edit is heard most; and what the host itself says next to
these and to plain questions, since that is what it will read of itself.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from engram_transformers.attaching import silenced
from engram_transformers.errors import BadInput
from engram_transformers.models.adapter import Adapter
from engram_transformers.models.cache import cache_dir, intact, made_once
from engram_transformers.models.encoder import hidden_after
from engram_transformers.models.fingerprint import fingerprint
from engram_transformers.models.neutral import NEUTRAL
from engram_transformers.models.passes import of_like_length, padded
from engram_transformers.models.tokens import HostTokens

PIECE = 96
"Tokens of running text in one row."
BATCH_TOKENS = 1024
"Padded tokens in one pass."
SHORT = 6
"Tokens in a row that is cut short; one for each row of running text, and a line with numbers."
SEEN = 100
"Rows of which slopes are taken, at least, where there are as many."
SAID, BEGUN = 16, 64
"Tokens that the host says next to a row of at most so many."
LINES = (
    "{a}*{b}=",
    "{a}+{b}={c}",
    "{a} - {b} = ",
    "{c}{a} / {b} =",
    "In {c}{d}, {a} of {b}",
    "{c}%, {d}.{a} km",
    "{a}:{c} to {b}:{d}",
    "No. {b}, page {c}",
    "{a}, {b}, {c}, {d}",
    "$ {c}.{d}0",
)
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Ordinary:
    """What a block's projection reads in ordinary text, and how much what it writes matters."""

    keys: Tensor
    "(inputs, inputs) in float32: the mean of ``k k'`` over tokens."
    slopes: Tensor
    "(hidden, hidden) in float32: the mean of ``g g'``, g: of what is said, by what is written."


def ordinary(
    adapter: Adapter,
    tokens: HostTokens,
    layers: Sequence[int],
    *,
    text: str | None,
    count: int,
    progress: Progress = lambda done, total: None,
) -> dict[int, Ordinary]:
    """For each layer, the second moments of keys and slopes over the tokens of a text.

    Args:
        text: a file; None: the manual that Python brings.
        count: tokens of it that are read, at most.
        progress: is told how many more tokens of how many are read, where any have to be.

    Raises:
        BadInput: the file cannot be read, or is empty.
    """
    words = _text(text)
    recipe = json.dumps(
        [
            fingerprint(adapter.model, tokens.tokenizer),
            words,
            count,
            [PIECE, SHORT, SAID, BEGUN, SEEN],
            [NEUTRAL, LINES],
        ]
    )
    name = hashlib.sha256(recipe.encode()).hexdigest()[:20]
    folders = {n: cache_dir() / "moments" / f"{name}-block{n}" for n in layers}
    missing = [n for n, folder in folders.items() if not intact(folder)]
    if missing:
        rows = rows_of(tokens, words, count)
        begun = [row for row in rows if len(row) <= BEGUN]
        said = spoken(adapter, begun, tokens.stop or 0)
        keys = measured(adapter, missing, [*rows, *said], progress=progress)
        slopes = felt(adapter, missing, begun[:: max(1, len(begun) // SEEN)])
        for n in missing:
            found = Ordinary(keys[n], slopes[n])
            made_once(folders[n], partial(_save, found))
    return {n: Ordinary(**load_file(folder / FILE)) for n, folder in folders.items()}


FILE = "moments.safetensors"


def _save(found: Ordinary, folder: Path) -> None:
    save_file({"keys": found.keys, "slopes": found.slopes}, folder / FILE)


def _text(path: str | None) -> str:
    if path is None:
        from pydoc_data.topics import topics

        return "\n".join(topics[name] for name in sorted(topics))
    try:
        words = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"the text {path} cannot be read: {error}") from error
    if not words.strip():
        raise BadInput(f"the text {path} is empty; keys cannot be counted from it")
    return words


def rows_of(tokens: HostTokens, text: str, count: int) -> list[list[int]]:
    """Token ids of rows: pieces of the text by turns plain and as chats, and neutral questions."""
    rows = [tokens.prompt_ids(question, form=tokens.ask_form) for question in NEUTRAL]
    # More text than is needed takes as long to encode as all of it.
    ids = tokens.encode(text[: 16 * count])
    # Spread over the text: what stands together is about one thing.
    pieces = [ids[i : i + PIECE] for i in range(0, len(ids), PIECE)]
    wanted = max(1, count // PIECE)
    chance = random.Random(0)
    for n, piece in enumerate(pieces[:: max(1, len(pieces) // wanted)][:wanted]):
        chat = n % 2 and tokens.turn is not None
        said = tokens.decode(piece)
        rows.append(
            tokens.prompt_ids(said, form="chat") if chat else tokens.prompt_ids(said, form="plain")
        )
        begins = chance.randrange(len(piece))
        line = LINES[n % len(LINES)].format(**{name: chance.randint(2, 99) for name in "abcd"})
        for short in (tokens.decode(piece[begins : begins + SHORT]), line):
            rows.append(tokens.prompt_ids(short, form="plain"))
    return rows


@torch.no_grad()
def spoken(adapter: Adapter, rows: Sequence[Sequence[int]], stop: int) -> list[list[int]]:
    """Rows with what the host says next; an end of its own is left out."""
    found = []
    with silenced(adapter.model):
        for batch in of_like_length([len(row) for row in rows], batch_tokens=BATCH_TOKENS):
            ids, mask = padded([rows[i][::-1] for i in batch], device=adapter.device)
            said = adapter.model.generate(
                input_ids=ids.flip(1),
                attention_mask=mask.flip(1),
                max_new_tokens=SAID,
                do_sample=False,
                pad_token_id=stop,
            )
            for i, row in zip(batch, said[:, ids.shape[1] :].tolist(), strict=True):
                end = row.index(stop) if stop in row else len(row)
                found.append([*rows[i], *row[:end]])
    return found


@torch.no_grad()
def measured(
    adapter: Adapter,
    layers: Sequence[int],
    rows: Sequence[Sequence[int]],
    *,
    progress: Progress = lambda done, total: None,
) -> dict[int, Tensor]:
    """The moments of the bare host over rows of token ids, each row read by itself."""
    places = {n: adapter.place("mlp_out", n) for n in layers}
    sums = {
        n: torch.zeros(2 * adapter.linear_shape(place)[:1], device=adapter.device)
        for n, place in places.items()
    }
    total = sum(map(len, rows))
    with silenced(adapter.model), ExitStack() as stack:
        seen: dict[int, Tensor] = {}
        for n, place in places.items():
            hook = place.module.register_forward_pre_hook(Keeper(seen, n))
            stack.callback(hook.remove)
        for ids, mask in _batches(rows, adapter.device):
            hidden_after(adapter, max(layers), ids, mask)
            for n, keys in seen.items():
                real = keys[mask.bool()].float()
                sums[n].addmm_(real.T, real)
            progress(int(mask.sum()), total)
    return {n: (moment / total).cpu() for n, moment in sums.items()}


def felt(
    adapter: Adapter, layers: Sequence[int], rows: Sequence[Sequence[int]]
) -> dict[int, Tensor]:
    """The moments of slopes: how all that is said behind a token depends on what is written there.

    What is said is drawn from what the host holds for likely, so that a change of size v costs
    ``v' F v / 2`` nats of KL to second order, with F their moment (Fisher's information).
    """
    sums = {n: torch.zeros(2 * (adapter.hidden_size,), device=adapter.device) for n in layers}
    total, chance = 0, torch.Generator().manual_seed(0)
    with silenced(adapter.model), frozen(adapter.model), torch.enable_grad():
        for ids, mask in _batches(rows, adapter.device):
            written: dict[int, Tensor] = {}
            with ExitStack() as stack:
                for n in layers:
                    module = adapter.place("mlp_out", n).module
                    hook = module.register_forward_hook(partial(_beside, written, n))
                    stack.callback(hook.remove)
                states = adapter.decoder(input_ids=ids, attention_mask=mask, use_cache=False)[0]
            logits = adapter.logits(states[mask.bool()]).float()
            likely = logits.detach().softmax(dim=-1).cpu()
            said = torch.multinomial(likely, 1, generator=chance)[:, 0].to(logits.device)
            loss = functional.cross_entropy(logits, said, reduction="sum")
            for n, slope in zip(
                layers, torch.autograd.grad(loss, [written[n] for n in layers]), strict=True
            ):
                real = slope[mask.bool()].float()
                sums[n].addmm_(real.T, real)
            total += int(mask.sum())
    return {n: (found / total).cpu() for n, found in sums.items()}


def _beside(written: dict[int, Tensor], layer: int, module: Any, args: Any, y: Tensor) -> Tensor:
    written[layer] = torch.zeros_like(y, requires_grad=True)
    return y + written[layer]


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """While this lasts no parameter of the host asks for a gradient."""
    wanted = [p.requires_grad for p in model.parameters()]
    model.requires_grad_(False)
    try:
        yield
    finally:
        for parameter, before in zip(model.parameters(), wanted, strict=True):
            parameter.requires_grad_(before)


class Keeper:
    def __init__(self, seen: dict[int, Tensor], layer: int) -> None:
        self.seen, self.layer = seen, layer

    def __call__(self, module: Any, args: tuple[Tensor, ...]) -> None:
        self.seen[self.layer] = args[0]


def _batches(
    rows: Sequence[Sequence[int]], device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    for batch in of_like_length([len(row) for row in rows], batch_tokens=BATCH_TOKENS):
        yield padded([rows[i] for i in batch], device=device)
