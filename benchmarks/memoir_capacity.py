"""How many edits a residual matrix holds, and one that is wider, beside values of each edit's own.

    python -m benchmarks.memoir_capacity [--edits 40]

Edits of ZsRE, and made-up numbers that repeat their digits, are written one after another in closed
form, in the last block. To a matrix that all share each writes by least squares, from the
activations in the columns of its mask to the values of its tokens, on top of what is there. Then
all are asked for, with the right edit's columns open, so that nothing but what the matrix holds
decides. A matrix of each edit's own is written likewise. Values of an edit's own need no matrix:
which of them is added is counted. Exact: every token of the answer and the stop token is the first
choice. What is found is written to results/memoir_capacity.json.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from engram_transformers import load
from engram_transformers.evaluation.metrics import share
from engram_transformers.evaluation.tasks.zsre import zsre
from engram_transformers.experiments.provenance import provenance
from engram_transformers.memories.memoir import Memoir, MemoirConfig
from engram_transformers.memories.memoir.passes import Batch
from engram_transformers.memories.memoir.texts import batches, text_of
from engram_transformers.memories.memoir.write import Slots, lead

OUT = Path(__file__).parent / "results" / "memoir_capacity.json"
RIDGE = 1e-3
"Relative to the mean square of an activation vector."
MEMORIES = (
    (1, False, "one matrix, as wide as the layer"),
    (8, False, "one matrix, 8 times as wide"),
    (64, False, "one matrix, 64 times as wide"),
    (None, False, "a matrix of each edit's own"),
    (None, True, "values of each edit's own, counted"),
)
WORDINGS = (
    ("Which port does the {} service use?", "What port is used by the {} service?"),
    ("What is the room number of the {} office?", "Which room is the {} office in?"),
    ("In which year did the {} project start?", "When did the {} project begin?"),
    ("What is the code of the {} door?", "Which code opens the {} door?"),
)
NAMES = ("billing", "mail", "search", "audit", "print", "backup", "login", "report", "stock", "pay")


@dataclass(frozen=True)
class Edit:
    """A fact's own text, a rewording of it, and the features of its mask."""

    taught: Batch
    reworded: Batch
    features: Tensor


def facts_of_zsre(count: int, seed: int) -> Iterator[tuple[str, str, str]]:
    """Questions, other wordings and answers."""
    task = zsre().cut(count, seed=seed)
    other = {question.fact: question.text for question in task.asked["paraphrase"]}
    yield from ((fact.prompt, other[fact.id], fact.answer) for fact in task.facts)


def numbers(count: int, seed: int) -> Iterator[tuple[str, str, str]]:
    """The same with numbers of four to seven digits, of which one comes again and again."""
    draw = random.Random(seed)
    for prompt, other in WORDINGS:
        for name in NAMES[: -(-count // len(WORDINGS))]:
            often = draw.choice("123456789")
            digits = (draw.choice((often, often, draw.choice("0123456789"))) for _ in range(7))
            number = "".join(digits)[: draw.randint(4, 7)]
            yield prompt.format(name), other.format(name), number


def edits(memory: Memoir, facts: Iterable[tuple[str, str, str]]) -> Iterator[Edit]:
    """Facts as the host reads them."""
    texts = [
        [text_of(text, answer, memory.tokens)]
        for prompt, other, answer in facts
        for text in (prompt, other)
    ]
    read = batches(memory.passes, texts)
    for taught, reworded in zip(read, read, strict=True):
        mask = memory.fingerprinter.generate_mask(memory.passes.means(taught))[0]
        yield Edit(taught, reworded, mask.nonzero()[:, 0])


def scores(
    memory: Memoir, given: list[Edit], *, times: int | None, counted: bool = False
) -> tuple[dict[str, float], dict[str, float]]:
    """Share of edits exact after all were written, as taught and as reworded.

    Args:
        times: width of the shared matrix over the layer's; None for one of each edit's own.
        counted: whether the place in the answer is known, and not read from the activations.
    """
    features, hidden = memory.fingerprinter.hidden_size, memory.adapter.hidden_size
    own: list[tuple[Tensor, Tensor]] = []
    shared = torch.zeros(hidden, features * (times or 0))
    assert memory.closed_form is not None
    for number, edit in enumerate(given):
        keys, slots = edit.taught.keys[:, edit.features], Slots.in_batch(edit.taught, memory.tokens)
        at = columns(edit.features, number, times or 1)
        there = keys @ shared[:, at].T if times else keys.new_zeros(len(keys), hidden)
        values = memory.closed_form.values(edit.taught.stream + there, slots)
        own.append((values, reads_for(keys, slots)))
        if times:
            shared[:, at] += values.T @ own[-1][1]

    def added(number: int, edit: Edit, batch: Batch) -> Tensor:
        keys = batch.keys[:, edit.features]
        if times:
            return keys @ shared[:, columns(edit.features, number, times)].T
        values, reads = own[number]
        if counted:
            return values[Slots.in_batch(batch, memory.tokens).of]
        return keys @ reads.T @ values

    return exact(memory, given, added, "taught"), exact(memory, given, added, "reworded")


def reads_for(keys: Tensor, slots: Slots) -> Tensor:
    """(slots, columns) that give one in its own slot for activations (n, columns), else zero."""
    keys = keys.double()
    wanted = nn.functional.one_hot(slots.of, len(slots.labels)).double()
    gram = keys @ keys.T
    gram.diagonal().add_(RIDGE * gram.diagonal().mean() + 1e-12)
    reads: Tensor = torch.linalg.solve(gram, wanted).T @ keys
    return reads.float()


def columns(features: Tensor, number: int, times: int) -> Tensor:
    """Where in a matrix so many times as wide an edit's features are written."""
    draw = torch.Generator().manual_seed(number)
    return features * times + torch.randint(times, features.shape, generator=draw)


def exact(
    memory: Memoir, given: list[Edit], added: Callable[[int, Edit, Batch], Tensor], which: str
) -> dict[str, float]:
    """Share of edits whose answer is the first choice to the end."""
    right = 0
    for number, edit in enumerate(given):
        batch: Batch = getattr(edit, which)
        with torch.no_grad():
            logits = memory.passes.logits(batch, added(number, edit, batch))
        right += bool(lead(logits, batch.wanted).min() > 0)
    return share(right, len(given))


def rows(memory: Memoir, given: list[Edit]) -> Iterator[dict[str, Any]]:
    """Shares of edits that are exact, memory by memory."""
    for times, counted, name in MEMORIES:
        start = time.process_time()
        taught, reworded = scores(memory, given, times=times, counted=counted)
        seconds = round(time.process_time() - start, 1)
        yield {"memory": name, "taught": taught, "reworded": reworded, "seconds": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--edits", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", default="smollm2-135m")
    args = parser.parse_args()
    host = load(args.model)
    memory = Memoir.open(host.adapter, host.tokens, MemoirConfig(match="words"))
    sets = {
        name: list(rows(memory, list(edits(memory, facts(args.edits, args.seed)))))
        for name, facts in (("edits of ZsRE", facts_of_zsre), ("made-up numbers", numbers))
    }
    found = {"edits": args.edits, "seed": args.seed, "sets": sets, "provenance": provenance(host)}
    OUT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
