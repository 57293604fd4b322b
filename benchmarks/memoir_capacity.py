"""How many edits a residual matrix holds, and one that is wider, beside values of each edit's own.

    python -m benchmarks.memoir_capacity --edits 60

Edits of ZsRE are written one after another in closed form, in the last block. To a matrix that all
share each writes by least squares, from the activations in the columns of its mask to the values of
its tokens, on top of what is there. Then all are asked for, with the right edit's columns open, so
that nothing but what the matrix holds decides. Exact: every token of the answer and the stop token
is the first choice. One row a memory, as a table.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from engram_transformers import load
from engram_transformers.evaluation.tasks.zsre import zsre
from engram_transformers.memories.memoir import Memoir, MemoirConfig
from engram_transformers.memories.memoir.passes import Batch
from engram_transformers.memories.memoir.texts import batches, text_of
from engram_transformers.memories.memoir.write import Slots, lead

RIDGE = 1e-3
"Relative to the mean square of an activation vector."


@dataclass(frozen=True)
class Edit:
    """A fact's own text, a rewording of it, and the features of its mask."""

    taught: Batch
    reworded: Batch
    features: Tensor


def edits(memory: Memoir, count: int, seed: int) -> Iterator[Edit]:
    """Facts of ZsRE as the host reads them."""
    task = zsre().cut(count, seed=seed)
    other = {question.fact: question.text for question in task.asked["paraphrase"]}
    texts = [
        [text_of(text, fact.answer, memory.tokens)]
        for fact in task.facts
        for text in (fact.prompt, other[fact.id])
    ]
    read = batches(memory.passes, texts)
    for taught, reworded in zip(read, read, strict=True):
        mask = memory.fingerprinter.generate_mask(memory.passes.means(taught))[0]
        yield Edit(taught, reworded, mask.nonzero()[:, 0])


def scores(memory: Memoir, given: list[Edit], *, times: int | None) -> tuple[float, float]:
    """Share of edits exact after all were written, as taught and as reworded.

    Args:
        times: width of the shared matrix over the layer's; None for values of each edit's own.
    """
    features, hidden = memory.fingerprinter.hidden_size, memory.adapter.hidden_size
    own: list[Tensor] = []
    shared = torch.zeros(hidden, features * (times or 0))
    assert memory.closed_form is not None
    for number, edit in enumerate(given):
        keys, slots = edit.taught.keys[:, edit.features], Slots.in_batch(edit.taught, memory.tokens)
        at = columns(edit.features, number, times or 1)
        there = keys @ shared[:, at].T if times else keys.new_zeros(len(keys), hidden)
        own.append(memory.closed_form.values(edit.taught.stream + there, slots))
        if times:
            shared[:, at] += own[-1].T @ reads_for(keys, slots)

    def added(number: int, edit: Edit, batch: Batch) -> Tensor:
        keys = batch.keys[:, edit.features]
        if times:
            return keys @ shared[:, columns(edit.features, number, times)].T
        return own[number][Slots.in_batch(batch, memory.tokens).of]

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
) -> float:
    """Share of edits whose answer is the first choice to the end."""
    right = 0
    for number, edit in enumerate(given):
        batch: Batch = getattr(edit, which)
        with torch.no_grad():
            logits = memory.passes.logits(batch, added(number, edit, batch))
        right += bool(lead(logits, batch.wanted).min() > 0)
    return right / len(given)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--edits", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", default="smollm2-135m")
    args = parser.parse_args()
    host = load(args.model)
    memory = Memoir.open(host.adapter, host.tokens, MemoirConfig())
    given = list(edits(memory, args.edits, args.seed))
    print(f"{len(given)} edits, seed {args.seed}, {args.model}\n")
    print("| memory | taught, exact | reworded, exact | seconds (process) |\n|---|---|---|---|")
    for times, name in (
        (1, "one matrix, as wide as the layer"),
        (8, "one matrix, 8 times as wide"),
        (64, "one matrix, 64 times as wide"),
        (None, "values of each edit's own"),
    ):
        start = time.process_time()
        taught, reworded = scores(memory, given, times=times)
        print(f"| {name} | {taught:.3f} | {reworded:.3f} | {time.process_time() - start:.1f} |")


if __name__ == "__main__":
    main()
