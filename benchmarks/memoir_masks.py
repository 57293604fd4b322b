"""How well masks of the host's activations find the edit that a question asks for.

    python -m benchmarks.memoir_masks

No edit is written: facts are entered by their masks alone, and rewordings, unrelated questions and
near misses are put to the retrieval, as it is with a sentence encoder, with the words' say alone,
and with no more than the mask; with the facts' subjects and without. `demo` are the demonstration's
facts with their held-out wordings. What is found is written to results/memoir_masks.json; with
`--task` one set is measured and printed, with the fingerprint taken elsewhere if wanted.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engram_transformers import load
from engram_transformers.demo.data import demo_data
from engram_transformers.evaluation.metrics import rate, rate_of
from engram_transformers.evaluation.task import Question, Task, load_task
from engram_transformers.experiments.provenance import provenance
from engram_transformers.memories.memoir import Memoir, MemoirConfig
from engram_transformers.memories.memoir.bits import pack
from engram_transformers.memories.memoir.calibration import Usual
from engram_transformers.memories.memoir.passes import Batch
from engram_transformers.memories.memoir.retrieval import NEAREST, Retrieval, Retriever
from engram_transformers.memories.memoir.texts import batches, text_of
from engram_transformers.models.neutral import NEUTRAL
from engram_transformers.routing.meaning import MeaningAddress
from engram_transformers.types import Fact

OUT = Path(__file__).parent / "results" / "memoir_masks.json"
OVER = ("question", "prompt", "half", "last")
SETS = ("zsre", "wikibigedit", "demo")
MATCHES = ("meaning", "words", "mask")


def means(memory: Memoir, questions: Sequence[str], over: str) -> Tensor:
    """(questions, features): activations of each question's tokens, in the mean over some."""
    # Nothing is left out of the prompt then, so that its template can be counted.
    memory.passes.prefix = () if over == "prompt" else memory.passes.prefix
    texts = [[text_of(question, None, memory.tokens)] for question in questions]
    return torch.stack([_mean(memory, batch, over) for batch in batches(memory.passes, texts)])


def _mean(memory: Memoir, batch: Batch, over: str) -> Tensor:
    (text,) = batch.texts
    skip = len(text.prompt) - 1 - int(batch.columns[0])
    first, end = (at - skip for at in text.span)
    first, end = {
        "question": (first, end),
        "prompt": (0, len(text.prompt) - skip),
        "half": (first + (end - first) // 2, end),
        "last": (len(text.prompt) - skip - 1, len(text.prompt) - skip),
    }[over]
    return batch.x[0, first:end].double().mean(dim=0).float()


def task_of(name: str, facts: int, seed: int) -> Task:
    """A task, or the demonstration as one."""
    if name != "demo":
        return load_task(name).cut(facts, seed=seed)
    data = demo_data()
    pairs = [(one.fact, text) for one in data.facts for text in one.held_out]
    return Task(
        "demo",
        "chat",
        tuple(one.fact for one in data.facts),
        asked={"paraphrase": tuple(Question.about(fact, text) for fact, text in pairs)},
        silent={"unrelated": data.unrelated, "near": data.near_misses},
    )


def measured(memory: Memoir, task: Task, over: str) -> Iterator[dict[str, Any]]:
    """A row for the facts of a task with and without subjects, by each way to match."""
    masks = memory.fingerprinter
    masks.set_background(means(memory, NEUTRAL, over))
    facts = [replace(one, paraphrases=()) for one in task.facts]
    stored = masks.generate_mask(means(memory, [fact.prompt for fact in facts], over)).bool()
    asked = list(task.asked["paraphrase"])
    own = {fact.id: number for number, fact in enumerate(task.facts)}
    wanted = [own[question.fact] for question in asked]
    texts = {"paraphrase": [question.text for question in asked], **task.silent}
    put = {group: (means(memory, each, over), each) for group, each in texts.items()}
    for subjects in (True, False):
        taught = facts if subjects else [replace(one, subject=None) for one in facts]
        for match in MATCHES:
            found = _retriever(memory, taught, stored, match)
            said = {g: _decided(found, *each) for g, each in put.items()}
            right = [a == b for a, b in zip(said["paraphrase"], wanted, strict=True)]
            fired = {g: [one is not None for one in each] for g, each in said.items()}
            yield {
                "set": task.name,
                "facts": len(facts),
                "subjects": subjects,
                "match": match,
                "right": rate(right).as_dict(),
                "wrong": rate_of(sum(fired["paraphrase"]) - sum(right), len(right)).as_dict(),
                **{g: rate(fired[g]).as_dict() for g in task.silent},
                **_ranks(found, put["paraphrase"][0], wanted),
            }


def _ranks(retriever: Retriever, found: Tensor, wanted: Sequence[int]) -> dict[str, Any]:
    """How often the right mask is the nearest, among the five nearest, among those compared."""
    words = [pack(retriever.fingerprinter.generate_mask(one[None]).bool())[0] for one in found]
    near = [
        [key for key, _ in retriever.nearest(one, NEAREST)].index(right)
        if right in dict(retriever.nearest(one, NEAREST))
        else NEAREST
        for one, right in zip(words, wanted, strict=True)
    ]
    counts = {"first": 1, "among_5": 5, f"among_{NEAREST}": NEAREST}
    return {name: rate(at < count for at in near).as_dict() for name, count in counts.items()}


def _retriever(memory: Memoir, facts: Sequence[Fact], stored: Tensor, match: str) -> Retriever:
    assert memory.meaning is not None
    meaning = MeaningAddress(memory.meaning.encoder) if match == "meaning" else None
    assert memory.config.host_usual is not None
    usual = Usual.read(memory.config.host_usual, features=memory.fingerprinter.hidden_size)
    how = Retrieval(usual.threshold(match), usual.chance, judged=match != "mask")
    made = Retriever(
        memory.fingerprinter, memory.tokens.tokenizer.get_vocab(), how, meaning=meaning
    )
    vectors = memory.meaning.encode_facts(facts)
    for number, (fact, mask, each) in enumerate(zip(facts, stored, vectors, strict=True)):
        made.add(number, fact, pack(mask[None]), each)
    return made


def _decided(retriever: Retriever, found: Tensor, texts: Sequence[str]) -> list[int | None]:
    return [retriever.decide(m, text).value for m, text in zip(found, texts, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", choices=SETS, help="print this set alone, and store nothing")
    parser.add_argument("--facts", type=int, default=150)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--layer", type=int, default=-1)
    parser.add_argument("--over", choices=OVER, default="question")
    parser.add_argument("--model", default="smollm2-135m")
    args = parser.parse_args()
    host = load(args.model)
    # Nothing is written, so the way to write does not matter; this one works in every block.
    config = MemoirConfig(method="gradient", layer=args.layer, match="meaning")
    memory = Memoir.open(host.adapter, host.tokens, config)
    rows = [
        row
        for name in ([args.task] if args.task else SETS)
        for row in measured(memory, task_of(name, args.facts, args.seed), args.over)
    ]
    if args.task:
        print(json.dumps(rows, indent=1))
        return
    found = {"rows": rows, "seed": args.seed, "provenance": provenance(host)}
    OUT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
