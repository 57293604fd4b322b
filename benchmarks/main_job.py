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
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.provenance import provenance
from benchmarks.sets import SETS, Job
from engram_transformers.api import Host, OpenMemory, load
from engram_transformers.evaluation.metrics import exact, share
from engram_transformers.evaluation.silence import bit_equal
from engram_transformers.models.tokens import Form
from engram_transformers.types import Fact

RESULTS = Path(__file__).parent / "results" / "main_job"
KEPT = 40
"Failures of a group that a result keeps as examples."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sets", nargs="*", choices=[*SETS, []], help="all when none is named")
    parser.add_argument("--limit", type=int, help="facts of each set")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--no-check", action="store_true", help="teach without checking")
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
        host.open_memory(Path(folder) / "memory", encoder=options.encoder) as memory,
    ):
        receipt = memory.teach(job.facts, check=not options.no_check, progress=_Ticker(job.name))
        stats = memory.stats()
        taught = [(fact.prompt, fact) for fact in job.facts]
        groups = {"taught": taught, **job.asked}
        return {
            "set": job.name,
            "form": job.form,
            "facts": len(job.facts),
            "limit": options.limit,
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
                name: score(host, memory, pairs, form=job.form, batch=options.batch)
                for name, pairs in groups.items()
            },
            "silent": {
                name: silence(host, memory, prompts, form=job.form)
                for name, prompts in job.silent.items()
            },
            "provenance": provenance(host),
        }


def score(
    host: Host, memory: OpenMemory, pairs: Sequence[tuple[str, Fact]], *, form: Form, batch: int
) -> dict[str, Any]:
    """Ask questions by real generation: right, wrong (another fact's answer), or silent."""
    started, right, stopped, wrong, failures = time.perf_counter(), 0, 0, 0, []
    answers = {fact.answer for fact in memory.facts}
    for chunk in _batches(host, pairs, form=form, size=batch):
        prompts = [host.tokens.prompt_ids(text, form=form) for text, _ in chunk]
        longest = max(len(host.tokens.encode(fact.answer)) for _, fact in chunk)
        written = host.generate(prompts, max_new_tokens=max(32, longest + 8))
        for (text, fact), ids in zip(chunk, written, strict=True):
            said = host.tokens.decode_answer(ids)
            good = exact(said, fact.answer)
            right += good
            stopped += bool(ids) and ids[-1] == host.tokens.stop
            wrong += not good and said in answers
            if not good and len(failures) < KEPT:
                failures.append({"asked": text, "wanted": fact.answer[:200], "said": said[:200]})
    n = len(pairs)
    return {
        "n": n,
        "exact": share(right, n),
        "stopped": share(stopped, n),
        "wrong_fact": share(wrong, n),
        "seconds": round(time.perf_counter() - started, 1),
        "failures": failures,
    }


def silence(
    host: Host, memory: OpenMemory, prompts: Sequence[str], *, form: Form
) -> dict[str, Any]:
    """Prompts that no fact answers: are their logits the bare host's, bit for bit?"""
    ids = [host.tokens.prompt_ids(text, form=form) for text in prompts]
    equal = bit_equal(host.adapter, ids)
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


def _batches(
    host: Host, pairs: Sequence[tuple[str, Fact]], *, form: Form, size: int
) -> Iterator[list[tuple[str, Fact]]]:
    """Pairs with answers of like length side by side, so that few wait for the longest."""
    order = sorted(pairs, key=lambda pair: (len(pair[1].answer), len(pair[0])))
    for start in range(0, len(order), size):
        yield order[start : start + size]


def _label(job: Job, options: argparse.Namespace) -> str:
    parts = [job.name]
    parts += [options.encoder] if options.encoder != "minilm" else []
    parts += ["no-subject"] if options.no_subject else []
    parts += [f"first{options.limit}"] if options.limit else []
    return "-".join(parts)


def _headline(result: dict[str, Any]) -> dict[str, Any]:
    asked = {name: group["exact"] for name, group in result["asked"].items()}
    silent = {name: group["bit_equal"] for name, group in result["silent"].items()}
    return {"set": result["set"], "facts": result["facts"], **asked, **silent}


class _Ticker:
    """Says on stderr how far teaching is."""

    def __init__(self, name: str) -> None:
        self.name, self.done, self.said = name, 0, time.perf_counter()

    def __call__(self, more: int) -> None:
        self.done += more
        if time.perf_counter() - self.said > 10:
            self.said = time.perf_counter()
            print(f"{self.name}: {self.done} facts", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
