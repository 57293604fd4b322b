"""The numbers of a demonstration, each with its n and its interval."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from engram_transformers.demo.run import Answered, Silence
from engram_transformers.evaluation.metrics import Share, wilson
from engram_transformers.types import Receipt

ENOUGH = 0.95
"Share of the taught prompts below which the demonstration has failed."


@dataclass(frozen=True)
class Count:
    """So many of n."""

    hits: int
    n: int

    @staticmethod
    def of(cases: Sequence[bool]) -> Count:
        return Count(sum(cases), len(cases))

    @property
    def share(self) -> Share:
        """The share with its 95 % interval."""
        return wilson(self.hits, self.n)


@dataclass(frozen=True)
class DemoResult:
    """What a demonstration found."""

    model: str
    receipt: Receipt
    taught: Sequence[Answered]
    held_out: Sequence[Answered]
    silences: Sequence[Silence]
    restored: Sequence[bool]
    "For each probe, whether forgetting restored its logits bit for bit."
    recalled: Sequence[Answered]
    "Some taught prompts, asked again after the forgetting was undone."
    seconds: float

    @property
    def counts(self) -> dict[str, Count]:
        """Every share that is reported."""
        far = [each for each in self.silences if not each.near_miss]
        near = [each for each in self.silences if each.near_miss]
        return {
            "taught_exact": Count.of([each.right for each in self.taught]),
            "paraphrase_exact": Count.of([each.right for each in self.held_out]),
            "unrelated_bit_equal": Count.of([each.equal for each in self.silences]),
            "far_bit_equal": Count.of([each.equal for each in far]),
            "near_miss_bit_equal": Count.of([each.equal for each in near]),
            "restored_bit_equal": Count.of(self.restored),
            "undo_exact": Count.of([each.right for each in self.recalled]),
        }

    @property
    def categories(self) -> dict[str, dict[str, Count]]:
        """Taught and held-out questions by category."""
        found: dict[str, dict[str, list[bool]]] = defaultdict(
            lambda: {"taught": [], "held_out": []}
        )
        for each in (*self.taught, *self.held_out):
            kind = "held_out" if each.question.held_out else "taught"
            found[each.question.of.category][kind].append(each.right)
        return {
            name: {kind: Count.of(cases) for kind, cases in kinds.items()}
            for name, kinds in found.items()
        }

    @property
    def wrong(self) -> list[Answered]:
        """The questions that were not answered as taught."""
        return [each for each in (*self.taught, *self.held_out) if not each.right]

    @property
    def disturbed(self) -> list[Silence]:
        """Unrelated prompts on which the memory acted."""
        return [each for each in self.silences if not each.equal]

    @property
    def succeeded(self) -> bool:
        """Whether the promise holds: learned, nothing else changed, taken back.

        Near misses are reported, not demanded: which question is meant is a judgement there.
        """
        counts = self.counts
        exact = ("far_bit_equal", "restored_bit_equal")
        return counts["taught_exact"].share.value >= ENOUGH and all(
            counts[name].hits == counts[name].n for name in exact
        )

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready: shares from 0 to 1, beside them n and 95 % intervals."""
        counts = self.counts
        shares = {name: count.share.as_dict() for name, count in counts.items()}
        return {
            "model": self.model,
            "facts": len(self.taught),
            **{name: share["value"] for name, share in shares.items()},
            "n": {name: count.n for name, count in counts.items()},
            "interval_95": {name: [s["low"], s["high"]] for name, s in shares.items()},
            "categories": {
                name: {kind: {"right": c.hits, "n": c.n} for kind, c in kinds.items()}
                for name, kinds in self.categories.items()
            },
            "wrong": [_wrong(each) for each in self.wrong],
            "disturbed": [each.prompt for each in self.disturbed],
            "refused": [each.reason for each in self.receipt.refused],
            "teach_seconds": round(self.receipt.seconds, 2),
            "bytes": self.receipt.bytes,
            "seconds": round(self.seconds, 1),
            "succeeded": self.succeeded,
        }


def _wrong(each: Answered) -> dict[str, Any]:
    return {
        "question": each.question.text,
        "held_out": each.question.held_out,
        "expected": each.question.of.fact.answer,
        "said": each.said,
        "stopped": each.stopped,
    }
