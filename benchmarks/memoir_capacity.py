"""How many edits a residual matrix holds, and one that is wider, beside values of each edit's own.

    python -m benchmarks.memoir_capacity --edits 60 [--numbers]

Edits of ZsRE, or made-up numbers that repeat their digits, are written one after another in closed
form, in the last block. To a matrix that all share each writes by least squares, from the
activations in the columns of its mask to the values of its tokens, on top of what is there. Then
all are asked for, with the right edit's columns open, so that nothing but what the matrix holds
decides. A matrix of each edit's own is written likewise. Values of an edit's own need no matrix:
which of them is added is counted. Exact: every token of the answer and the stop token is the first
choice. One row a memory, as a table.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable, Iterable, Iterator
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
) -> tuple[float, float]:
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
    parser.add_argument("--numbers", action="store_true", help="numbers in place of ZsRE")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", default="smollm2-135m")
    args = parser.parse_args()
    host = load(args.model)
    memory = Memoir.open(host.adapter, host.tokens, MemoirConfig(match="words"))
    facts = numbers if args.numbers else facts_of_zsre
    given = list(edits(memory, facts(args.edits, args.seed)))
    what = "numbers" if args.numbers else "edits of ZsRE"
    print(f"{len(given)} {what}, seed {args.seed}, {args.model}\n")
    print("| memory | taught, exact | reworded, exact | seconds (process) |\n|---|---|---|---|")
    for times, counted, name in (
        (1, False, "one matrix, as wide as the layer"),
        (8, False, "one matrix, 8 times as wide"),
        (64, False, "one matrix, 64 times as wide"),
        (None, False, "a matrix of each edit's own"),
        (None, True, "values of each edit's own, counted"),
    ):
        start = time.process_time()
        taught, reworded = scores(memory, given, times=times, counted=counted)
        print(f"| {name} | {taught:.3f} | {reworded:.3f} | {time.process_time() - start:.1f} |")


if __name__ == "__main__":
    main()
