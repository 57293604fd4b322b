"""Edits that contradict one another, and one of a thousand that is taken back.

    python -m benchmarks.edit_order                     the memory `memoir`
    python -m benchmarks.edit_order --kind lookup       another one

* Contradicted: questions of ZsRE are taught with one answer and then with another one. The later
  one has to win, the earlier one must not come back.
* One subject, several answers: rows of ZsRE that ask about one subject in other words and have
  other answers, taught in their order. What comes of the first question and of the last?
* Forgotten: of a thousand edits one in the middle is forgotten. Are the logits of questions of
  the others what they were, bit for bit, and those of its own question the bare host's?

Exact: each token of the answer and the stop token is the first choice. Results of several memories
stand in one file; `python -m benchmarks.report` makes the table.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.main_job import Ticker
from engram_transformers.api import Host, OpenMemory, load
from engram_transformers.evaluation.check import Trial, check
from engram_transformers.evaluation.data import rows
from engram_transformers.evaluation.metrics import rate
from engram_transformers.evaluation.silence import bit_equal, readings
from engram_transformers.evaluation.tasks.zsre import FILE, zsre
from engram_transformers.experiments.bench import shuffled
from engram_transformers.experiments.provenance import provenance
from engram_transformers.types import Fact

RESULT = Path(__file__).parent / "results" / "edit_order.json"
COLUMNS = {
    "later": "contradicted: the later answer",
    "earlier": "the earlier one",
    "last": "one subject: last question, its answer",
    "first": "first question, its answer",
    "first_by_last": "first question, the last one's answer",
    "others_same": "one forgotten: others bit-equal",
    "forgotten_bare": "its own question as the bare host",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kind", default="memoir", help="of memory")
    parser.add_argument("--facts", type=int, default=1000, help="of which one is forgotten")
    parser.add_argument("--asked", type=int, default=200, help="of the others")
    parser.add_argument("--contradicted", type=int, default=100)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    host = load()
    found = {
        **contradicted(host, options.kind, options.contradicted),
        **one_subject(host, options.kind),
        **forgotten(host, options.kind, options.facts, options.asked),
        "facts": options.facts,
        "provenance": provenance(host),
    }
    kept = json.loads(options.out.read_text()) if options.out.exists() else {}
    options.out.write_text(json.dumps({**kept, options.kind: found}, indent=1) + "\n")
    print(json.dumps(found))


def contradicted(host: Host, kind: str, count: int) -> dict[str, Any]:
    """Questions that are taught twice: which of their answers is said."""
    new = list(zsre().facts[:count])
    old = {fact.prompt: fact for fact in shuffled(new)}
    new = [fact for fact in new if fact.prompt in old]
    with taught(host, kind, [*old.values(), *new]):
        later = exact(host, [(fact.prompt, fact.answer) for fact in new])
        earlier = exact(host, [(prompt, fact.answer) for prompt, fact in old.items()])
    return {"later": rate(later).as_dict(), "earlier": rate(earlier).as_dict()}


def one_subject(host: Host, kind: str) -> dict[str, Any]:
    """Subjects about which several questions are taught, with answers of their own."""
    of: dict[str, list[Fact]] = defaultdict(list)
    for row in rows(FILE):
        of[row["subject"]].append(Fact(row["src"], row["alt"].strip(), subject=row["subject"]))
    several = [facts for facts in of.values() if facts[0].answer != facts[-1].answer]
    pairs = [(facts[0], facts[-1]) for facts in several]
    with taught(host, kind, [fact for facts in several for fact in facts]):
        found = {
            "last": exact(host, [(last.prompt, last.answer) for _, last in pairs]),
            "first": exact(host, [(first.prompt, first.answer) for first, _ in pairs]),
            "first_by_last": exact(host, [(first.prompt, last.answer) for first, last in pairs]),
        }
    return {name: rate(right).as_dict() for name, right in found.items()}


def forgotten(host: Host, kind: str, count: int, asked: int) -> dict[str, Any]:
    """One of many is forgotten: what changes for the others, and for its own question."""
    facts = list(zsre().facts[:count])
    gone = facts[count // 2]
    others = [fact for fact in facts if fact is not gone][:: max(1, count // asked)]
    prompts = host.prompts([fact.prompt for fact in others], form="chat")
    own = host.prompts([gone.prompt], form="chat")
    with taught(host, kind, facts) as memory:
        before = readings(host.adapter, prompts)
        spoke = not all(bit_equal(host.adapter, own))
        memory.forget([gone.id])
        after = readings(host.adapter, prompts)
        silent = bit_equal(host.adapter, own)
    same = [a.digest == b.digest for a, b in zip(before, after, strict=True)]
    # That nothing is left means something only where there was something.
    return {
        "others_same": rate(same).as_dict(),
        "forgotten_bare": rate(spoke and each for each in silent).as_dict(),
    }


@contextmanager
def taught(host: Host, kind: str, facts: Sequence[Fact]) -> Iterator[OpenMemory]:
    """A memory that was taught facts one by one, in their order."""
    with (
        tempfile.TemporaryDirectory() as folder,
        host.open_memory(Path(folder) / "memory", kind=kind) as memory,
    ):
        told = Ticker(f"taught, of {len(facts)}")
        for fact in facts:
            memory.teach([fact], check=False, progress=told)
        yield memory


def exact(host: Host, asked: Sequence[tuple[str, str]]) -> list[bool]:
    """For each question and answer, whether the host gives it, and stops."""
    prompts = host.prompts([question for question, _ in asked], form="chat")
    trials = [
        Trial(tuple(ids), tuple(host.tokens.answer_ids(question, answer, form="chat")))
        for ids, (question, answer) in zip(prompts, asked, strict=True)
    ]
    return [verdict.holds for verdict in check(host.adapter, trials)]


def table(found: Mapping[str, Any]) -> str:
    """What the documents show."""
    heads = ["memory", *COLUMNS.values()]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for kind, one in found.items():
        cells = [_cell(one[name]) for name in COLUMNS]
        lines.append(f"| {kind}, {one['facts']:,} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(one: Mapping[str, float]) -> str:
    return f"{one['value']:.3f} ({one['low']:.3f} to {one['high']:.3f}), n {one['n']}"


if __name__ == "__main__":
    main()
