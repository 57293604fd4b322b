"""The main job, measured: teach real sets to SmolLM2-135M, ask, and look at what it writes.

Every score is real greedy generation with a cache and a natural end, on an attached host. For
each set: the taught prompts, wordings that were never taught, and prompts on which the memory
has to stay silent, where all logits are compared bit for bit with the bare host's.

    python -m benchmarks.main_job                      all sets (hours on a processor)
    python -m benchmarks.main_job zsre stack_faq       some of them
    python -m benchmarks.main_job --limit 100          the first facts of each
    python -m benchmarks.main_job --device cuda        on a GPU

A result is written to benchmarks/results/main_job/ after each set, its failures with it.
`python -m benchmarks.report` makes the tables of the documents from these files.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.sets import SETS, Job
from engram_transformers.api import Host, OpenMemory, load
from engram_transformers.evaluation.check import Trial, check
from engram_transformers.evaluation.metrics import exact, share
from engram_transformers.evaluation.silence import bit_equal
from engram_transformers.experiments.provenance import provenance
from engram_transformers.models.tokens import Form
from engram_transformers.types import Fact

RESULTS = Path(__file__).parent / "results" / "main_job"
KEPT = 40
"Failures of a group that a result keeps as examples."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sets", nargs="*", choices=[*SETS, []], help="all when none is named")
    parser.add_argument("--limit", type=int, help="facts of each set")
    parser.add_argument("--sample", type=int, help="questions of each group, drawn with a seed")
    parser.add_argument("--silent", type=int, help="prompts of each silent group, likewise")
    parser.add_argument("--one-pass", type=int, help="taught facts that are checked in one pass")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--no-check", action="store_true", help="teach without checking")
    parser.add_argument("--address", default="meaning", help="or exact: taught wordings only")
    parser.add_argument("--encoder", default="minilm")
    parser.add_argument("--no-subject", action="store_true", help="teach without subjects")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    host = load(device=options.device)
    for name in options.sets or SETS:
        job = SETS[name]().cut(options.limit)
        if options.no_subject:
            job = job.without_subjects()
        result = run(host, job, options)
        options.out.mkdir(parents=True, exist_ok=True)
        path = options.out / f"{_label(job, options)}.json"
        path.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
        print(json.dumps(_headline(result)), flush=True)


def run(host: Host, job: Job, options: argparse.Namespace) -> dict[str, Any]:
    """Teach and score one set."""
    with (
        tempfile.TemporaryDirectory() as folder,
        host.open_memory(
            Path(folder) / "memory", address=options.address, encoder=options.encoder
        ) as memory,
    ):
        receipt = memory.teach(job.facts, check=not options.no_check, progress=Ticker(job.name))
        stats = memory.stats()
        taught = [(fact.prompt, fact) for fact in job.facts]
        groups = {"taught": taught, **job.asked}
        groups = {name: _drawn(pairs, options.sample) for name, pairs in groups.items()}
        quiet = {name: _drawn(texts, options.silent) for name, texts in job.silent.items()}
        return {
            "set": job.name,
            "form": job.form,
            "facts": len(job.facts),
            "limit": options.limit,
            "address": options.address,
            "encoder": options.encoder,
            "subjects": any(fact.subject for fact in job.facts),
            "receipt": {
                "taught": len(receipt.taught),
                "known": len(receipt.known),
                "replaced": len(receipt.replaced),
                "refused": [[r.fact.prompt, r.reason] for r in receipt.refused][:KEPT],
                "checked": receipt.checked,
                "seconds": round(receipt.seconds, 1),
                "bytes_per_fact": round(stats.bytes_per_fact),
            },
            "asked": {
                name: score(host, memory, pairs, form=job.form) for name, pairs in groups.items()
            },
            "silent": {
                name: silence(host, memory, prompts, form=job.form)
                for name, prompts in quiet.items()
            },
            "one_pass": one_pass(host, _drawn(job.facts, options.one_pass or 0), form=job.form),
            "provenance": provenance(host),
        }


def score(
    host: Host, memory: OpenMemory, pairs: Sequence[tuple[str, Fact]], *, form: Form
) -> dict[str, Any]:
    """Ask questions by real generation: right, wrong (another fact's answer), or neither."""
    started, tokens = time.perf_counter(), host.tokens
    written = host.generate(
        [tokens.prompt_ids(text, form=form) for text, _ in pairs],
        max_new_tokens=[max(32, len(tokens.encode(fact.answer)) + 8) for _, fact in pairs],
        progress=Ticker("asked"),
    )
    said = [tokens.decode_answer(ids) for ids in written]
    right = [exact(text, fact.answer) for text, (_, fact) in zip(said, pairs, strict=True)]
    answers, n = {fact.answer.strip() for fact in memory.facts}, len(pairs)
    wrong = [not good and text in answers for text, good in zip(said, right, strict=True)]
    failures = [
        {"asked": asked, "wanted": fact.answer[:200], "said": text[:200]}
        for (asked, fact), text, good in zip(pairs, said, right, strict=True)
        if not good
    ]
    return {
        "n": n,
        "exact": share(sum(right), n),
        "stopped": share(sum(ids[-1:] == [tokens.stop] for ids in written), n),
        "wrong_fact": share(sum(wrong), n),
        "seconds": round(time.perf_counter() - started, 1),
        "failures": failures[:KEPT],
    }


def one_pass(host: Host, facts: Sequence[Fact], *, form: Form) -> dict[str, Any]:
    """Teacher-forced: whether each answer and its end are the first choice, as greedy wants."""
    tokens = host.tokens
    trials = [
        Trial(
            tuple(tokens.prompt_ids(fact.prompt, form=form)),
            tuple(tokens.answer_ids(fact.prompt, fact.answer, form=form)),
        )
        for fact in facts
    ]
    verdicts = check(host.adapter, trials, progress=Ticker("checked")) if trials else []
    return {"n": len(facts), "holds": share(sum(v.holds for v in verdicts), len(facts))}


def silence(
    host: Host, memory: OpenMemory, prompts: Sequence[str], *, form: Form
) -> dict[str, Any]:
    """Prompts that no fact answers: are their logits the bare host's, bit for bit?"""
    ids = [host.tokens.prompt_ids(text, form=form) for text in prompts]
    equal = bit_equal(host.adapter, ids, progress=Ticker("compared"))
    loud = [text for text, same in zip(prompts, equal, strict=True) if not same]
    return {
        "n": len(prompts),
        "bit_equal": share(sum(equal), len(prompts)),
        "failures": [_fired(memory, text) for text in loud[:KEPT]],
    }


def _fired(memory: OpenMemory, text: str) -> dict[str, Any]:
    firing = memory.explain(text)
    meant = firing.candidates[0].question if firing.candidates else None
    return {"asked": text, "taken_for": meant, "score": round(firing.score, 3)}


def _label(job: Job, options: argparse.Namespace) -> str:
    parts = [job.name]
    parts += ["exact"] if options.address == "exact" else []
    parts += [options.encoder] if options.encoder != "minilm" else []
    parts += ["no-subject"] if options.no_subject else []
    parts += [f"first{options.limit}"] if options.limit else []
    return "-".join(parts)


def _headline(result: dict[str, Any]) -> dict[str, Any]:
    asked = {name: group["exact"] for name, group in result["asked"].items()}
    silent = {name: group["bit_equal"] for name, group in result["silent"].items()}
    asked["one_pass"] = result["one_pass"]
    return {"set": result["set"], "facts": result["facts"], **asked, **silent}


def _drawn(items: Sequence[Any], count: int | None) -> list[Any]:
    """So many of the items, the same every time; all where no number is given."""
    if count is None or count >= len(items):
        return list(items)
    return random.Random(0).sample(list(items), count)


class Ticker:
    """Says on stderr how far teaching is."""

    def __init__(self, name: str) -> None:
        self.name, self.done, self.said = name, 0, time.perf_counter()

    def __call__(self, more: int) -> None:
        self.done += more
        if time.perf_counter() - self.said > 10:
            self.said = time.perf_counter()
            print(f"{self.name}: {self.done}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
